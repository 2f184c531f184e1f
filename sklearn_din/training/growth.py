"""How a classifier learns from rows that come later: tables and moments grow, one more pass."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import check_classification_targets
from skorch.history import History
from torch import Tensor

from sklearn_din._compat import _fit_context
from sklearn_din.batches.in_memory import ImpressionBatches
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.module import DIN
from sklearn_din.training.classifier_state import ClassifierState, is_own
from sklearn_din.training.distributed import Ranks, training_ranks, weights_digest
from sklearn_din.training.fingerprint import fingerprint
from sklearn_din.training.fitting import (
    among_ranks,
    batch_size_for,
    make_net,
    own_random_state,
    plan_of_batches,
    train_net,
    training_history,
)
from sklearn_din.training.inputs import (
    FitInputs,
    Impressions,
    check_class_weight,
    check_embedding_dim,
    check_features,
    check_parameters,
    check_weights,
    labels_of_encoded,
    numbers_and_labels,
)
from sklearn_din.training.neighbour_inputs import learn_inputs, look_up_inputs
from sklearn_din.training.net import DINNet
from sklearn_din.training.novelty import STILL, measure_novelty
from sklearn_din.training.plan import TrainingPlan
from sklearn_din.training.training_state import RowMoments, TrainingState

Classifier = TypeVar("Classifier", bound="ClassifierGrowth")


class ClassifierGrowth(ClassifierState):
    """Mixin of :class:`sklearn_din.DINClassifier`: what ``partial_fit`` does."""

    classes_: np.ndarray
    history_: pd.DataFrame
    n_iter_: int
    _fitted_on_encoded: bool

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self: Classifier,
        X: Impressions,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Classifier:
        """Train on further rows: one pass over them, from where the training stopped.

        Weights, the optimizers' moments and the order of random numbers go on. Ids that the
        encoder has appended since get rows of their own, which start as all rows did; by that
        alone no prediction changes. As many candidates' ids are hidden as at fit (``novelty_``).
        There is no early stopping, no validation rows are set aside, and the latest weights are
        kept, no average. ``batch_size="auto"`` stays what it was at fit; ``lr`` and
        ``embedding_lr`` are those of the parameters now. The L2 on embeddings counts an id's
        occurrences in all rows so far, so that the same prior is not imposed anew by each call.
        Item neighbours of these rows come from what was known before them; then their clicks are
        counted.
        ``class_weight="balanced"`` looks at the labels of this call.

        Give it the rows of a day or a week, each once. On a classifier that is not fitted it
        trains a new network by one pass; ``fit`` with early stopping is the better start.

        Parameters
        ----------
        X : EncodedFeatures, or array-like or DataFrame of shape (n, n_features)
            As given to ``fit``, or from the same encoder after its ``partial_fit``.
        y : array-like of shape (n,)
            Labels; all may be alike.
        classes : array-like of shape (2,), default=None
            Both labels, the larger one is the click. Needed in the first call where y has only
            one of them.
        sample_weight : array-like of shape (n,), default=None
            Factor of each impression's loss. Their mean becomes one in each call.

        Returns
        -------
        self : DINClassifier

        Raises
        ------
        ValueError
            For rows of another encoder, labels that are not among the classes, parameters that
            would need another network. The classifier is then as it was before, also where
            training fails or is interrupted (KeyboardInterrupt).
        """
        classifier: Any = self
        classifier._validate_params()  # scikit-learn does it in the first call alone
        with training_ranks(keeps_checkpoint=False) as ranks:
            inputs = check_partial_inputs(classifier, X, y, classes, sample_weight)
            given, is_first = inputs, not hasattr(self, "net_")
            if is_first:
                inputs, tables = learn_inputs(given, classifier.neighbours, ranks)
            else:
                inputs, tables = look_up_inputs(given, self.net_.neighbours_)
            if ranks is not None:
                _check_same(classifier, inputs, sample_weight, ranks)
            if is_first:
                plan = _plan_of_rows(classifier, inputs, None, ranks)
                classifier._keep(_one_pass(plan), given, plan.novelty, tables)
                return self
            plan = _plan_of_rows(classifier, inputs, _state_of(self.net_), ranks)
            net = _one_pass(plan, _grown_net(self.net_, plan))
        history, n_iter, n_rows = self.history_, self.n_iter_, len(self.net_.history)
        classifier._keep(net, given, plan.novelty, tables)
        self.n_iter_ += n_iter
        latest = training_history(net)[n_rows:].assign(epoch=float(self.n_iter_))
        self.history_ = pd.concat([history, latest], ignore_index=True)
        return self


def check_partial_inputs(
    estimator: BaseEstimator,
    X: Impressions,
    y: ArrayLike,
    classes: ArrayLike | None,
    sample_weight: ArrayLike | None,
) -> FitInputs:
    """Check the parameters and everything that ``partial_fit`` was given.

    Parameters
    ----------
    estimator : DINClassifier
        Fitted or not: where it is, X and y must be as those of earlier calls.
    X, y, classes, sample_weight
        As for ``partial_fit``.

    Returns
    -------
    FitInputs
        X has the newest schema: its own, or that of the classifier if X was encoded before.

    Raises
    ------
    ValueError
        For what cannot be trained on; the message says what to do.
    """
    check_parameters(estimator)
    read = _later_rows if hasattr(estimator, "net_") else _first_rows
    encoded, labels = read(estimator, X, y)
    known = _check_classes(classes, labels, getattr(estimator, "classes_", None))
    clicks = _check_labels(labels, known)
    check_class_weight(estimator.class_weight, known)
    check_embedding_dim(estimator.embedding_dim, encoded.schema)
    weights = check_weights(sample_weight, estimator.class_weight, known[clicks])
    is_encoded = isinstance(X, EncodedFeatures)
    return FitInputs(encoded, is_encoded, known, clicks.astype(np.float32), weights)


def _first_rows(
    estimator: BaseEstimator, X: Impressions, y: ArrayLike
) -> tuple[EncodedFeatures, np.ndarray]:
    if isinstance(X, EncodedFeatures):
        return X, labels_of_encoded(estimator, X, y)
    return numbers_and_labels(estimator, X, y, reset=True)


def _later_rows(
    estimator: BaseEstimator, X: Impressions, y: ArrayLike
) -> tuple[EncodedFeatures, np.ndarray]:
    schema, is_encoded = estimator.schema_, estimator._fitted_on_encoded
    if not isinstance(X, EncodedFeatures) and not is_encoded:
        return numbers_and_labels(estimator, X, y, reset=False)
    if isinstance(X, EncodedFeatures) and schema.is_prefix_of(X.schema):
        schema = X.schema
    encoded = check_features(estimator, X, schema=schema, is_encoded=is_encoded)
    labels = labels_of_encoded(estimator, encoded, y)
    if encoded.schema == schema:
        return encoded, labels
    grown = EncodedFeatures(
        schema,
        encoded.columns,
        encoded.behaviours,
        users=encoded.users,
        times=encoded.times,
        store=encoded.store,
    )
    return grown, labels


def _check_classes(
    classes: ArrayLike | None, labels: np.ndarray, known: np.ndarray | None
) -> np.ndarray:
    """Both labels in order: those of earlier calls, those given, or those that y holds."""
    present = pd.unique(labels[~pd.isna(labels)])
    if known is not None:
        if classes is not None and not np.array_equal(np.unique(np.asarray(classes)), known):
            raise ValueError(
                f"classes must stay {known.tolist()} in all calls, got "
                f"{np.asarray(classes).tolist()}. For other labels call fit."
            )
        return known
    if classes is None and len(present) == 1:
        raise ValueError(
            f"y must have two classes, got one class only: {present.tolist()}. In the first call "
            "of partial_fit, name both: partial_fit(X, y, classes=[0, 1])."
        )
    given = np.unique(present if classes is None else np.asarray(classes))
    if len(given) != 2:
        raise ValueError(
            "Only binary classification is supported: classes must be two labels, got "
            f"{given[:5].tolist()}."
        )
    return given


def _check_labels(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return 1 where a label is the click, 0 elsewhere."""
    n_missing = int(pd.isna(labels).sum())
    if n_missing:
        raise ValueError(f"y must not be missing, got {n_missing} NaN labels. Drop those rows.")
    check_classification_targets(labels)
    others = pd.unique(labels[~pd.Series(labels).isin(classes).to_numpy()])
    if len(others):
        raise ValueError(
            f"y must hold the labels {classes.tolist()}, got {others[:5].tolist()}. For other "
            "labels call fit."
        )
    return (labels == classes[1]).astype(np.int64)


