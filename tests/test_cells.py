from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_din.encoding.cells import as_numbers, factorize, holds_lists, read_history
from sklearn_din.encoding.events import read_events
from sklearn_din.encoding.facts import HistoryFacts
from sklearn_din.logs.eventlog import EventLog
from sklearn_din.logs.windows import WindowArray

ROWS = [[5, 6, 7], None, [], [6], [7, 7]]


def objects(cells):
    column = np.empty(len(cells), dtype=object)
    for row, cell in enumerate(cells):
        column[row] = cell
    return pd.Series(column, name="clicks", dtype=object)


def windows(starts, lengths, *, anchors=None, values=(5, 6, 7, 8, 9), column="item"):
    log = EventLog({column: np.array(values)}, token="log")
    array = WindowArray(log, column, np.array(starts), np.array(lengths), anchors)
    return pd.Series(array, name="clicks")


def facts_of(cells):
    facts = HistoryFacts()
    facts.update(cells)
    return facts


def as_lists(cells):
    """The cells row by row, the obvious way."""
    codes, values = cells.codes(slice(0, len(cells.values)))
    return [
        [None if c < 0 else values[c] for c in codes[start : start + length]]
        for start, length in zip(cells.spans.starts, cells.spans.lengths, strict=True)
    ]


def events_as_lists(events, name):
    codes, values = events.codes[name]
    return [
        [None if c < 0 else values[c] for c in codes[start : start + length]]
        for start, length in zip(events.spans.starts, events.spans.lengths, strict=True)
    ]


LAYOUTS = {
    "lists": objects(ROWS),
    "tuples": objects([None if row is None else tuple(row) for row in ROWS]),
    "arrays": objects([None if row is None else np.array(row, dtype=np.int32) for row in ROWS]),
    "missing as nan": objects([float("nan") if row is None else row for row in ROWS]),
    "missing as numpy's nan": objects([np.float32("nan") if row is None else row for row in ROWS]),
    "missing as NA": objects([pd.NA if row is None else row for row in ROWS]),
    "arrow": pd.Series(pa.array(ROWS), dtype=pd.ArrowDtype(pa.list_(pa.int64())), name="clicks"),
    "large arrow": pd.Series(ROWS, dtype=pd.ArrowDtype(pa.large_list(pa.int32())), name="clicks"),
    "sliced arrow": pd.Series(
        [[9], *ROWS, [9]], dtype=pd.ArrowDtype(pa.list_(pa.int64())), name="clicks"
    ).iloc[1:-1],
    "windows": windows([0, 0, 0, 3, 4], [3, -1, 0, 1, 2], values=[5, 6, 7, 6, 7, 7]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_reads_the_same(layout):
    column = LAYOUTS[layout]

    assert holds_lists(column)
    assert as_lists(read_history(column)) == [row or [] for row in ROWS]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([["hat", None], ["sock"]], [["hat", None], ["sock"]]),
        ([["hat", float("nan")], []], [["hat", None], []]),
        ([[True, False], [True]], [[True, False], [True]]),
        ([[2**60 + 1, None], [2**60]], [[2**60 + 1, None], [2**60]]),
        ([[2**60 + 1, float("nan")], [2**60]], [[2**60 + 1, None], [2**60]]),
        ([[2**60 + 1, 2**63], [2**60]], [[2**60 + 1, 2**63], [2**60]]),
        ([[1, "hat"], ("sock", None)], [[1, "hat"], ["sock", None]]),
        ([np.array([1, 2]), np.array(["hat"])], [[1, 2], ["hat"]]),
        ([[1, (2, 3)]], [[1, (2, 3)]]),
        ([[], []], [[], []]),
        ([None, None], [[], []]),
    ],
)
def test_events_of_any_type_survive(cells, expected):
    assert as_lists(read_history(objects(cells))) == expected


@pytest.mark.parametrize(
    ("events", "is_numeric", "is_integer"),
    [
        ([1.5, 2.5, None], True, False),
        ([Decimal("1.5"), Decimal("2.5"), None], True, False),
        ([1, 2, 3], False, True),
        (["a", "b", None], False, False),
    ],
)
def test_events_of_an_arrow_dictionary_are_of_the_kind_of_its_values(
    events, is_numeric, is_integer
):
    for values in (pa.array(events), pa.array(events).dictionary_encode()):
        lists = pa.ListArray.from_arrays(pa.array([0, 2, 3], pa.int32()), values)
        column = pd.Series(pd.arrays.ArrowExtensionArray(lists), name="clicks")
        cells = read_history(column)

        facts = facts_of(cells)
        assert (facts.is_numeric, facts.is_integer) == (is_numeric, is_integer)
        assert as_lists(cells) == [events[:2], events[2:]]


