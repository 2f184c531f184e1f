"""Every kind of column alone, without an encoder: against plain Python, in parts, and as a file."""

import numpy as np
import pandas as pd
import pytest

from sklearn_din.encoding.histories import Histories
from sklearn_din.encoding.ids import IdColumn
from sklearn_din.encoding.number import NumberColumn
from sklearn_din.encoding.table import Columns
from sklearn_din.encoding.table_columns import TableColumns, TableStatistics
from sklearn_din.encoding.vocabulary import IdRules
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Behaviour
from sklearn_din.utils.typed_fields import from_dict, to_dict

NUMBERS = [7.0, None, 9.0, 8.0, None, 12.0, 7.5, 8.5] * 3
TEXTS = ["hat", None, "tie", "hat", "sock", "tie", "hat", "boot"] * 3
LISTS = [["hat", "tie"], [], None, ["sock"], ["tie", "hat"], ["boot"], [], ["hat"]] * 3
NESTED = [[cell] if cell else [] for cell in LISTS]
PRICES = [[1.0, 5.0], [], None, [2.0], [4.0, 3.0], [9.0], [], [1.5]] * 3
KEPT = 1  # events


def scaled(numbers, seen):
    return (np.nan_to_num(np.asarray(numbers, float), nan=np.mean(seen)) - np.mean(seen)) / np.std(
        seen
    )


def known(values):
    """Ids of sorted values from 2 on, as plain Python counts them."""
    return {value: n + 2 for n, value in enumerate(sorted({*values} - {None}))}


def number_alone():
    values = scaled(NUMBERS, [number for number in NUMBERS if number is not None])
    missing = [float(number is None) for number in NUMBERS]
    return NumberColumn("x"), NUMBERS, {"x": values, "x_missing": missing}


def id_alone():
    ids = known(TEXTS)
    return IdColumn("x", "x"), TEXTS, {"x": [ids.get(text, 1) for text in TEXTS]}


def list_alone():
    ids = known(value for cell in LISTS for value in cell or [])
    lists = [sorted(ids[value] for value in cell or []) for cell in LISTS]
    padded = [ids + [0] * (2 - len(ids)) for ids in lists]
    return IdColumn("x", "x", holds_lists=True), LISTS, {"x": padded}


def histories(*columns, numbers=()):
    names = tuple(column.name for column in columns if column.name not in numbers)
    behaviour = Behaviour("x", names, (None,) * len(names), numbers, max_length=KEPT)
    return Histories(behaviour, columns)


def history_alone():
    newest = [(cell or [])[-KEPT:] for cell in LISTS]
    ids = known(value for cell in newest for value in cell)
    padded = [[ids[value] for value in cell] or [0] for cell in newest]
    return histories(IdColumn("x", "x", is_history=True)), LISTS, {"x": padded}


def history_of_lists_alone():
    newest = [(cell or [[]])[-1] for cell in NESTED]
    ids = known(value for values in newest for value in values)
    lists = [sorted(ids[value] for value in values) for values in newest]
    padded = [[ids + [0] * (2 - len(ids))] for ids in lists]
    column = IdColumn("x", "x", is_history=True, holds_lists=True)
    return histories(column), NESTED, {"x": padded}


KINDS = (number_alone, id_alone, list_alone, history_alone, history_of_lists_alone)


def fit_alone(column, frame, n_parts):
    """Learn of a column in so many parts."""
    columns = TableColumns(tuple(frame), (column,))
    statistics = TableStatistics(columns, len(frame))
    for rows in np.array_split(np.arange(len(frame)), n_parts):
        statistics.update(columns.read(Columns(frame.iloc[rows])), rows[0])
    return statistics.finish(IdRules())


def encode_alone(columns, frame):
    X = EncodedFeatures._without_checks(columns.schema, {}, {})
    columns.add_to(X, columns.read(Columns(frame)))
    return {field.name: X[field.name] for field in X.schema.fields}


@pytest.mark.parametrize("n_parts", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_a_column_of_each_kind_alone_is_encoded_as_plain_python_would(kind, n_parts):
    column, cells, expected = kind()
    frame = pd.DataFrame({"x": pd.Series(cells, dtype=float if cells is NUMBERS else object)})
    columns = fit_alone(column, frame, n_parts)
    columns.check()
    found = encode_alone(columns, frame)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-6)
    again = from_dict(TableColumns, to_dict(columns))  # as a file keeps it
    for name, values in encode_alone(again, frame).items():
        np.testing.assert_array_equal(values, found[name])
    assert not fit_alone(column, frame, 1).without({"x"}).leaves


@pytest.mark.parametrize("n_parts", [1, 5])
@pytest.mark.parametrize("is_elapsed", [True, False, None])
def test_numbers_of_events_are_scaled_alone_and_stand_beside_their_ids(is_elapsed, n_parts):
    frame = pd.DataFrame({"x": LISTS, "paid": PRICES})
    ids = IdColumn("x", "x", is_history=True)
    paid = NumberColumn("paid", is_history=True, is_elapsed=is_elapsed)
    columns = fit_alone(histories(ids, paid, numbers=("paid",)), frame, n_parts)
    newest = [(cell or [])[-KEPT:] for cell in PRICES]
    seen = [price for cell in newest for price in cell]
    scale = 2.0 ** np.rint(np.log2(np.median(seen)))  # times elapsed: a power of two
    for cell, values in zip(newest, encode_alone(columns, frame)["paid"], strict=True):
        expected = np.log1p(np.array(cell) / scale) if is_elapsed else scaled(cell, seen)
        np.testing.assert_allclose(values, list(expected) or [0.0], rtol=1e-6)
    assert [field.kind for field in columns.schema.fields] == ["history", "numeric_history"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_some_rows_look_like_is_counted_by_each_kind(kind):
    column, cells, _ = kind()
    frame = pd.DataFrame({"x": pd.Series(cells, dtype=float if cells is NUMBERS else object)})
    columns = fit_alone(column, frame, 3)
    profile = columns.profile_rows(columns.read(Columns(frame)))["x"]
    at_fit = columns.leaves["x"].profile
    for name in ("rows", "empty", "cells", "missing", "unknown"):
        assert getattr(profile, name) == getattr(at_fit, name), name
    np.testing.assert_array_equal(profile.in_bins, at_fit.in_bins)
