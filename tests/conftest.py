"""Fixtures that several files of tests share."""

import signal
from functools import partial

import pytest
import torch
from threadpoolctl import threadpool_limits

from sklearn_din.utils.warnings import log_once, warn_once
from tests.encoded_impressions import make_impressions
from tests.fitted_pipelines import CANDIDATE, fit_pipeline, make_frame
from tests.real_data import WHERE, find_real_data
from tests.tables import FORMS, open_once, read_in_pieces


def pytest_collection_modifyitems(config, items):
    """Leave out what "make proofs" runs each night: libraries and systems change it, rarely we."""
    if "proof" not in config.option.markexpr:
        proofs = [item for item in items if item.get_closest_marker("proof")]
        config.hook.pytest_deselected(items=proofs)
        items[:] = [item for item in items if not item.get_closest_marker("proof")]


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


@pytest.fixture(params=FORMS)
def as_form(request, tmp_path, monkeypatch):
    """Function that gives a frame one of the forms that the package takes."""
    if request.param == "small scan":
        read_in_pieces(monkeypatch, 7)
    return partial(FORMS[request.param], folder=tmp_path)


@pytest.fixture(scope="module")
def one_database(tmp_path_factory):
    """Opening DuckDB takes longer than it sorts tables of tests."""
    pytest.importorskip("duckdb", reason="needs pip install 'sklearn-din[large]'")
    with open_once(tmp_path_factory.mktemp("spilled")):
        yield


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


@pytest.fixture(scope="module")
def users(frame):
    """The newest row of each user of that log, without columns of the candidate."""
    return frame.drop_duplicates("user", keep="last").drop(columns=[*CANDIDATE, "tags"])


@pytest.fixture(scope="module")
def candidates(frame):
    """Its items, and a column that no model knows."""
    chosen = frame.drop_duplicates("item")[[*CANDIDATE, "tags"]]
    return chosen.assign(title="Title of " + chosen["item"])


@pytest.fixture(autouse=True)
def nothing_was_said():
    """Neither a warning nor a line of the log that is given once."""
    warn_once.cache_clear()
    log_once.cache_clear()


@pytest.fixture
def ctrl_c_raises():
    """As in a terminal; a shell has processes in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def one_thread():
    """As many threads as in another process: sums of another number of parts round differently."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(n_threads)
