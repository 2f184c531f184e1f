"""How a net is fitted: a plan is made of what the user gave, and one function carries it out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from skorch.callbacks import Callback

from sklearn_din.batches.in_memory import ImpressionBatches
from sklearn_din.features.schema import Schema
from sklearn_din.module import DIN
from sklearn_din.training.checkpoint import Checkpoint
from sklearn_din.training.distributed import Ranks
from sklearn_din.training.early_stopping import EarlyStopping
from sklearn_din.training.holdout import choose_validation, row_numbers, split_rows
from sklearn_din.training.inputs import FitInputs
from sklearn_din.training.net import DINNet
from sklearn_din.training.novelty import Novelty, measure_novelty
from sklearn_din.training.optim import count_occurrences, embedding_decay
from sklearn_din.training.parameters import device_for
from sklearn_din.training.plan import TrainingPlan
from sklearn_din.training.progress import ProgressBar
from sklearn_din.training.seeding import seeded_torch

EARLY_STOPPING_ROWS = 1_000
LARGE_BATCH_ROWS = 100_000
BATCHES_PER_CHECK = 50
MOST_CHECKS_PER_EPOCH = 4
VALIDATION_BATCH_SIZE = 4_096


def plan_in_memory(
    estimator: BaseEstimator,
    inputs: FitInputs,
    groups: ArrayLike | None,
    checkpoint: Checkpoint | None = None,
    ranks: Ranks | None = None,
) -> TrainingPlan:
    """Plan a training on impressions in memory.

    Parameters
    ----------
    estimator : DINClassifier
        Its parameters say how to train.
    inputs : FitInputs
        What it was given, checked.
    groups : array-like of shape (n,) or None
        For ``validation="groups"``. None: the users that the impressions carry.
    checkpoint : Checkpoint, default=None
        Keeps what the training goes on from, and knows the seeds of one that has begun.
    ranks : Ranks, default=None
        The processes that train together. None: this one trains alone.

    Returns
    -------
    TrainingPlan
    """
    seeds = own_random_state(estimator.random_state, ranks)
    if checkpoint is not None:
        seeds = checkpoint.seeds(seeds)
    novelty = measure_novelty(inputs.X, share=estimator.validation_fraction)
    train, valid = _split_batches(estimator, inputs, groups, seeds, novelty)
    plan = plan_of_batches(
        estimator,
        train,
        valid,
        novelty=novelty,
        order=seeds,
        seed=seeds.randint(2**31),
    )
    return among_ranks(replace(plan, checkpoint=checkpoint), ranks)


def plan_of_batches(
    estimator: BaseEstimator,
    train: ImpressionBatches,
    valid: ImpressionBatches | None,
    *,
    novelty: Novelty,
    earlier: Mapping[str, np.ndarray] | None = None,
    order: np.random.RandomState,
    seed: int,
) -> TrainingPlan:
    """Plan a training on batches.

    Parameters
    ----------
    estimator : DINClassifier
        Its parameters say how to train.
    train, valid : ImpressionBatches
        Impressions to learn from; those of validation checks, or None.
    novelty : Novelty
        Which candidates are new over time; ``train`` may hide as many.
    earlier : dict of str to ndarray, default=None
        By vocabulary, how often each id occurred in what was trained on before. There may be more
        ids now.
    order : RandomState
        Draws the order of ``train``.
    seed : int
        Of torch.

    Returns
    -------
    TrainingPlan
    """
    hiding = novelty if train.hide else None
    decay, occurrences = None, dict[str, np.ndarray]()
    if estimator.embedding_l2:
        occurrences = count_occurrences(train.X, hiding.hidden if hiding else None, train.rows)
        for name, before in (earlier or {}).items():
            occurrences[name][: len(before)] += before
        strength = estimator.embedding_l2 / min(train.batch_size, len(train))
        decay = embedding_decay(occurrences, strength)
    return TrainingPlan(
        train=train,
        valid=valid,
        checks_per_epoch=train.checks_per_epoch,
        batches_per_epoch=math.ceil(len(train) / train.batch_size),
        make_module=_module_maker(estimator, train.X.schema),
        embedding_decay=decay,
        lr=estimator.lr,
        embedding_lr=estimator.embedding_lr or estimator.lr,
        max_epochs=estimator.max_epochs,
        patience=estimator.patience,
        callbacks=tuple(estimator.callbacks or ()),
        verbose=estimator.verbose,
        device=device_for(estimator.device),
        seed=seed,
        batch_size=train.batch_size,
        order=order,
        occurrences=occurrences,
        novelty=novelty.shares,
        hiding=hiding,
    )


def among_ranks(plan: TrainingPlan, ranks: Ranks | None) -> TrainingPlan:
    """Return the plan of one of several processes: its slice of each batch, its device.

    Parameters
    ----------
    plan : TrainingPlan
        Of the whole training, the same in all processes. Its batches are changed in place.
    ranks : Ranks or None
        None: this process trains alone, the plan stays as it is.

    Returns
    -------
    TrainingPlan
    """
    if ranks is None:
        return plan
    plan.train.share_among(ranks.size, rank=ranks.rank)
    if isinstance(plan.valid, ImpressionBatches):
        plan.valid.share_among(ranks.size, rank=ranks.rank)
    verbose = plan.verbose if ranks.rank == 0 else 0
    return replace(plan, ranks=ranks, device=ranks.device_for(plan.device), verbose=verbose)


def own_random_state(
    random_state: int | np.random.RandomState | None, ranks: Ranks | None = None
) -> np.random.RandomState:
    """As scikit-learn's check, but None draws fresh entropy, not from numpy's global state.

    Several processes take what rank 0 has drawn.
    """
    if random_state is not None:
        return check_random_state(random_state)
    drawn = np.random.RandomState(np.random.SeedSequence().generate_state(4))
    return drawn if ranks is None else ranks.from_first(drawn)


def _split_batches(
    estimator: BaseEstimator,
    inputs: FitInputs,
    groups: ArrayLike | None,
    seeds: np.random.RandomState,
    novelty: Novelty,
) -> tuple[ImpressionBatches, ImpressionBatches | None]:
    """Batches to train on, and batches to validate on where early stopping is on."""
    X, share = inputs.X, estimator.validation_fraction
    hides = bool(novelty.hidden) and estimator.interest == "extended"
    rows = row_numbers(len(X))
    valid = None
    stops = estimator.early_stopping
    if len(X) >= EARLY_STOPPING_ROWS if stops == "auto" else stops:
        how = choose_validation(estimator.validation, X.times)
        users = X.users if groups is None else groups
        rows, held_out = split_rows(
            inputs.clicks, users, how=how, share=share, seeds=seeds, times=X.times
        )
        valid = ImpressionBatches(
            X,
            *_targets(inputs, held_out),
            batch_size=VALIDATION_BATCH_SIZE,
            rows=held_out,
            prepare=novelty.hide_new if hides and how == "last" else None,
        )
    batch_size = batch_size_for(len(rows), estimator.batch_size)
    checks = 1
    if valid is not None:
        n_batches = math.ceil(len(rows) / batch_size)
        checks = min(max(n_batches // BATCHES_PER_CHECK, 1), MOST_CHECKS_PER_EPOCH)
    train = ImpressionBatches(
        X,
        *_targets(inputs, rows),
        batch_size=batch_size,
        shuffle=seeds,
        checks_per_epoch=checks,
        hide=novelty.hide if hides else None,
        rows=rows,
    )
    return train, valid


def _targets(inputs: FitInputs, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Clicks and weights of some rows."""
    return inputs.clicks[rows], None if inputs.weights is None else inputs.weights[rows]


