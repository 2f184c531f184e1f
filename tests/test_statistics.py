"""What is learnt does not depend on where the parts of a table begin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_din.encoding.scaling import EventScale, Moments

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


@pytest.mark.parametrize("constant", [0.0, 7.0, 0.1, 1e38])
def test_a_constant_column_is_not_scaled(constant):
    moments = Moments()
    moments.update(np.full(1000, constant))
    assert EventScale.of(moments) == EventScale(constant, 1.0)
    assert EventScale.of(Moments()) == EventScale(0.0, 1.0)
