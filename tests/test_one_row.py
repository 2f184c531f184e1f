"""A row of plain values is encoded as a frame of one row is."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sklearn_din import HistorySequenceEncoder
from sklearn_din.encoding.table import ColumnReader, OneRow
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.lists import IdLists
from sklearn_din.features.schema import Schema

INTEGERS = [0, 7, -3, 99, 2**63 - 1, -(2**63), 2**64, np.int64(7), np.int32(8), np.uint8(9)]
TEXTS = ["hat", "tie", "", "7", "new", np.str_("hat")]
OTHERS = [None, float("nan"), np.nan, 7.0, 7.5, np.float64(8.0), np.float32(0.1), pd.NA, pd.NaT]
OTHERS += [True, np.bool_(False), float("inf"), 1e300, [1], {"a": 1}, b"hat"]
SCALARS = st.sampled_from(INTEGERS + TEXTS + OTHERS)
PLAIN = st.one_of(
    st.lists(st.sampled_from([7, 8, 9, 2, 10**6]), max_size=5),
    st.lists(st.sampled_from(["hat", "tie", "new"]), max_size=5),
    st.lists(SCALARS, max_size=3),
)
CELLS = st.one_of(
    PLAIN,
    PLAIN.map(tuple),
    st.lists(st.integers(5, 9), max_size=5).map(np.array),
    st.lists(st.integers(5, 9), max_size=5).map(lambda cell: np.array(cell, dtype=np.int32)),
    st.lists(st.sampled_from(["hat", "new"]), max_size=5).map(lambda c: np.array(c, dtype=object)),
    st.lists(PLAIN, max_size=3),  # several values of each event
    st.sampled_from([np.array([[7]]), np.array(7), np.array([7.0, np.nan]), {7}, "7|8"]),
    SCALARS,
)


def fit(*, is_text, is_nested=False, **parameters):
    values = ["hat", "tie", "sock"] if is_text else [7, 8, 9]
    values = [values[:n] for n in (1, 2, 3)] if is_nested else values
    frame = pd.DataFrame({
        "item": values * 2,
        "price": [1.0, 2.0, None, 3.0, 4.0, 5.0],
        "hist_item": [values[:n] for n in (1, 2, 3, 0, 1, 2)],
        "hist_paid": [[1.5, 2.5, 0.5][:n] for n in (1, 2, 3, 0, 1, 2)],
        "tags": [[], ["a"], ["b"], ["a", "b"], [], ["a"]],
    })  # fmt: skip
    histories = {("hist_item", "hist_paid"): ("item", None), "tags": None}
    return HistorySequenceEncoder(histories=histories, max_length=3, **parameters).fit(frame)


ENCODERS = [
    fit(is_text=True),
    fit(is_text=False),
    fit(is_text=True, separator="|"),
    fit(is_text=True, is_nested=True),
    fit(is_text=False, is_nested=True),
]


def encode(encoder, columns):
    """Encoded arrays and warnings, or the error."""
    rows = encoder._row_encoder()
    with warnings.catch_warnings(record=True, action="always") as caught:
        try:
            X = rows.encode_columns(columns)
        except (ValueError, TypeError) as error:
            return type(error), str(error)
    arrays = dict(X.columns)
    for ragged in X.behaviours.values():
        arrays |= {name: ragged.flat(name) for name in ragged.columns}
    arrays = {n: v.pad() if isinstance(v, IdLists) else v for n, v in arrays.items()}
    said = sorted(str(warning.message) for warning in caught)
    return {name: values.tolist() for name, values in arrays.items()}, said


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(ENCODERS), SCALARS | PLAIN, SCALARS, CELLS, CELLS, CELLS)
@example(ENCODERS[2], 7, 0, ["hat", "tie", "hat", "hat"], [], [])  # one of them is cut off
@pytest.mark.slow
def test_a_row_is_encoded_as_a_frame_of_one_row_is(encoder, item, price, events, paid, tags):
    row = {"item": item, "price": price, "hist_item": events, "hist_paid": paid, "tags": tags}
    if isinstance(events, list) and events and not isinstance(paid, dict | str):
        row["hist_paid"] = [0.5] * len(events)  # else most draws are refused for their lengths
    frame = pd.DataFrame({name: pd.Series([value]) for name, value in row.items()})
    separator = encoder.separator
    expected = encode(encoder, ColumnReader(frame, separator=separator))
    assert encode(encoder, OneRow(row, separator=separator)) == expected


@pytest.mark.parametrize("user", INTEGERS + TEXTS + OTHERS, ids=repr)
def test_a_user_is_read_as_one_of_a_frame_is(user):
    of_frame = ColumnReader(pd.DataFrame({"user": pd.Series([user])})).metadata("users", "user")
    of_row = OneRow({"user": user}).metadata("users", "user")
    assert of_row.dtype == of_frame.dtype
    assert repr(of_row.tolist()) == repr(of_frame.tolist())


@pytest.mark.parametrize("spaces", [[0] * 30, range(30)])
def test_of_unknown_events_the_same_is_said_as_of_a_frame(spaces):
    shown = pd.DataFrame({"item": ["hat7", "sock8"], "hist_item": [["sock8"], ["hat7"]]})
    rows = HistorySequenceEncoder().fit(shown)._row_encoder()
    row = {"item": "HAT7", "hist_item": [f"HAT7{' ' * number}" for number in spaces]}
    both = []
    for columns in (OneRow(row), ColumnReader(pd.DataFrame({n: [v] for n, v in row.items()}))):
        X, parts = EncodedFeatures(Schema(()), {}), rows.learnt.read(columns)
        rows.learnt.add_to(X, parts)
        both.append([*rows.learnt.note_unknown(parts, X)])
    assert both[0] == both[1]
    assert len(both[0]) == len(set(spaces)) // 30
