"""scikit-learn's callbacks see each validation check of a training, may use its net and stop it."""

import pickle
import warnings

import numpy as np
import pytest
import skorch.callbacks
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from torch.optim.lr_scheduler import OneCycleLR

from sklearn_din import DINClassifier, HistorySequenceEncoder
from sklearn_din.training import check_tasks
from tests.click_frames import with_windows
from tests.encoded_impressions import make_impressions, make_labels
from tests.test_progress import STOPS_AFTER_TWO, StopAtBatch

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn has callbacks from 1.9")

X = make_impressions(64)
y = make_labels(X)


def classifier(**parameters):
    settings = {"max_epochs": 3, "batch_size": 16, "random_state": 0, "early_stopping": True}
    return DINClassifier(**(settings | parameters))


def fitted(*callbacks, **parameters):
    return classifier(**parameters).set_callbacks(*callbacks).fit(X, y)


class Steps:
    """Notes which hooks are called; asks for no estimator."""

    def __init__(self, *, stop_after=None):
        self.seen, self.stop_after = [], stop_after

    def setup(self, estimator, context):
        self.seen.append("setup")

    def teardown(self, estimator, context):
        self.seen.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.seen.append(f"begin {context.estimator_name} {context.task_name} {context.task_id}")

    def on_fit_task_end(self, estimator, context):
        self.seen.append(f"end {context.estimator_name} {context.task_name} {context.task_id}")
        return context.parent is not None and context.task_id + 1 == self.stop_after


class PropagatedSteps(Steps):
    """As scikit-learn's ProgressBar: set on a search, it reaches what the search fits."""

    max_propagation_depth = None


class Estimators(Steps):
    """Keeps the estimator as it would be if training stopped at each begin and end."""

    def __init__(self):
        super().__init__()
        self.at_begin, self.at_end, self.given = [], [], []

    def on_fit_task_begin(self, estimator, context, *, fitted_estimator):
        self.at_begin.append(fitted_estimator)

    def on_fit_task_end(self, estimator, context, *, fitted_estimator, X, y, metadata):
        self.at_end.append(fitted_estimator)
        self.given.append((X, y, metadata))


def steps_of(kind, n_checks):
    inner = [
        f"{hook} DINClassifier {kind} {i}" for i in range(n_checks) for hook in ("begin", "end")
    ]
    whole = ["begin DINClassifier fit 0", *inner, "end DINClassifier fit 0"]
    return ["setup", *whole, "teardown"]


@pytest.mark.parametrize(
    ("parameters", "reason", "kind", "n_tasks"),
    [
        ({}, "max_epochs", "validation check", 3),
        ({"early_stopping": False}, "max_epochs", "epoch", 3),
        ({"max_epochs": 200, "patience": 1, "lr": 0.05}, "patience", "validation check", None),
        ({"callbacks": [STOPS_AFTER_TWO]}, "callback", "validation check", 2),
        ({"callbacks": [StopAtBatch(6)]}, "callback", "validation check", 2),
    ],
)
def test_every_check_is_a_task_and_only_the_user_s_stop_warns(parameters, reason, kind, n_tasks):
    steps = Steps()
    trained = fitted(steps, **parameters)
    assert trained.net_.stop_reason_ == reason
    assert steps.seen == steps_of(kind, n_tasks or len(trained.history_))
    assert len(trained.history_) < 200


@pytest.mark.parametrize("early_stopping", [True, False])
def test_the_estimator_of_a_check_is_that_of_a_training_which_stops_there(early_stopping):
    seen = Estimators()
    settings = {"early_stopping": early_stopping, "lr": 0.05, "max_epochs": 4, "dropout": 0.2}
    trained = fitted(seen, **settings)
    *checks, whole = seen.at_end
    assert len(checks) == len(trained.history_) == 4
    columns = ["epoch", "train_loss", "valid_loss", "valid_auc"]
    for n_epochs, view in enumerate(checks, start=1):
        twin = fitted(**settings | {"max_epochs": n_epochs})
        np.testing.assert_array_equal(view.predict_proba(X), twin.predict_proba(X))
        assert view.history_[columns].equals(twin.history_[columns])
        assert view.n_iter_ == twin.n_iter_ == n_epochs
        assert view.net_.stop_reason_ == "callback"
        assert not view.module_.training
        assert {*vars(twin)} <= {*vars(view)}
    np.testing.assert_array_equal(whole.predict_proba(X), trained.predict_proba(X))
    np.testing.assert_array_equal(twin.predict_proba(X), trained.predict_proba(X))
    root, *begun = seen.at_begin
    assert root is None, "there is no network yet"
    for before, at_begin in zip(checks, begun[1:], strict=False):
        np.testing.assert_array_equal(at_begin.predict_proba(X), before.predict_proba(X))
        assert at_begin.history_[columns].equals(before.history_[columns])