def _check_same(
    estimator: BaseEstimator, inputs: FitInputs, sample_weight: ArrayLike | None, ranks: Ranks
) -> None:
    """Raise where processes that train together have other rows, or other networks so far."""
    given = fingerprint(estimator, inputs, sample_weight=sample_weight, groups=None)
    if hasattr(estimator, "net_"):
        given["data"]["the network so far"] = weights_digest(estimator.module_)
    ranks.check_same(given)


def _one_pass(plan: TrainingPlan, net: DINNet | None = None) -> DINNet:
    net = train_net(plan, net)
    if net.stop_reason_ == "user":
        raise KeyboardInterrupt("partial_fit was interrupted: the classifier is as it was before.")
    net.end_training(plan)
    net.module_.eval()
    return net


def _state_of(net: DINNet) -> TrainingState:
    state = net.fitting_state
    if state is None or not is_own(net.module_):
        raise ValueError(
            "partial_fit needs the network and the optimizers' moments as fit left them: this "
            "classifier was saved by an older version, or its network was replaced. Fit it anew."
        )
    return state


def _plan_of_rows(
    estimator: BaseEstimator,
    inputs: FitInputs,
    state: TrainingState | None,
    ranks: Ranks | None = None,
) -> TrainingPlan:
    """Plan one pass over the rows, without validation."""
    if state is None:
        order = own_random_state(estimator.random_state, ranks)
        novelty = measure_novelty(inputs.X, share=estimator.validation_fraction)
        hides = bool(novelty.hidden) and estimator.interest == "extended"
        batch_size = batch_size_for(len(inputs.X), estimator.batch_size)
        seed = order.randint(2**31)
    else:
        order = copy.deepcopy(state.order)
        novelty = state.hiding or replace(STILL, shares=estimator.novelty_)
        hides = state.hiding is not None
        is_auto = isinstance(estimator.batch_size, str)
        batch_size = state.batch_size if is_auto else estimator.batch_size
        seed = state.next_seeds()[1]
    train = ImpressionBatches(
        inputs.X,
        inputs.clicks,
        inputs.weights,
        batch_size=batch_size,
        shuffle=order,
        hide=novelty.hide if hides else None,
    )
    earlier = None if state is None else state.occurrences
    plan = plan_of_batches(
        estimator, train, None, novelty=novelty, earlier=earlier, order=order, seed=seed
    )
    return among_ranks(replace(plan, max_epochs=1), ranks)


