"""Keys: who is the same user, item or group, by one rule wherever it is asked."""

import numpy as np
import pandas as pd
import pytest

from sklearn_din import HistoryBuilder, HistorySequenceEncoder, attach_history, sample_negatives
from sklearn_din.metrics import group_roc_auc_score
from sklearn_din.utils.keys import NO_KEY, Keys, mix_hashes, read_groups
from tests.fitted_pipelines import make_model

COLUMNS = [
    pd.Series([7, 3, 7, 5]),
    pd.Series([7.0, 3.0, np.nan, 7.0]),
    pd.Series(["7", "ann", None, "7"]),
    pd.Series(["7", "3", None, "7"], dtype="category"),
    pd.Series([7, None, 2**62 + 1, 7], dtype="Int64"),
    pd.Series([True, False, True, True]),
    pd.Series([("bob", "web"), ("ann", "web"), ("bob", "web"), ("ann",)]),
    pd.Series(pd.to_datetime(["2024-02-01", "2024-01-01", None, "2024-02-01"])),
]


@pytest.mark.parametrize("column", COLUMNS, ids=[str(column.tolist()) for column in COLUMNS])
def test_keys_are_those_of_a_loop(column):
    keys, known = Keys.read(column, name="user"), {}
    for value, code, own in zip(column, keys.codes, keys.hashes, strict=True):
        if value is pd.NaT or value is pd.NA or value is None or value != value:
            assert (code, own) == (-1, NO_KEY)
        else:
            assert code == known.setdefault(value, len(known))
            assert own == Keys.read(pd.Series([value])).hashes[0]
    order = sorted(known, key=repr if isinstance(column[0], tuple) else None)
    ranks = [order.index(value) for value in known]
    assert keys.ranks.tolist() == [*map([*ranks, -1].__getitem__, keys.codes)]
    turned = Keys.read(column[::-1])
    assert keys.find_in(turned, name="user").tolist() == turned.codes[::-1].tolist()


def test_a_key_has_one_hash_in_every_file_and_users_keep_the_part_that_they_had():
    spelt = [np.array([7]), np.array([7.0]), np.array(["7"]), np.array([7], "uint8")]
    assert len({int(Keys.read(values).hashes[0]) for values in spelt}) == 1
    assert (Keys.read(np.arange(5)).hashes % 5).tolist() == [4, 1, 0, 4, 2]


@pytest.mark.parametrize(("values", "message"), [
    ([7, "7", 8], "holds 7 and '7', which are two ids"),
    (["7.5", 7.5, "a"], "holds 7.5 and '7.5', which are two ids"),
    ([True, 1, "a"], "holds True and 1, which Python takes for equal"),
])  # fmt: skip
def test_two_kinds_within_one_call_are_an_error(values, message):
    log = pd.DataFrame({"user": pd.Series(values, dtype=object), "item": list("abc")})
    log, plain, y = log.assign(time=range(3)), log.assign(user="a", time=5), [0, 1, 1]
    columns = {"user": "user", "time": "time"}
    encoder = HistorySequenceEncoder(user="user", drop=["time"])
    for call in (
        lambda: attach_history(plain, log, **columns, columns=["item"]),
        lambda: attach_history(log, plain, **columns, columns=["item"]),
        lambda: sample_negatives(log, item="item", user="user"),
        lambda: group_roc_auc_score(y, [0.1, 0.2, 0.3], groups=log["user"]),
        lambda: HistoryBuilder(**columns, columns=["item"], levels="auto").fit(log, y),
        lambda: make_model(encoder, neighbours="user").fit(log, y),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_encoded_users_are_values_or_hashes_and_missing_ones_are_nobody():
    users = np.array([3, 9, 3])
    hashes = Keys.read(users).hashes
    for of in (Keys.of_users(users, 3), Keys.of_users(hashes, 3)):
        np.testing.assert_array_equal(of.hashes, hashes)
        assert of.codes.tolist() == [0, 1, 0]
    nobody = Keys.of_users(np.append(hashes, NO_KEY), 4)
    assert nobody.codes.tolist() == [0, 1, 0, -1]
    assert Keys.of_users(None, 2).codes.tolist() == [-1, -1]
    with pytest.raises(ValueError, match="groups must not be missing, got 1 rows"):
        read_groups(nobody)
    assert len(set(mix_hashes([hashes, hashes]).tolist())) == 2