@pytest.mark.filterwarnings("ignore:nothing was found to learn")  # by seven validation rows
def test_callbacks_get_what_fit_was_given_and_no_estimator_of_a_check_that_is_cut_off():
    seen, weights = Estimators(), np.arange(64) + 1.0
    classifier().set_callbacks(seen).fit(X, y, sample_weight=weights)
    for given_X, given_y, metadata in seen.given:
        assert (given_X is X, given_y is y) == (True, True)
        assert metadata == {"sample_weight": weights}
    seen = Estimators()
    trained = fitted(seen, callbacks=[StopAtBatch(6)])
    first, unfinished, whole = seen.at_end
    assert unfinished is None
    np.testing.assert_array_equal(first.predict(X), trained.predict(X))
    np.testing.assert_array_equal(whole.predict(X), trained.predict(X))


def test_the_scoring_monitor_scores_every_check():
    monitor, seen, weights = callback.ScoringMonitor(scoring="roc_auc"), Estimators(), y + 1.0
    trained = classifier().set_callbacks(monitor, seen).fit(X, y, sample_weight=weights)
    log = monitor.get_logs().data_as_pandas
    checks = log[log["task_name"] == "validation check"]
    assert checks["task_id"].tolist() == [*trained.history_.index]
    expected = [
        roc_auc_score(y, view.decision_function(X), sample_weight=weights) for view in seen.at_end
    ]
    np.testing.assert_allclose([*checks["roc_auc"], log["roc_auc"][0]], expected)


def test_a_callback_that_returns_true_stops_training_and_hears_of_clones_and_later_fits():
    steps = Steps(stop_after=2)
    trained = fitted(steps, max_epochs=9)
    assert trained.net_.stop_reason_ == "callback"
    assert len(trained.history_) == trained.n_iter_ == 2
    again = clone(trained).fit(X, y).fit(X, y)
    assert steps.seen == 3 * steps_of("validation check", 2)
    expected = fitted(max_epochs=2).predict(X)
    for stopped in (trained, again):
        np.testing.assert_array_equal(stopped.predict(X), expected)


def test_no_net_is_copied_for_callbacks_that_do_not_ask(monkeypatch):
    monkeypatch.setattr(check_tasks, "copy_as_if_stopped", lambda *_: pytest.fail("copied"))
    fitted(Steps())


def test_a_fitted_classifier_keeps_nothing_of_the_tasks():
    trained = fitted(callback.ScoringMonitor(scoring="roc_auc"))
    assert {*vars(trained)} - {*vars(fitted())} == {"_skl_callbacks"}
    saved = pickle.dumps(trained)
    assert b"CheckTasks" not in saved
    assert b"FitTask" not in saved
    np.testing.assert_array_equal(pickle.loads(saved).predict(X), trained.predict(X))
    trained.set_callbacks()
    assert {*vars(trained)} == {*vars(fitted())}


def test_callbacks_are_let_go_when_training_fails():
    class Fails(Steps):
        def on_fit_task_end(self, estimator, context):
            raise RuntimeError("the callback's own error")

    steps = Fails()
    with pytest.raises(RuntimeError, match="the callback's own error"):
        fitted(steps)
    assert steps.seen[-1] == "teardown"