def _grown_net(net: DINNet, plan: TrainingPlan) -> DINNet:
    """Return a net of its own memory that goes on where the given one stopped."""
    state = _state_of(net)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        module = plan.make_module()
    changed = [name for name, its in module.options.items() if net.module_.options[name] != its]
    if changed:
        raise ValueError(
            f"partial_fit goes on with the network that fit has made, but {', '.join(changed)} "
            "changed since. Set the parameters back, or call fit."
        )
    module.load_state_dict(
        grown_weights(net.module_, module, seed=state.next_seeds()[0]), assign=True
    )
    grown = make_net(replace(plan, device=str(net.device)), module)
    grown.history = History(dict(check) for check in net.history)
    sizes = module.embeddings.sizes
    rows = {name: _grown_moments(its, sizes[name]) for name, its in state.rows.items()}
    grown.go_on_from(replace(state, rows=rows))
    return grown


def grown_weights(old: DIN, new: DIN, *, seed: int) -> dict[str, Tensor]:
    """Return copies of a network's weights for one whose vocabularies have more ids.

    Parameters
    ----------
    old : DIN
        The weights are its own, and the rows of known ids.
    new : DIN
        Says the sizes; it needs no memory. New rows are drawn as those of a new network.
    seed : int
        Of the new rows.

    Returns
    -------
    weights : dict of str to Tensor
        A state_dict of ``new``.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {name: its.detach().clone() for name, its in old.state_dict().items()}
    for width in new.embeddings.tables:
        blocks = []
        for vocabulary in new.embeddings.vocabularies_of(width):
            known = old.embeddings.weight(vocabulary).detach()
            fresh = torch.empty(new.embeddings.sizes[vocabulary] - len(known), int(width))
            fresh.normal_(std=new.embeddings.scale, generator=generator)
            blocks += [known, fresh.to(known.device)]
        weights[f"embeddings.tables.{width}"] = torch.cat(blocks)
    return weights


def _grown_moments(moments: RowMoments, n_ids: int) -> RowMoments:
    """Moments of new ids are zero, as those of ids that no batch has held."""
    square = np.pad(moments.square, (0, n_ids - len(moments.square)))
    return moments._replace(square=square)
