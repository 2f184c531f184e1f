"""Fixtures that several files of tests share."""

import pytest
from joblib.externals.loky import get_reusable_executor

from benchmarks.real_data import WHERE, find_real_data
from tests.encoded_impressions import make_impressions


@pytest.fixture(scope="session")
def shared_data():
    """Folder of the two real data sets; the tests that need it are skipped where it is absent."""
    folder = find_real_data()
    if folder is None:
        pytest.skip(f"the real data sets are not there: {WHERE}")
    return folder


@pytest.fixture
def impressions():
    return make_impressions()


@pytest.fixture
def own_processes():
    """joblib's processes end with the test.

    They would end by themselves after five idle minutes. Where the next test asks for them at that
    very moment, it may wait for ever.
    """
    yield
    get_reusable_executor().shutdown(wait=True)