@pytest.mark.parametrize("method", ["fit", "fit_transform"])
def test_the_encoders_fit_is_one_task(method):
    seen, steps, frame = Estimators(), Steps(), with_windows()
    encoder = HistorySequenceEncoder(drop=["user", "time"]).set_callbacks(seen, steps)
    getattr(encoder, method)(frame)
    name = "HistorySequenceEncoder fit 0"
    assert steps.seen == ["setup", f"begin {name}", f"end {name}", "teardown"]
    (view,) = seen.at_end
    np.testing.assert_array_equal(view.transform(frame)["item"], encoder.transform(frame)["item"])


def make_search(**settings):
    model = Pipeline(
        [
            ("encode", HistorySequenceEncoder(drop=["user", "time"])),
            ("din", DINClassifier(max_epochs=2, random_state=0)),
        ]
    )
    frame = with_windows(n_events=80)
    search = GridSearchCV(model, {"din__lr": [0.01, 0.003]}, cv=2, **settings)
    return search, frame, np.arange(80) % 2


def test_a_search_hands_its_callbacks_down_to_encoder_and_classifier():
    search, frame, clicks = make_search()
    steps = PropagatedSteps()
    search.set_callbacks(steps).fit(frame, clicks)  # a warning would be an error
    assert steps.seen.count("begin HistorySequenceEncoder fit 0") == 5, "four folds and the refit"
    for name in ("fit 1", "epoch 0", "epoch 1"):
        assert steps.seen.count(f"begin DINClassifier {name}") == 5
        assert steps.seen.count(f"end DINClassifier {name}") == 5
    assert not hasattr(search.best_estimator_["din"], "_skl_callbacks")


@pytest.mark.usefixtures("own_processes")
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_scikit_learns_progress_bar_shows_a_search_over_the_pipeline(n_jobs, capfd):
    pytest.importorskip("rich", reason="scikit-learn's ProgressBar draws with rich")
    search, frame, clicks = make_search(n_jobs=n_jobs)
    search.set_callbacks(callback.ProgressBar(max_propagation_depth=None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search.fit(frame, clicks)
    out, err = capfd.readouterr()
    assert "HistorySequenceEncoder - fit" in out
    assert "DINClassifier - fit" in out
    assert "Warning" not in err, "nor did a worker process warn"
    pickle.loads(pickle.dumps(search)).predict(frame)


class Rates(skorch.callbacks.Callback):
    """Notes the learning rates of dense parameters and of the table at each epoch's end."""

    def on_train_begin(self, net, **kwargs):
        self.seen = []

    def on_epoch_end(self, net, **kwargs):
        self.seen.append([group["lr"] for group in net.optimizer_.param_groups])


HALVE = {"policy": "StepLR", "step_size": 1, "gamma": 0.5}
ONE_CYCLE = {"policy": OneCycleLR, "max_lr": 0.01, "total_steps": 12}


@pytest.mark.filterwarnings("ignore:nothing was found to learn")  # by seven validation rows
@pytest.mark.parametrize(("schedule", "ratio"), [(HALVE, 0.2), (ONE_CYCLE, 1.0)])
def test_a_schedule_that_multiplies_keeps_the_ratio_of_rates_and_another_makes_it_one(
    schedule, ratio
):
    rates = Rates()
    scheduler = skorch.callbacks.LRScheduler(**schedule)
    classifier(lr=0.01, embedding_lr=0.002, callbacks=[rates, scheduler]).fit(X, y)
    dense, table = np.transpose(rates.seen)
    np.testing.assert_allclose(table, ratio * dense)
    assert len({*dense}) == 3


def test_norm_clipping_reaches_the_tables():
    class Norms(skorch.callbacks.Callback):
        def on_train_begin(self, net, **kwargs):
            self.seen = []

        def on_batch_end(self, net, training=False, **kwargs):
            if training:
                gradients = [p.grad for p in net.module_.parameters() if p.grad is not None]
                dense = [g._values() if g.is_sparse else g for g in gradients]
                assert any(g.is_sparse for g in gradients)
                self.seen.append(sum(float(g.square().sum()) for g in dense) ** 0.5)

    norms = Norms()
    clipping = skorch.callbacks.GradientNormClipping(0.01)
    classifier(callbacks=[clipping, norms]).fit(X, y)
    assert max(norms.seen) < 0.0101