def batch_size_for(n_rows: int, batch_size: int | str) -> int:
    """Impressions per training step; "auto" asks how many there are."""
    if isinstance(batch_size, str):
        return 256 if n_rows <= LARGE_BATCH_ROWS else 1024
    return batch_size


def _module_maker(estimator: BaseEstimator, schema: Schema) -> partial[DIN]:
    return partial(
        DIN,
        schema,
        embedding_dim=estimator.embedding_dim,
        pooling=estimator.pooling,
        interest=estimator.interest,
        attention_units=tuple(estimator.attention_units),
        attention_activation=estimator.attention_activation,
        attention_normalization=estimator.attention_normalization,
        hidden_units=tuple(estimator.hidden_units),
        activation=estimator.activation,
        dropout=estimator.dropout,
    )


def fit_net(plan: TrainingPlan, net: DINNet | None = None) -> DINNet:
    """Train a net as planned; if the user ends the training (Ctrl-C), warn what is kept.

    Parameters
    ----------
    plan : TrainingPlan
        Batches, rates, when to stop.
    net : DINNet, default=None
        A net to go on with.

    Returns
    -------
    net : DINNet
        As :func:`train_net` returns it.
    """
    net = train_net(plan, net)
    if net.stop_reason_ == "user":
        _warn_of_interruption(net, plan)
    return net


