"""Fixtures that several files of tests share."""

import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from threadpoolctl import threadpool_limits

from tests.encoded_impressions import make_impressions
from tests.fitted_pipelines import fit_pipeline, make_frame
from tests.real_data import WHERE, find_real_data


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


@pytest.fixture(scope="module")
def frame_and_labels():
    """A small click log with every kind of column, and its clicks."""
    return make_frame()


@pytest.fixture(scope="module")
def frame(frame_and_labels):
    return frame_and_labels[0]


@pytest.fixture(scope="module")
def y(frame_and_labels):
    return frame_and_labels[1]


@pytest.fixture(scope="module")
def fitted(frame_and_labels):
    """A Pipeline fitted on that log."""
    return fit_pipeline(*frame_and_labels)


@pytest.fixture
def own_processes():
    """joblib's processes end with the test.

    They would end by themselves after five idle minutes. Where the next test asks for them at that
    very moment, it may wait for ever.
    """
    yield
    get_reusable_executor().shutdown(wait=True)


@pytest.fixture(scope="module")
def one_thread():
    """As many threads as in another process: sums of another number of parts round differently."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(n_threads)
