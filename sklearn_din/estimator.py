"""DINClassifier: a scikit-learn classifier that owns a skorch net around the DIN module."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.validation import check_is_fitted

from sklearn_din.batches.batch import Batch
from sklearn_din.batches.in_memory import ImpressionBatches
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Behaviour
from sklearn_din.inspection.diagram import network_diagram
from sklearn_din.inspection.summary import summarize
from sklearn_din.module import DIN, OPTIONS
from sklearn_din.training.early_stopping import BestLook
from sklearn_din.training.holdout import split_rows
from sklearn_din.training.inputs import (
    check_binary_target,
    check_class_weight,
    check_encoded,
    check_parameters,
    check_rows,
)
from sklearn_din.training.net import DINNet, TrainingRows, embedding_decay
from sklearn_din.training.progress import ProgressBar, finish_interrupted

EARLY_STOPPING_ROWS = 1_000
LARGE_BATCH_ROWS = 100_000
BATCHES_PER_LOOK = 50
MOST_LOOKS_PER_EPOCH = 4


class DINClassifier(ClassifierMixin, BaseEstimator):
    """Deep Interest Network: click probability from attention over each user's history.

    Takes what :class:`HistorySequenceEncoder` returns; usually both stand in one Pipeline. A
    plain 2-D array or frame of numbers works too: every column is then numeric.

    Parameters
    ----------
    embedding_dim : int or dict, default=16
        Width of the embeddings; or by column, each vocabulary named.
    pooling : {"attention", "sum", "mean", "max"}, default="attention"
        How a history becomes one vector. "sum" is the paper's base model.
    interest : {"paper", "extended"}, default="extended"
        "paper" is the published network exactly. "extended" lets the activation unit see which
        attributes equal the candidate's and how recent each event is, gives the MLP candidate *
        interest and the sum of the weights in place of the interest, once with attention's
        weights and once with all weights one, divides by the root of the length, leaves
        attention's gradient out of the embeddings (but where no candidate trains them), and
        beside ids hides 15 % of the numbers from each training step.
    attention_units : tuple of int, default=(64, 16)
        Hidden layers of the activation unit.
    attention_activation : {"prelu", "dice", "relu", "sigmoid"}, default="prelu"
        Their activation.
    attention_normalization : {"auto", "sqrt", "softmax"} or None, default="auto"
        None leaves the weights as they are (the paper), "sqrt" divides the interest by the root
        of the history's length, "softmax" makes the weights sum to one. "auto": None for
        ``interest="paper"``, "sqrt" for "extended".
    hidden_units : tuple of int, default=(200, 80)
        Layers of the MLP.
    activation : {"prelu", "dice", "relu"}, default="prelu"
        Their activation.
    dropout : float, default=0.0
        Share of the MLP's activations dropped in training.
    embedding_l2 : float, default=250.0
        Strength of the paper's mini-batch aware regularisation (section 5.1): only ids in the
        batch are shrunk, the rarer the more: each by ``embedding_l2`` over ``batch_size`` times
        the number of its occurrences in the training rows. An embedding then has the prior
        N(0, 1 / embedding_l2), whatever the batch size.
    lr : float, default=0.003
        Learning rate of Adam for everything but the embeddings.
    embedding_lr : float, default=None
        Learning rate of the embeddings' row-wise optimizer. None means ``lr``.
    batch_size : int or "auto", default="auto"
        Impressions a step. "auto": 256 up to 100,000 training rows, 1024 beyond.
    max_epochs : int, default=20
        Most passes over the training rows.
    early_stopping : bool or "auto", default="auto"
        Whether to set validation rows aside, stop when their loss stops falling and keep the
        best average of four looks' weights. "auto": from 1,000 rows.
    validation : {"random", "last", "groups"}, default="random"
        Which rows those are: any; the last ones in the given order (rows sorted by time); or
        all rows of some of the ``groups`` given to ``fit``.
    validation_fraction : float, default=0.1
        Their share.
    patience : int, default=4
        Looks at the validation rows without improvement before training stops. There is one
        look for 50 batches, at least one and at most four an epoch.
    class_weight : dict, "balanced" or None, default=None
        Factor of each class's loss. Probabilities are then those of the weighted classes.
    callbacks : list of skorch callbacks or None, default=None
        For what has no parameter here: schedules, clipping, checkpoints.
    device : str, default="auto"
        torch device. "auto": "cuda" where there is one, otherwise "cpu".
    random_state : int, RandomState or None, default=None
        Seed of initial weights, validation rows, order of rows and dropout. None draws fresh
        entropy; the global random states of numpy and torch are never touched.
    verbose : int, default=0
        0 is silent, 1 shows a progress bar with losses, AUC and time left.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        The labels; the second is the click.
    net_ : skorch net
        Without training rows; ``net_.predict_proba(X)`` takes EncodedFeatures.
    module_ : DIN
        The torch module.
    schema_ : Schema
        What the classifier was fitted on.
    history_ : DataFrame
        One row a look: epoch (a fraction where an epoch has several looks), train_loss,
        valid_loss, valid_auc, seconds.
    n_iter_ : int
        Epochs begun.
    n_features_in_, feature_names_in_
        As for every scikit-learn estimator.

    References
    ----------
    G. Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.RandomState(0).normal(size=(200, 2)).astype("float32")
    >>> y = np.where(X[:, 0] > 0, "click", "skip")
    >>> classifier = DINClassifier(random_state=0).fit(X, y)
    >>> bool(classifier.score(X, y) > 0.9)
    True
    """

    _parameter_constraints: dict = {
        "embedding_dim": [Interval(Integral, 1, None, closed="left"), Mapping],
        **{
            name: [StrOptions({option for option in options if option}), *({None} & set(options))]
            for name, options in OPTIONS.items()
        },
        "attention_units": [tuple, list],
        "hidden_units": [tuple, list],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "embedding_l2": [Interval(Real, 0, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "embedding_lr": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation": [StrOptions({"random", "last", "groups"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "callbacks": [list, None],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        embedding_dim: int | Mapping[str, int] = 16,
        pooling: str = "attention",
        interest: str = "extended",
        attention_units: tuple[int, ...] = (64, 16),
        attention_activation: str = "prelu",
        attention_normalization: str | None = "auto",
        hidden_units: tuple[int, ...] = (200, 80),
        activation: str = "prelu",
        dropout: float = 0.0,
        embedding_l2: float = 250.0,
        lr: float = 0.003,
        embedding_lr: float | None = None,
        batch_size: int | str = "auto",
        max_epochs: int = 20,
        early_stopping: bool | str = "auto",
        validation: str = "random",
        validation_fraction: float = 0.1,
        patience: int = 4,
        class_weight: dict | str | None = None,
        callbacks: list | None = None,
        device: str = "auto",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.embedding_dim = embedding_dim
        self.pooling = pooling
        self.interest = interest
        self.attention_units = attention_units
        self.attention_activation = attention_activation
        self.attention_normalization = attention_normalization
        self.hidden_units = hidden_units
        self.activation = activation
        self.dropout = dropout
        self.embedding_l2 = embedding_l2
        self.lr = lr
        self.embedding_lr = embedding_lr
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.validation = validation
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.class_weight = class_weight
        self.callbacks = callbacks
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> DINClassifier:
        """Train the network.

        Parameters
        ----------
        X : EncodedFeatures, or array-like or DataFrame of shape (n, n_features)
            Impressions, one row a candidate shown. Arrays and frames are numeric throughout.
        y : array-like of shape (n,)
            Two kinds of labels; the larger one is the click.
        sample_weight : array-like of shape (n,), default=None
            Factor of each impression's loss.
        groups : array-like of shape (n,), default=None
            With ``validation="groups"``: impressions of one group stay together.

        Returns
        -------
        self : DINClassifier

        Raises
        ------
        ValueError
            For labels of one or more than two kinds, missing labels, numbers that are not
            finite, lengths that differ, or a loss that is no longer finite.
        """
        check_parameters(self)
        X, y = check_encoded(self, X, y, reset=True)
        self.classes_, clicks = check_binary_target(y)
        check_class_weight(self.class_weight, self.classes_)
        self.schema_ = X.schema
        y = clicks.astype(np.float32)
        weights = self._weights(X, clicks, sample_weight)
        seeds = self._random_state()
        train, valid = np.arange(len(y)), None
        stops = self.early_stopping
        if len(y) >= EARLY_STOPPING_ROWS if stops == "auto" else stops:
            train, valid = split_rows(
                y, groups, how=self.validation, share=self.validation_fraction, seeds=seeds
            )
        with torch.random.fork_rng(devices=self._cuda_devices()):
            torch.manual_seed(seeds.randint(2**31))
            net, rows = self._make_net(X, y, weights, train, valid, seeds)
            net.fit(rows, None)
        self.n_iter_ = math.ceil(len(net.history) / rows.train.parts)
        any_callbacks = bool(self.callbacks)
        finish_interrupted(net, looks_per_epoch=rows.train.parts, any_callbacks=any_callbacks)
        self._keep(net, rows)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of both classes.

        Parameters
        ----------
        X : EncodedFeatures, or array-like or DataFrame of shape (n, n_features)
            As given to ``fit``.

        Returns
        -------
        probability : ndarray of shape (n, 2), float32
            Columns in the order of ``classes_``.
        """
        click = torch.sigmoid(torch.from_numpy(self.decision_function(X))).numpy()
        return np.stack([1 - click, click], axis=1)

    def decision_function(self, X: Any) -> np.ndarray:
        """Log-odds of the click.

        Parameters
        ----------
        X : EncodedFeatures, or array-like or DataFrame of shape (n, n_features)
            As given to ``fit``.

        Returns
        -------
        logit : ndarray of shape (n,), float32
        """
        check_is_fitted(self)
        X, _ = check_encoded(self, X, reset=False)
        return self.net_.forward(X).float().cpu().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Label that is more probable.

        Parameters
        ----------
        X : EncodedFeatures, or array-like or DataFrame of shape (n, n_features)
            As given to ``fit``.

        Returns
        -------
        label : ndarray of shape (n,)
        """
        is_click = self.decision_function(X) > 0
        return self.classes_[is_click.astype(int)]

    def attention_weights(self, X: Any) -> pd.DataFrame:
        """Weight of every past event in its impression's interest.

        Parameters
        ----------
        X : EncodedFeatures
            Impressions.

        Returns
        -------
        weights : DataFrame
            One row an event, oldest first: row (position of the impression in X), behaviour,
            position (0 is the oldest event kept), one column of encoded ids an attribute
            (Int32, missing where the behaviour lacks it), weight: the factor of the event's
            embedding in the interest vector. Bags are no behaviour: they have no candidate.

        Raises
        ------
        ValueError
            Where the classifier has no attention: ``pooling="max"``, or no history.
        """
        check_is_fitted(self)
        X, _ = check_encoded(self, X, reset=False)
        behaviours = [b for b in self.schema_.behaviours if not b.is_bag]
        if self.pooling == "max" or not behaviours:
            raise ValueError(
                "attention_weights needs pooling='attention', 'sum' or 'mean' and a history with "
                f"a candidate, got pooling={self.pooling!r} and {len(behaviours)} such histories."
            )
        self.module_.eval()
        frames, first = [], 0
        for batch, _ in ImpressionBatches(X, batch_size=1024):
            weights = self.module_.attention(batch.to(self.net_.device))
            for b in behaviours:
                frame = _weights_frame(batch, b, weights[b.histories], first)
                frames.append(frame.assign(behaviour=self.schema_.display_name(b)))
            first += len(batch)
        columns = ["row", "behaviour", "position"]
        columns += list(dict.fromkeys(name for b in behaviours for name in b.histories))
        table = pd.concat(frames, ignore_index=True)[[*columns, "weight"]]
        return table.sort_values(["row", "behaviour", "position"], ignore_index=True)

    def summary(self) -> str:
        """Columns, behaviours, layers and parameters of the fitted network, as text."""
        check_is_fitted(self)
        return summarize(self)

    def _repr_html_inner(self) -> str:
        html = super()._repr_html_inner()
        return html + network_diagram(self.module_) if hasattr(self, "module_") else html

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle:
            bundle["text/html"] = self._repr_html_inner()
        return bundle

    def _weights(self, X: EncodedFeatures, clicks: np.ndarray, sample_weight: Any) -> Any:
        """Weights of mean one, None where all are equal."""
        weights = check_rows(sample_weight, len(X), name="sample_weight")
        if self.class_weight is not None:
            by_class = compute_sample_weight(self.class_weight, self.classes_[clicks.astype(int)])
            weights = by_class if weights is None else weights * by_class
        if weights is None:
            return None
        if weights.min() < 0 or weights.sum() <= 0:
            raise ValueError(
                "sample_weight must be zero or more, and not zero everywhere, got a minimum of "
                f"{weights.min():g} and a sum of {weights.sum():g}."
            )
        return (weights / weights.mean()).astype(np.float32)

    def _random_state(self) -> np.random.RandomState:
        if self.random_state is None:
            return np.random.RandomState(np.random.SeedSequence().generate_state(4))
        return check_random_state(self.random_state)

    def _make_net(
        self,
        X: EncodedFeatures,
        y: np.ndarray,
        weights: np.ndarray | None,
        train: np.ndarray,
        valid: np.ndarray | None,
        seeds: np.random.RandomState,
    ) -> tuple[DINNet, TrainingRows]:
        module = self._make_module(X)
        batch_size = self.batch_size
        if isinstance(batch_size, str):
            batch_size = 256 if len(train) <= LARGE_BATCH_ROWS else 1024
        looks = 1
        if valid is not None:
            n_batches = math.ceil(len(train) / batch_size)
            looks = int(np.clip(n_batches // BATCHES_PER_LOOK, 1, MOST_LOOKS_PER_EPOCH))

        def batches(rows: np.ndarray, size: int, **order: Any) -> ImpressionBatches:
            chosen = None if weights is None else weights[rows]
            return ImpressionBatches(X[rows], y[rows], chosen, batch_size=size, **order)

        rows = TrainingRows(
            batches(train, batch_size, shuffle=seeds, parts=looks),
            None if valid is None else batches(valid, 4096),
        )
        decay = None
        if self.embedding_l2:
            strength = self.embedding_l2 / min(batch_size, len(train))
            decay = embedding_decay(rows.train.X, module.embeddings, strength)
        net = DINNet(
            module,
            lr=self.lr,
            embedding_lr=self.embedding_lr or self.lr,
            embedding_decay=decay,
            max_epochs=self.max_epochs * looks,
            callbacks=self._callbacks(valid is not None),
            train_split=None,
            device=self._device(),
            verbose=0,
        )
        return net, rows

    def _make_module(self, X: EncodedFeatures) -> DIN:
        sizes = X.schema.vocabulary_sizes
        if isinstance(self.embedding_dim, Mapping) and set(self.embedding_dim) != set(sizes):
            raise ValueError(
                f"embedding_dim must be an int or name every vocabulary once: {sorted(sizes)}, "
                f"got {sorted(self.embedding_dim)}."
            )
        return DIN(
            X.schema,
            embedding_dim=self.embedding_dim,
            pooling=self.pooling,
            interest=self.interest,
            attention_units=tuple(self.attention_units),
            attention_activation=self.attention_activation,
            attention_normalization=self.attention_normalization,
            hidden_units=tuple(self.hidden_units),
            activation=self.activation,
            dropout=self.dropout,
        )

    def _callbacks(self, looks: bool) -> list[Any]:
        callbacks = list(self.callbacks or [])
        if looks:
            callbacks.insert(0, ("best_look", BestLook(self.patience)))
        if self.verbose:
            callbacks.append(("progress", ProgressBar()))
        return callbacks

    def _device(self) -> str:
        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def _cuda_devices(self) -> list[int]:
        return list(range(torch.cuda.device_count())) if self._device() != "cpu" else []

    def _keep(self, net: DINNet, rows: TrainingRows) -> None:
        """Fitted attributes; what only training needs of the optimizers is let go."""
        net.forget_training()
        net.module_.eval()
        self.net_, self.module_ = net, net.module_
        table = pd.DataFrame({"epoch": np.arange(1, len(net.history) + 1) / rows.train.parts})
        for key in ("train_loss", "valid_loss", "valid_auc", "dur"):
            table[key] = np.array([look.get(key, np.nan) for look in net.history], dtype=float)
        self.history_ = table.rename(columns={"dur": "seconds"})

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


def _weights_frame(batch: Batch, behaviour: Behaviour, weights: torch.Tensor, first: int) -> Any:
    """Tidy rows of one behaviour in one batch; ``first`` is the batch's first impression."""
    rows = batch.rows[behaviour.histories].cpu().numpy()
    starts = batch.offsets[behaviour.histories].cpu().numpy()[rows]
    ids = {name: pd.array(batch.ids[name].cpu().numpy(), "Int32") for name in behaviour.histories}
    return pd.DataFrame(
        {
            "row": rows + first,
            "behaviour": behaviour.name,
            "position": np.arange(len(rows)) - starts,
            **ids,
            "weight": weights.cpu().numpy(),
        }
    )
