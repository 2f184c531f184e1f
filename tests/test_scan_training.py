"""The same Pipeline on a scan: fits, splits, searches and updates as on the table in memory."""

import tempfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score, train_test_split
from skorch.callbacks import Callback

from sklearn_din import Checkpoint, DINClassifier, HistorySequenceEncoder, TimeSplit, scan_parquet
from sklearn_din.encoding.stored_rows import RowSink, open_rows
from sklearn_din.features.encoded import rows_per_pool
from sklearn_din.features.store import create_store
from sklearn_din.metrics import group_roc_auc_scorer
from sklearn_din.training import batches
from sklearn_din.training.batches import order_in_pools
from tests.fitted_pipelines import attach_clicks, make_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def frame():
    X, y = attach_clicks(n_users=60, n_items=50, n_categories=6, random_state=0)
    return X.assign(click=y).sort_values("time", kind="stable", ignore_index=True)


@pytest.fixture(scope="module")
def source(frame, tmp_path_factory):
    place = tmp_path_factory.mktemp("clicks")
    frame.to_parquet(place / "clicks.parquet", row_group_size=300)
    return place


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where encoded rows without a cache go."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def in_memory(frame):
    table = pa.Table.from_pandas(frame, preserve_index=False)
    X = table.drop_columns(["click"]).to_pandas(types_mapper=pd.ArrowDtype)
    return X, frame["click"].to_numpy()


def test_splits_scores_and_searches_are_those_in_memory(frame, source, temporary):
    X, y = in_memory(frame)
    scan = scan_parquet(source, target="click", memory="4MB")
    assert scan.target_.tolist() == y.tolist()
    options = {"scoring": group_roc_auc_scorer("user"), "cv": TimeSplit(2, time="time")}
    mine, theirs = (cross_val_score(make_model(), some, y, **options) for some in (scan, X))
    np.testing.assert_allclose(mine, theirs, atol=1e-6)
    train, test, y_train, y_test = train_test_split(scan, y, random_state=0)
    auc = roc_auc_score(y_test, make_model().fit(train, y_train).predict_proba(test)[:, 1])
    train, test = train_test_split(X, random_state=0)
    twin = roc_auc_score(y_test, make_model().fit(train, y_train).predict_proba(test)[:, 1])
    assert auc == pytest.approx(twin, abs=1e-6)


def mapped_copy(X, *, memory):
    """The same impressions over files."""
    with create_store(None, "rows", memory=memory) as writer:
        sink = RowSink(writer, None, len(X))
        for start in range(0, len(X), 300):
            part = X[start : start + 300]
            part.behaviours = {key: ragged.compact() for key, ragged in part.behaviours.items()}
            sink.append(part, start)
        return open_rows(writer.finish(), X.schema)


def test_a_fit_from_files_is_that_in_memory_in_the_same_order(frame, temporary, monkeypatch):
    X, y = in_memory(frame)
    encoded = HistorySequenceEncoder(user="user", time="time").fit_transform(X, y)
    files = mapped_copy(encoded, memory=200_000)
    pool = rows_per_pool(files)
    assert pool is not None
    options = {"max_epochs": 2, "random_state": 0, "early_stopping": True}
    expected = DINClassifier(**options).fit(files, y).predict_proba(encoded)
    other_order = DINClassifier(**options).fit(encoded, y).predict_proba(encoded)
    monkeypatch.setattr(batches, "rows_per_pool", lambda X: pool)
    same_order = DINClassifier(**options).fit(encoded, y).predict_proba(encoded)
    np.testing.assert_array_equal(same_order, expected)
    assert not np.array_equal(other_order, expected)


class Failing(Callback):
    """Ends the first training in its third epoch, like a kill."""

    def on_epoch_begin(self, net, **kwargs):
        if Failing.fails and len(net.history) == 3:
            raise MemoryError


@pytest.mark.parametrize("memory", [10**9, 200_000])
@pytest.mark.filterwarnings("ignore:training continues from a checkpoint")
def test_a_streamed_fit_that_died_goes_on_to_the_same_bits(frame, temporary, tmp_path, memory):
    X, y = in_memory(frame)
    encoded = HistorySequenceEncoder(user="user", time="time").fit_transform(X, y)
    options = {"max_epochs": 4, "random_state": 0, "early_stopping": True}
    files = mapped_copy(encoded, memory=memory)
    assert (rows_per_pool(files) is None) == (memory == 10**9)
    twin = DINClassifier(**options).fit(files, y)
    Failing.fails = True
    resumed = DINClassifier(**options, callbacks=[Checkpoint(tmp_path / "run"), Failing()])
    with pytest.raises(MemoryError):
        resumed.fit(files, y)
    Failing.fails = False
    again = mapped_copy(encoded, memory=memory)  # the same rows in other files
    resumed.fit(again, y)
    assert resumed.history_["train_loss"].tolist() == twin.history_["train_loss"].tolist()
    np.testing.assert_array_equal(resumed.predict_proba(encoded), twin.predict_proba(encoded))


@pytest.mark.parametrize(("n_rows", "pool"), [(1000, 100), (1, 5), (97, 3), (10, 1000)])
def test_a_pooled_order_has_each_row_once_and_reads_few_rows_at_a_time(n_rows, pool):
    order = order_in_pools(n_rows, pool=pool, shuffle=np.random.RandomState(0))
    assert sorted(order.tolist()) == list(range(n_rows))
    size = max(pool // 16, 1)
    n_at_a_time = pool // size * size
    for start in range(0, n_rows, n_at_a_time):
        read = set((order[start : start + n_at_a_time] // size).tolist())
        assert len(read) <= pool // size + size
