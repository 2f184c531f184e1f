"""Numbers of a row among the rows of one request."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from sklearn_din import attach_request, scan_parquet
from tests.tables import FORMS


def shelves(n_requests=60, seed=0):
    """Rows of requests of 1 to 9 rows, with equal and missing prices, some without a request."""
    chance = np.random.default_rng(seed)
    sizes = chance.integers(1, 10, n_requests)
    frame = pd.DataFrame({"search": np.repeat(np.arange(n_requests), sizes).astype(float)})
    frame["price"] = chance.integers(0, 8, len(frame)) * 1.5
    frame.loc[chance.random(len(frame)) < 0.1, "price"] = np.nan
    frame.loc[frame["search"] % 20 == 0, "search"] = np.nan
    frame["rate"] = chance.random(len(frame))
    return frame


def compare_by_loops(frame, request, name):
    """The same by its definition, row by row."""
    rows = []
    for n, value in enumerate(frame[name]):
        is_own = (frame[request] == frame[request].iloc[n]) & frame[name].notna()
        others = frame[name][is_own].tolist()
        if np.isnan(value) or len(set(others)) < 2:
            rows.append((0.5, 0.0, 0.0))
            continue
        share = (sum(o < value for o in others) + 0.5 * (others.count(value) - 1)) / (
            len(others) - 1
        )
        to_mean = np.clip((value - np.mean(others)) / np.std(others), -3, 3)
        rows.append((share, to_mean, float(value == max(others)) - float(value == min(others))))
    names = [f"{name}_share", f"{name}_to_mean", f"{name}_is_best"]
    return pd.DataFrame(rows, columns=names, index=frame.index)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_of_a_request_are_those_of_plain_loops(seed):
    frame = shelves(seed=seed).sample(frac=1, random_state=seed)  # in any order
    attached = attach_request(frame, request="search", columns=["price", "rate"])
    expected = frame.join(compare_by_loops(frame, "search", "price"))
    expected = expected.join(compare_by_loops(frame, "search", "rate"))
    pd.testing.assert_frame_equal(attached, expected)


@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_table_has_the_same_numbers(form, tmp_path):
    frame = shelves().drop(columns="rate")
    attached = attach_request(FORMS[form](frame, tmp_path), request="search", columns="price")
    expected = attach_request(frame, request="search", columns="price")
    for name in ("price_share", "price_to_mean", "price_is_best"):
        assert_allclose(np.asarray(attached[name], dtype=float), expected[name], atol=1e-15)


def test_numbers_hang_on_neither_units_nor_other_requests():
    frame = shelves().dropna()
    numbers = attach_request(frame, request="search", columns="price").iloc[:, -3:]
    units = attach_request(frame.assign(price=frame["price"] * 100 + 7), request="search",
                           columns="price").iloc[:, -3:]  # fmt: skip
    assert_allclose(units, numbers, atol=1e-9)
    alone = frame[frame["search"] == 3.0]
    alone = attach_request(alone, request="search", columns="price").iloc[:, -3:]
    pd.testing.assert_frame_equal(alone, numbers.loc[alone.index])
    huge = pd.DataFrame({"search": 1, "price": [-1.7e308, 1e300, 1.7e308, np.inf]})
    huge = attach_request(huge, request="search", columns="price")
    assert huge["price_is_best"].tolist() == [-1, 0, 1, 0]
    assert np.isfinite(huge[["price_share", "price_to_mean"]]).all(axis=None)


def test_a_request_may_be_several_columns():
    frame = pd.DataFrame({"user": [1, 1, 1, 2], "day": [5, 5, 6, 5], "price": [2, 3, 9, 1]})
    attached = attach_request(frame, request=["user", "day"], columns="price")
    assert attached["price_share"].tolist() == [0, 1, 0.5, 0.5]


def test_a_scan_reads_requests_across_its_parts_and_refuses_those_that_come_back(tmp_path):
    frame = shelves(2_000)
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=7)
    scan = scan_parquet(tmp_path / "a.parquet")
    attached = attach_request(scan, request="search", columns=["price", "rate"])
    expected = attach_request(frame, request="search", columns=["price", "rate"])
    for name in expected.columns[-6:]:
        assert_allclose(attached[name].to_numpy(dtype=float), expected[name], atol=1e-15)
    with pytest.raises(ValueError, match=r"follow each other in a scan, and .* comes back"):
        attach_request(scan[np.random.default_rng(0).permutation(len(scan))], request="search",
                       columns="price")  # fmt: skip


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"columns": "prize"}, ValueError, "no column 'prize'; did you mean 'price'"),
        ({"columns": []}, ValueError, "columns must name at least one column"),
        ({"request": []}, ValueError, "request must name at least one column"),
        ({"columns": "name"}, TypeError, "must hold numbers to compare, but frame\\['name'\\]"),
        ({"columns": "taken"}, ValueError, "already has the columns \\['taken_share'\\]"),
    ],
)
def test_what_cannot_be_compared_is_named(given, error, words):
    frame = pd.DataFrame({"search": [1, 1], "price": [2.0, 3.0], "name": ["a", "b"]})
    frame = frame.assign(taken=frame["price"], taken_share=0.5)
    with pytest.raises(error, match=words):
        attach_request(frame, **{"request": "search", "columns": "price"} | given)