def test_fixed_size_arrow_lists_read_as_lists():
    kind = pd.ArrowDtype(pa.list_(pa.int64(), 2))
    column = pd.Series([[1, 2], None, [3, 4]], dtype=kind, name="clicks")

    assert as_lists(read_history(column)) == [[1, 2], [], [3, 4]]


@pytest.mark.parametrize(
    ("make", "size"), [(pa.ListViewArray, pa.int32()), (pa.LargeListViewArray, pa.int64())]
)
def test_arrow_list_views_read_as_lists(make, size):
    events, is_missing = pa.array([1, 2, 3, 4, 5]), pa.array([False, True, False, False])
    starts, lengths = pa.array([3, 0, 1, 0], size), pa.array([2, 2, 3, 0], size)
    views = make.from_arrays(starts, lengths, events, mask=is_missing)
    column = pd.Series(pd.arrays.ArrowExtensionArray(views), name="clicks")

    assert holds_lists(column)
    assert as_lists(read_history(column)) == [[4, 5], [], [2, 3, 4], []]
    assert as_lists(read_history(column[2:])) == [[2, 3, 4], []]


@pytest.mark.parametrize("dtype", [object, "str", pd.ArrowDtype(pa.string())])
def test_text_is_split_at_the_separator(dtype):
    column = pd.Series(["hat | sock", "hat", "", None, "hat||sock"], dtype=dtype, name="tags")

    lists = as_lists(read_history(column, separator="|"))
    assert lists == [["hat", "sock"], ["hat"], [], [], ["hat", None, "sock"]]


@pytest.mark.parametrize(
    ("column", "got"),
    [
        (pd.Series([1, 2], name="clicks"), "dtype int64"),
        (pd.Series(["a|b"], name="clicks", dtype=object), "string cells, and separator is None"),
        (pd.Series(["a|b"], name="clicks"), "string cells, and separator is None"),
        (objects([[1], 2]), r"2 \(int\) in row 1"),
        (objects([[1], "ab"]), r"'ab' \(str\) in row 1"),
        (objects([1.5, None]), r"1.5 \(float\) in row 0"),
        (objects([np.datetime64("2021-01-01"), [1.5]]), r"np.datetime64.* in row 0"),
        (objects([np.zeros((2, 2, 2))]), r"array\(\[\[\[0.* \(ndarray\) in row 0"),
    ],
)
def test_a_history_of_scalars_is_refused(column, got):
    message = rf"(?s)clicks must hold one history per cell .* got (large_)?{got}.* attach_history"
    with pytest.raises(ValueError, match=message):
        read_history(column)


def test_lists_inside_the_lists_of_events_are_refused():
    message = r"lists of events, or of lists of an event's values, got list<.*list<.*> inside"
    with pytest.raises(ValueError, match=message):
        read_history(objects([[[[1]], [[2]]]]))


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(-1, 8)).filter(lambda w: sum(w) <= 12),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 5),
)
def test_windows_keep_their_newest_events_and_count_who_sees_them(rows, max_length):
    starts, lengths = zip(*rows, strict=True)
    log = np.arange(100, 112)
    column = windows(starts, lengths, values=log)
    expected = [log[s : s + max(n, 0)][-max_length:].tolist() for s, n in rows]

    events = read_events([read_history(column)], max_length=max_length)

    assert events_as_lists(events, "clicks") == expected
    codes, values = events.codes["clicks"]
    seen = [value for row in expected for value in row]
    counted = zip(codes, events.counts, strict=True)  # older events count nothing
    assert {values[c]: n for c, n in counted if n} == {v: seen.count(v) for v in seen}


def test_a_log_is_coded_once_for_rows_that_cover_it(monkeypatch):
    column = windows([0, 1], [3, 4])
    calls = []
    factorize = pd.factorize
    monkeypatch.setattr(pd, "factorize", lambda values: calls.append(1) or factorize(values))

    for rows in (column, column.iloc[:1], column.iloc[1:]):
        read_events([read_history(rows)], max_length=9)

    assert len(calls) == 1


def test_a_few_rows_do_not_code_the_whole_log(monkeypatch):
    column = windows([40], [2], values=np.arange(1000))
    monkeypatch.setattr(EventLog, "codes", None)

    events = read_events([read_history(column)], max_length=9)

    assert events_as_lists(events, "clicks") == [[40, 41]]


