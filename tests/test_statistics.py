"""What is learnt does not depend on where the parts of a table begin."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from sklearn_din._typed_fields import to_dict
from sklearn_din.encoding.frames import read_frame
from sklearn_din.encoding.roles import assign_roles
from sklearn_din.encoding.scaling import EventScale, Moments
from sklearn_din.encoding.statistics import TableStatistics
from sklearn_din.encoding.table import Columns, Impressions
from sklearn_din.encoding.vocabulary import IdRules
from tests.click_frames import as_lists, every_kind, with_windows

NUMBERS = st.lists(st.floats(-1e6, 1e6) | st.just(np.nan), max_size=30)


@given(st.lists(NUMBERS, min_size=1, max_size=5), st.sampled_from([0.0, 1.7e9]))
def test_moments_of_parts_are_those_of_all_numbers(parts, offset):
    parts = [np.array(part, dtype=np.float64) + offset for part in parts]
    moments, whole = Moments(), Moments()
    for part in parts:
        moments.update(part)
    together = np.concatenate(parts)
    whole.update(together)
    spread = max(np.sqrt(whole.variance), 1e-9)
    assert moments.weight == np.isfinite(together).sum()
    np.testing.assert_allclose(moments.center, whole.center, rtol=1e-12, atol=1e-12 * spread)
    np.testing.assert_allclose(np.sqrt(moments.variance), spread, rtol=1e-12, atol=1e-9)


@given(NUMBERS, st.sampled_from([0.0, 1e4]))
def test_columns_are_scaled_as_scikit_learn_scales_them(numbers, offset):
    numbers = np.array([*numbers, 3.0, 4.0]) + offset
    moments, scaler = Moments(), StandardScaler().fit(numbers[:, None])
    moments.update(numbers)
    scale = EventScale.of_column(moments)
    np.testing.assert_allclose([scale.shift], scaler.mean_, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose([scale.scale], scaler.scale_, rtol=1e-12)


@pytest.mark.parametrize("constant", [0.0, 7.0, 0.1, 1e38])
def test_a_constant_column_is_not_scaled(constant):
    moments = Moments()
    moments.update(np.full(1000, constant))
    assert EventScale.of_column(moments) == EventScale(constant, 1.0)
    assert EventScale.of_events(moments) == EventScale(constant, 1.0)
    assert EventScale.of_column(Moments()) == EventScale(0.0, 1.0)


def learn_in_parts(frame, cuts):
    roles = assign_roles(
        Impressions(frame),
        histories="auto",
        categorical="auto",
        numeric="auto",
        drop=["user", "time"],
    )
    statistics = TableStatistics(roles, len(frame))
    for start, stop in pairwise([0, *cuts, len(frame)]):
        part = Columns(frame.iloc[start:stop])
        statistics.update(read_frame(part, roles, max_length=5), start)
    learnt = statistics.finish(
        IdRules(2, max_ids=30, keep_rare=True), names=list(frame.columns), max_length=3
    )
    return learnt, statistics.totals


def leaves(state, path=""):
    """Every value of nested dicts, by where it stands."""
    for name, value in state.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield path + name, value


FRAMES = {
    "every kind": lambda: every_kind()[0].drop(columns="click"),
    "windows": lambda: with_windows(n_events=200, elapsed="hist_elapsed"),
    "lists": lambda: as_lists(with_windows(n_events=200, elapsed="hist_elapsed")),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_statistics_of_parts_are_those_of_the_whole_table(kind):
    frame = FRAMES[kind]()
    whole, totals = learn_in_parts(frame, [])
    learnt, later_totals = learn_in_parts(frame, [1, 40, 90, 91])
    assert later_totals == totals
    mine, twin = (dict(leaves(to_dict(state))) for state in (learnt, whole))
    assert mine.keys() == twin.keys()
    for path, value in twin.items():
        if np.asarray(value).dtype.kind == "f":
            np.testing.assert_allclose(mine[path], value, 1e-12, 1e-12, err_msg=path)
        else:
            np.testing.assert_array_equal(mine[path], value, err_msg=path)
