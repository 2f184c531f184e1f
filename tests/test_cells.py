"""Cells of any kind are read as the values that they hold; the encoder's ids decode to them."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sklearn_din import HistorySequenceEncoder
from sklearn_din.encoding.cells import factorize
from sklearn_din.logs.windows import EventLog, WindowArray

pytestmark = pytest.mark.filterwarnings("ignore:every history of clicks is empty")
ROWS = [[5, 6, 7], None, [], [6], [7, 7]]


def objects(cells):
    column = np.empty(len(cells), dtype=object)
    column[:] = cells
    return pd.Series(column, dtype=object)


def windows(starts, lengths, values):
    log = EventLog({"item": np.array(values)})
    return pd.Series(WindowArray(log, "item", np.array(starts), np.array(lengths)))


def read(column, **options):
    """The events of each row, as an encoder that was told nothing of their kind decodes them."""
    frame = pd.DataFrame({"clicks": column})
    encoder = HistorySequenceEncoder(histories={"clicks": None}, **options)
    X = encoder.fit_transform(frame)
    decoded = encoder.inverse_transform_ids("clicks", X["clicks"])
    return [row[mask].tolist() for row, mask in zip(decoded, X["clicks_mask"], strict=True)]


def list_views(make, size):
    starts, lengths = pa.array([3, 0, 0, 2, 0], size), pa.array([3, 2, 0, 1, 2], size)
    events, is_missing = pa.array([7, 7, 6, 5, 6, 7]), pa.array([False, True, *[False] * 3])
    return pd.arrays.ArrowExtensionArray(make.from_arrays(starts, lengths, events, mask=is_missing))


LAYOUTS = {
    "lists": objects(ROWS),
    "tuples": objects([None if row is None else tuple(row) for row in ROWS]),
    "arrays": objects([None if row is None else np.array(row, dtype=np.int32) for row in ROWS]),
    "missing as nan": objects([float("nan") if row is None else row for row in ROWS]),
    "missing as numpy's nan": objects([np.float32("nan") if row is None else row for row in ROWS]),
    "missing as NA": objects([pd.NA if row is None else row for row in ROWS]),
    "arrow": pd.Series(pa.array(ROWS), dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
    "large arrow": pd.Series(ROWS, dtype=pd.ArrowDtype(pa.large_list(pa.int32()))),
    "sliced arrow": pd.Series([[9], *ROWS, [9]], dtype=pd.ArrowDtype(pa.list_(pa.int64())))[1:-1],
    "list views": pd.Series(list_views(pa.ListViewArray, pa.int32())),
    "large list views": pd.Series(list_views(pa.LargeListViewArray, pa.int64())),
    "windows": windows([0, 0, 0, 3, 4], [3, -1, 0, 1, 2], [5, 6, 7, 6, 7, 7]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_reads_the_same(layout):
    assert read(LAYOUTS[layout]) == [row or [] for row in ROWS]


@pytest.mark.parametrize(("cells", "expected"), [
    ([["hat", None], ["sock"]], [["hat", None], ["sock"]]),
    ([["hat", float("nan")], []], [["hat", None], []]),
    ([[True, False], [True]], [[True, False], [True]]),
    ([[7, 0], [True]], [[7, 0], [True]]),
    ([[2**60 + 1, None], [2**60]], [[2**60 + 1, None], [2**60]]),
    ([[2**60 + 1, float("nan")], [2**60]], [[2**60 + 1, None], [2**60]]),
    ([[2**60 + 1, 2**63], [2**60]], [[2**60 + 1, 2**63], [2**60]]),
    ([[1, "hat"], ("sock", None)], [[1, "hat"], ["sock", None]]),
    ([np.array([1, 2]), np.array(["hat"])], [[1, 2], ["hat"]]),
    ([[1, (2, 3)]], [[1, (2, 3)]]),
    ([[], []], [[], []]),
    ([None, None], [[], []]),
    (pd.Series([[1, 2], None, [3, 4]], dtype=pd.ArrowDtype(pa.list_(pa.int64(), 2))),
     [[1, 2], [], [3, 4]]),
    *((pd.Series(cells, dtype=dtype), [[] for _ in cells])
      for cells in ([None], [None, None])
      for dtype in ("string", "str", pd.ArrowDtype(pa.large_string()))),
])  # fmt: skip
def test_events_of_any_type_survive(cells, expected):
    column = cells if isinstance(cells, pd.Series) else objects(cells)
    assert repr(read(column)) == repr(expected)  # True is not 1


@pytest.mark.parametrize("events", [[1, 2, 3], ["a", "b", None]])
def test_events_of_an_arrow_dictionary_are_the_ids_that_it_holds(events):
    for values in (pa.array(events), pa.array(events).dictionary_encode()):
        lists = pa.ListArray.from_arrays(pa.array([0, 2, 3], pa.int32()), values)
        column = pd.Series(pd.arrays.ArrowExtensionArray(lists))
        assert read(column) == [events[:2], events[2:]]


@pytest.mark.parametrize("dtype", [object, "str", pd.ArrowDtype(pa.string())])
def test_text_is_split_at_the_separator(dtype):
    column = pd.Series(["hat | sock", "hat", "", None, "hat||sock"], dtype=dtype)
    assert read(column, separator="|") == [["hat", "sock"], ["hat"], [], [], ["hat", None, "sock"]]


FLOATS = pa.array([3.0, float("nan"), None, 1.0, 3.0])


@pytest.mark.parametrize("values", [
    FLOATS.to_pandas(),
    FLOATS.to_pandas().astype("Float64"),
    pd.Series(FLOATS, dtype=pd.ArrowDtype(pa.float64())),
    pd.Series(pd.arrays.ArrowExtensionArray(FLOATS.dictionary_encode())),
    pa.chunked_array([FLOATS]),
], ids=["numpy", "Float64", "Arrow", "Arrow dictionary", "chunks"])  # fmt: skip
def test_nan_is_no_id_whoever_holds_it(values):
    codes, distinct = factorize(values, name="item")
    assert codes.tolist() == [0, -1, -1, 1, 0]
    assert codes.dtype == np.int32
    assert distinct.tolist() == [3.0, 1.0]
