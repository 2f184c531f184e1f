import pickle
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_din.encoding.vocabulary import IdRules, Occurrences, Vocabulary, plain_ids
from sklearn_din.features.identities import ids_to_look_up


def occurrences(values):
    """Distinct values and counts of a list, the obvious way."""
    counts = Counter(values)
    distinct = np.empty(len(counts), dtype=object)
    distinct[:] = list(counts)
    return Occurrences(plain_ids(distinct, name="item"), np.array(list(counts.values())))


def learn(*columns, **parameters):
    sources = {f"column{i}": occurrences(values) for i, values in enumerate(columns)}
    return Vocabulary.learn(sources, IdRules(**parameters))


def ids_of(vocabulary, values):
    """Ids as tables are asked for them: all unknown values are 1."""
    return ids_to_look_up(vocabulary.encode(values, name="item")).tolist()


# pandas 2 reads text to its first NUL only, so two such texts can be one to it.
NOT_READ = "" if pd.__version__ >= "3" else "\x00"
LETTERS = st.characters(exclude_characters=NOT_READ)
WHOLE_LETTERS = st.characters(exclude_characters=NOT_READ, exclude_categories=["Cs"])


@given(st.lists(st.text(WHOLE_LETTERS)))
def test_text_is_sorted_as_python_sorts_it(values):
    assert learn(values).values.tolist() == sorted(set(values))


@given(st.lists(st.text(LETTERS, min_size=1), unique=True, min_size=1))
def test_decoding_turns_ids_back_into_values(values):
    vocabulary = learn(values)
    ids = vocabulary.encode(np.array(values, dtype=object), name="item")
    assert vocabulary.decode(ids).tolist() == values
    assert vocabulary.decode(np.array([[0, 1]])).tolist() == [[None, None]]


@pytest.mark.parametrize(("dtype", "limit"), [(np.float32, 2**24), (np.float64, 2**53)])
def test_ids_as_floats_are_refused_where_neighbours_would_merge(dtype, limit):
    assert plain_ids(np.array([limit - 1], dtype=dtype), name="item").tolist() == [limit - 1]
    message = rf"item holds ids as {np.dtype(dtype)} from {limit} on, .*dtype 'Int64'"
    with pytest.raises(ValueError, match=message):
        plain_ids(np.array([limit], dtype=dtype), name="item")


@pytest.mark.parametrize("learnt", [[True, "hat"], [True, False], [1, 0], [1, "hat"]])
@pytest.mark.parametrize("batch", [[True, "tie"], [False, 7], [1, "hat"], [0, 2**70]])
def test_no_value_knows_another_by_what_stands_beside_it(learnt, batch):
    known = Vocabulary(plain_ids(np.array(learnt, dtype=object), name="a"))
    together = known.positions(plain_ids(np.array(batch, dtype=object), name="a"))
    singly = [plain_ids(np.array([value], dtype=object), name="a") for value in batch]
    alone = [known.positions(one)[0] for one in singly]
    assert together.tolist() == alone


@pytest.mark.parametrize(("learnt", "other"), [(1, True), (True, 1), (0, False), (False, 0)])
def test_among_other_objects_a_boolean_is_no_number(learnt, other):
    vocabulary = Vocabulary(np.array([learnt, "hat"], dtype=object))
    for batch in ([learnt, "tie"], [learnt]):
        ids = vocabulary.encode(plain_ids(np.array(batch, dtype=object), name="a"), name="a")
        assert ids[0] == 2
    for batch in ([other, "tie"], [other], [other, 7]):
        ids = vocabulary.encode(plain_ids(np.array(batch, dtype=object), name="a"), name="a")
        assert (ids < 0).all()


def test_catalogues_are_told_apart_and_text_that_spells_integers_joins_them():
    vocabulary = learn([1, 2, 3])
    assert pickle.loads(pickle.dumps(vocabulary)).digest == learn([3, 2, 1]).digest
    others = [learn([1, 2]), learn([1, 2, 4]), learn(["1", "2", "3"]), learn([])]
    assert len({vocabulary.digest, *(other.digest for other in others)}) == 5
    vocabulary = learn([3, 12], ["12", "-4"])
    assert vocabulary.values.tolist() == [-4, 3, 12]
    texts = np.array(["12", "012", "12.0", "hat"], dtype=object)
    assert ids_of(vocabulary, texts) == [4, 1, 1, 1]
    with pytest.raises(ValueError, match=r"ids must lie in range\(0, 3\), got .* 0 to 3"):
        learn(["a"]).decode(np.array([0, 3]))