def train_net(plan: TrainingPlan, net: DINNet | None = None) -> DINNet:
    """Train a net as planned. Every kind of training calls this function.

    torch's global random state is left as it was, and threads that train take turns.

    Parameters
    ----------
    plan : TrainingPlan
        Batches, rates, when to stop.
    net : DINNet, default=None
        A net to go on with: its weights, the moments of its optimizers and its learning rates
        stay. None makes a new one.

    Returns
    -------
    net : DINNet
        Trained; ``net.stop_reason_`` says why the training ended.
    """
    devices = list(range(torch.cuda.device_count())) if plan.device != "cpu" else []
    with seeded_torch(plan.seed, devices=devices):
        if net is None:
            net = make_net(plan, plan.make_module())
        net.max_epochs = plan.n_checks
        net.callbacks = _callbacks(plan)
        net.initialize_callbacks()
        with net.among(plan.ranks):
            net.partial_fit(plan)
    if plan.ranks is not None:
        plan.ranks.check_same_weights(net.module_)
    return net


def make_net(plan: TrainingPlan, module: DIN) -> DINNet:
    """Return a net around a network, with the plan's rates and L2, ready to be trained."""
    return DINNet(
        module,
        lr=plan.lr,
        embedding_lr=plan.embedding_lr,
        embedding_decay=plan.embedding_decay,
        train_split=None,
        device=plan.device,
        verbose=0,
    ).initialize()


def _callbacks(plan: TrainingPlan) -> list[Callback | tuple[str, Callback]]:
    callbacks: list[Callback | tuple[str, Callback]] = list(plan.callbacks)
    if plan.valid is not None:
        callbacks.insert(0, ("early_stopping", EarlyStopping(plan.patience)))
    if plan.verbose:
        callbacks.append(("progress", ProgressBar()))
    if plan.checkpoint is not None:
        callbacks.append(plan.checkpoint)
    return callbacks


def _warn_of_interruption(net: DINNet, plan: TrainingPlan) -> None:
    epoch = max(1, net.n_epochs_begun_)
    was_checked = any("valid_loss" in check for check in net.history)
    kept = (
        "the weights of the best validation check so far" if was_checked else "the latest weights"
    )
    goes_on = ", which goes on from the latest checkpoint" if plan.checkpoint is not None else ""
    warnings.warn(
        f"training was interrupted in epoch {epoch} of {plan.max_epochs}: {kept} are kept and the "
        f"classifier can be used. Fit again for a full training{goes_on}.",
        UserWarning,
        stacklevel=5,  # the caller of the estimator's fit, which has a decorator around it
    )


def training_history(net: DINNet) -> pd.DataFrame:
    """Losses by validation check.

    Parameters
    ----------
    net : DINNet
        Trained.

    Returns
    -------
    DataFrame
        One row per validation check (per epoch, where there are no checks): epoch, train_loss,
        valid_loss, valid_auc, seconds.
    """
    table = pd.DataFrame({"epoch": np.arange(1, len(net.history) + 1) / net.checks_per_epoch_})
    for key in ("train_loss", "valid_loss", "valid_auc", "dur"):
        table[key] = np.array([check.get(key, np.nan) for check in net.history], dtype=float)
    return table.rename(columns={"dur": "seconds"})
