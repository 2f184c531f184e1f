import pickle

import numpy as np
import pytest

from sklearn_din import Field, Schema
from sklearn_din.features import Behaviour, Ragged
from sklearn_din.utils.spans import Spans


def test_taking_rows_copies_no_events_and_pickling_some_ships_theirs_alone(impressions):
    ragged = impressions.behaviours[("tags",)]
    assert impressions[2:4].behaviours[("tags",)].columns["tags"] is ragged.columns["tags"]
    log = np.zeros(1_000_000, dtype=np.int32)
    ragged = Ragged({"item": log}, Spans(np.array([5, 7]), np.array([2, 1], dtype=np.int32)))
    assert len(pickle.dumps(ragged)) < 2000


@pytest.mark.parametrize("rows", [
    slice(2, 5),
    np.array([3, 0, 3]),
    np.array([True, False] * 4),
    [1, 2],
    [],
    (np.array([4]), Ellipsis),
])  # fmt: skip
def test_rows_are_chosen_as_numpy_would(impressions, rows):
    plain = rows[0] if isinstance(rows, tuple) else rows
    chosen = np.arange(8)[np.array(plain, dtype=int) if isinstance(plain, list) else plain]
    taken = impressions[rows]
    assert len(taken) == len(chosen)
    np.testing.assert_array_equal(taken["item"], impressions["item"][chosen])
    width = taken["hist_item"].shape[1]
    np.testing.assert_array_equal(taken["hist_item"], impressions["hist_item"][chosen, :width])


def wide_schema(n_numbers):
    numbers = [Field(f"n{number}", "numeric") for number in range(n_numbers)]
    fields = (
        Field("item", "categorical", "item", 1_200),
        *numbers,
        Field("hist_item", "history", "item", 1_200),
        Field("hist_price", "numeric_history"),
    )
    clicks = Behaviour("hist_item", ("hist_item",), ("item",), ("hist_price",), max_length=50)
    return Schema(fields, (clicks,), unused=("day",))


def test_a_schema_is_printed_as_a_table_of_many_fields_the_histories_and_some_others():
    assert (
        repr(wide_schema(1))
        == str(wide_schema(1))
        == """\
Schema of 4 fields, 50 events at most; not used: day
field       kind                  ids  compared with  behaviour
item        id                  1,200
n0          number
hist_item   history of ids      1,200  item           hist_item
hist_price  history of numbers                        hist_item"""
    )
    lines = repr(wide_schema(500)).splitlines()
    assert len(lines) == 14
    assert sum(line.startswith("hist_") for line in lines) == 2
    assert lines[-1] == "... and 492 more"


def test_it_reads_as_a_mapping_of_padded_arrays_and_is_printed_as_a_table(impressions):
    impressions.users = np.arange(8)
    first, *rest = repr(impressions).splitlines()
    assert first == "EncodedFeatures of 8 impressions, with users"
    assert "\n".join(rest) == impressions.schema.table()
    impressions.times = np.arange(8)
    assert repr(impressions).startswith("EncodedFeatures of 8 impressions, with users and times\n")
    assert "hist_item_mask" in impressions
    assert "nonsense" not in impressions
    assert set(impressions) == set(impressions.keys())
    for name in impressions:
        assert len(impressions[name]) == len(impressions) == 8
    assert impressions["hist_item"].dtype == np.int32
    assert impressions["hist_item_mask"].dtype == bool
    with pytest.raises(KeyError, match="no field 'nonsense'; the fields are"):
        impressions["nonsense"]