def test_aligned_histories_share_their_windows_whatever_they_are_made_of():
    items = windows([0, 1], [2, 3])
    categories = objects([["a", "b"], ["b", "c", "d"]]).rename("kinds")

    events = read_events([read_history(items), read_history(categories)], max_length=2)

    assert events_as_lists(events, "clicks") == [[5, 6], [7, 8]]
    assert events_as_lists(events, "kinds") == [["a", "b"], ["c", "d"]]


def test_aligned_histories_of_different_lengths_are_refused():
    items, categories = objects([[1], [2, 3]]), objects([[1], [2]]).rename("kinds")

    message = r"clicks and kinds describe the same events .* got 2 and 1 in row 1 \(1 rows differ\)"
    with pytest.raises(ValueError, match=message):
        read_events([read_history(items), read_history(categories)], max_length=9)


def test_times_elapsed_read_as_anchor_minus_time():
    column = windows([0, 1], [2, 1], anchors=np.array([10.0, 20.0]), values=[1.0, 4.0])
    cells = read_history(column)

    assert facts_of(cells).is_numeric
    assert cells.expand().values.tolist() == [9.0, 6.0, 16.0]
    events = read_events([cells], max_length=9, numbers=["clicks"])
    assert events.numbers["clicks"].tolist() == [1.0, 4.0]
    assert events.anchors["clicks"].tolist() == [10.0, 20.0]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pd.Series([1, None], dtype="Int64"), [1.0, np.nan]),
        (pd.Series([1.5, None], dtype=pd.ArrowDtype(pa.float64())), [1.5, np.nan]),
        (pd.Series([1.5, None, 2], dtype=object), [1.5, np.nan, 2.0]),
        (pd.Series([True, False]), [1.0, 0.0]),
    ],
)
def test_numbers_of_any_dtype_become_floats(column, expected):
    assert np.array_equal(as_numbers(column, name="price"), expected, equal_nan=True)


def test_what_is_no_number_is_refused():
    with pytest.raises(ValueError, match=r"price must hold numbers, got dtype .* 'dear'"):
        as_numbers(pd.Series([None, "dear"]), name="price")
    with pytest.raises(ValueError, match="Input X contains infinity in price"):
        as_numbers(pd.Series([1.0, -np.inf]), name="price")


FLOATS = pa.array([3.0, float("nan"), None, 1.0, 3.0])


@pytest.mark.parametrize(
    "values",
    [
        FLOATS.to_pandas(),
        FLOATS.to_pandas().astype("Float64"),
        pd.Series(FLOATS, dtype=pd.ArrowDtype(pa.float64())),
        pd.Series(pd.arrays.ArrowExtensionArray(FLOATS.dictionary_encode())),
        pa.chunked_array([FLOATS]),
    ],
    ids=["numpy", "Float64", "Arrow", "Arrow dictionary", "chunks"],
)
def test_nan_is_no_id_whoever_holds_it(values):
    codes, distinct = factorize(values, name="item")

    assert codes.tolist() == [0, -1, -1, 1, 0]
    assert codes.dtype == np.int32
    assert distinct.tolist() == [3.0, 1.0]


@pytest.mark.parametrize("first", [0, 1])
def test_one_day_of_numpy_is_another_id_than_true(first):
    pair = [np.timedelta64(1, "D"), True]
    others = [f"{number}" for number in range(50)]  # by their hashes the two may meet, or not
    for text in others:
        cells = pd.Series([pair[first], text, pair[1 - first]], dtype=object)
        assert factorize(cells, name="item")[0].tolist() == [0, 1, 2]


def test_lists_are_no_ids():
    with pytest.raises(ValueError, match=r"item must hold ids .* compared: \[1\].*in histories"):
        factorize(objects([[1], [2]]), name="item")


@pytest.mark.parametrize(
    "values",
    [
        objects([{"a": 1}, {"a": 2}]),
        pd.Series([{"a": 1}], dtype=pd.ArrowDtype(pa.struct([("a", pa.int64())]))),
        pd.Series([[("a", 1)]], dtype=pd.ArrowDtype(pa.map_(pa.string(), pa.int64()))),
    ],
)
def test_values_of_several_parts_are_not_sent_to_histories(values):
    with pytest.raises(ValueError, match=r"item must hold ids .*'a'.*\. Give each part of such a "):
        factorize(values, name="item")
