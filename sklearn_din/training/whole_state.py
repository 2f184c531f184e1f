"""A net in the middle of its training as numbers and arrays, and a net put where it stood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from skorch.callbacks import PassthroughScoring

from sklearn_din.batches.in_memory import Place
from sklearn_din.training.classifier_state import plain_check
from sklearn_din.training.early_stopping import EarlyStopping
from sklearn_din.training.net import DINNet
from sklearn_din.training.novelty import candidate_columns
from sklearn_din.training.plan import TrainingPlan
from sklearn_din.training.training_state import state_from_plain


def whole_state(
    net: DINNet, plan: TrainingPlan, unfinished: dict[str, Any] | None
) -> dict[str, Any]:
    """Return all that the next batch depends on, beside parameters and data.

    Parameters
    ----------
    net : DINNet
        In training, after all that follows a training batch or a validation check.
    plan : TrainingPlan
        What it is trained by.
    unfinished : dict or None
        Of the check that has begun, from :func:`unfinished_check`. None between two checks.

    Returns
    -------
    dict
        Numbers, text and arrays. The arrays lie in memory that the training writes to.
    """
    place = plan.train.place()
    stopping = [its.state_dict() for _, its in net.callbacks_ if isinstance(its, EarlyStopping)]
    finished = net.history[: None if unfinished is None else -1]
    return {
        "history": [plain_check(check) for check in finished],
        "unfinished": unfinished,
        "weights": {name: its.cpu().numpy() for name, its in net.module_.state_dict().items()},
        "training": net.current_state(plan).to_plain(),
        "rates": [group["lr"] for group in net.optimizer_.param_groups],
        "early_stopping": stopping[0] if stopping else None,
        "place": [place.epoch, place.n_passes, place.n_batches],
        "random": _random_states(plan.device),
    }


def unfinished_check(net: DINNet, seconds: float) -> dict[str, Any]:
    """Return what a check needs of its batches so far: their losses and sizes."""
    net.read_losses()
    batches = net.history[-1]["batches"]
    names = [name for name, its in batches[0].items() if isinstance(its, int | float)]
    names = [name for name in names if all(name in its for its in batches)]
    columns = {name: np.array([its[name] for its in batches]) for name in names}
    return {"columns": columns, "seconds": seconds}


def go_on(net: DINNet, plan: TrainingPlan, earlier: Mapping[str, Any]) -> None:
    """Put an initialized net where an earlier training stood; everything is copied.

    Parameters
    ----------
    net : DINNet
        Its callbacks have been told that training begins.
    plan : TrainingPlan
        Made of the same parameters, data and seeds.
    earlier : dict
        From :func:`whole_state`.
    """
    weights = {name: torch.from_numpy(its) for name, its in earlier["weights"].items()}
    net.module_.load_state_dict(weights)
    columns = candidate_columns(net.module_.schema)
    sizes = net.module_.embeddings.sizes
    state = state_from_plain(earlier["training"], sizes, net.dense_shapes, columns)
    net.go_on_from(state)
    for group, rate in zip(net.optimizer_.param_groups, earlier["rates"], strict=True):
        group["lr"] = rate
    net.history.extend({"batches": [], **check} for check in earlier["history"])
    for _, callback in net.callbacks_:
        if isinstance(callback, EarlyStopping):
            callback.load_state_dict(earlier["early_stopping"], net.module_)
        if isinstance(callback, PassthroughScoring):
            name = callback.name
            bests = [its[name] for its in earlier["history"] if its.get(f"{name}_best")]
            callback.best_score_ = bests[-1] if bests else callback.best_score_
    epoch, n_passes, n_batches = earlier["place"]
    plan.train.go_to(Place(epoch, state.order, n_passes, n_batches))
    _set_random_states(earlier["random"])


def go_on_within_check(net: DINNet, earlier: Mapping[str, Any]) -> int:
    """Give the check that has just begun the batches that it had; return how many they are.

    torch's random state is put back once more: callbacks may have drawn at the check's beginning.
    """
    columns = earlier["unfinished"]["columns"]
    rows = zip(*(its.tolist() for its in columns.values()), strict=True)
    net.history[-1]["batches"] = [dict(zip(columns, row, strict=True)) for row in rows]
    _set_random_states(earlier["random"])
    return len(net.history[-1]["batches"])


def _random_states(device: str) -> list[np.ndarray]:
    """Random state of torch, and that of each GPU if one is trained on."""
    states = [torch.random.get_rng_state()]
    if torch.device(device).type == "cuda":
        states += torch.cuda.get_rng_state_all()
    return [its.numpy() for its in states]


def _set_random_states(states: list[np.ndarray]) -> None:
    first, *others = (torch.from_numpy(its) for its in states)
    torch.random.set_rng_state(first)
    if others:
        torch.cuda.set_rng_state_all(others)
