"""What a classifier learnt, as plain values, and back: its network is rebuilt and checked."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sklearn_din._estimator_state import (
    EstimatorState,
    check_array,
    check_dict,
    check_feature_names,
    check_keys,
)
from sklearn_din.features.schema import Schema
from sklearn_din.features.schema_state import schema_from_state, schema_state
from sklearn_din.module import DIN
from sklearn_din.neighbours.tables import NeighbourTables
from sklearn_din.training.net import DINNet, StopReason
from sklearn_din.training.novelty import candidate_columns
from sklearn_din.training.training_state import TrainingState, state_from_plain

LEARNT = {"classes_", "history_", "n_iter_", "n_features_in_", "schema", "network"}
LEARNT |= {"_fitted_on_encoded", "novelty_"}
NETWORK = {"neighbours", "options", "weights", "device", "lr", "embedding_lr", "training"}
TRAINING = {"max_epochs", "stop_reason", "n_epochs_begun", "checks_per_epoch", "history"}

_DEVICE: ContextVar[str | None] = ContextVar("_DEVICE", default=None)


@contextmanager
def networks_on(device: str) -> Iterator[None]:
    """Put the networks that are restored meanwhile on this device, wherever they were trained."""
    token = _DEVICE.set(device)
    try:
        yield
    finally:
        _DEVICE.reset(token)


class ClassifierState(EstimatorState):
    """Mixin of :class:`sklearn_din.DINClassifier`: how what it learnt is kept."""

    net_: DINNet
    module_: DIN
    schema_: Schema

    def _versions(self) -> dict[str, str]:
        return super()._versions() | {"torch": str(torch.__version__)}

    def _fitted_state(self, attributes: dict[str, Any]) -> dict[str, Any] | None:
        if "net_" not in attributes or not is_own(attributes["module_"]):
            return None
        net, module = attributes.pop("net_"), attributes.pop("module_")
        names = {*LEARNT, "feature_names_in_"} - {"schema", "network"}
        return {
            "schema": schema_state(attributes.pop("schema_")),
            "network": _network_state(net, module),
            **{name: attributes.pop(name) for name in sorted(names) if name in attributes},
        }

    def _restore_fitted(self, fitted: dict[str, Any]) -> None:
        check_keys(fitted, LEARNT, optional={"feature_names_in_"}, what="a classifier")
        _check_novelty(fitted["novelty_"])
        check_feature_names(fitted)
        classes = fitted["classes_"]
        if type(classes) is not np.ndarray or classes.shape != (2,) or classes[0] == classes[1]:
            raise ValueError("classes_ must be two labels.")
        if type(fitted["history_"]) is not pd.DataFrame:
            raise ValueError("history_ must be a frame.")
        if type(fitted["n_iter_"]) is not int or type(fitted["_fitted_on_encoded"]) is not bool:
            raise ValueError("n_iter_ must be an integer, _fitted_on_encoded a boolean.")
        self.schema_ = schema_from_state(fitted.pop("schema"))
        self.net_ = _network_from_state(fitted.pop("network"), self.schema_)
        self.module_ = self.net_.module_
        self.__dict__.update(fitted)


def _check_novelty(novelty: object) -> None:
    for column, share in check_dict(novelty, what="novelty_").items():
        if type(share) is not float or not 0 <= share <= 1:
            raise ValueError(f"novelty_[{column!r:.60}] must be a share, got {share!r:.60}.")


def is_own(module: DIN) -> bool:
    """Whether the network is as ``fit`` made it, not halved or put in another's place."""
    return type(module) is DIN and all(p.dtype == torch.float32 for p in module.parameters())


def _network_state(net: DINNet, module: DIN) -> dict[str, Any]:
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}
    state = net.fitting_state
    return {
        **({} if state is None else {"training_state": state.to_plain()}),
        "neighbours": net.neighbours_.to_plain(),
        "options": dict(module.options),
        "weights": weights,
        "device": str(net.device),
        "lr": float(net.lr),
        "embedding_lr": float(net.embedding_lr),
        "training": {
            "max_epochs": int(net.max_epochs),
            "stop_reason": net.stop_reason_,
            "n_epochs_begun": int(net.n_epochs_begun_),
            "checks_per_epoch": int(net.checks_per_epoch_),
            "history": [plain_check(check) for check in net.history],
        },
    }


def plain_check(check: Mapping[str, Any]) -> dict[str, Any]:
    """One check's losses and times, without those of its batches."""
    kinds = (bool, int, float, str)
    items = {
        key: getattr(value, "item", lambda value=value: value)()
        for key, value in check.items()
        if not isinstance(value, list | dict)
    }
    return {key: value for key, value in items.items() if type(value) in kinds}


def _network_from_state(state: Any, schema: Schema) -> DINNet:
    check_keys(state, NETWORK, optional={"training_state"}, what="a network")
    check_keys(state["training"], TRAINING, what="a training")
    arrays = check_dict(state["weights"], what="weights")
    weights = {name: _tensor(name, array) for name, array in arrays.items()}
    tables = NeighbourTables.from_plain(state["neighbours"], schema)
    module = _module(tables.extend(schema), check_dict(state["options"], what="options"), weights)
    lr, embedding_lr = state["lr"], state["embedding_lr"]
    if type(lr) is not float or type(embedding_lr) is not float or min(lr, embedding_lr) <= 0:
        raise ValueError("learning rates must be positive floats.")
    device = _present_device(state["device"])
    net = DINNet(
        module, lr=lr, embedding_lr=embedding_lr, train_split=None, device=device, verbose=0
    ).initialize()
    net.neighbours_ = tables
    training = state["training"]
    for name in ("max_epochs", "n_epochs_begun", "checks_per_epoch"):
        if type(training[name]) is not int or training[name] < 0:
            raise ValueError(f"{name} must be an integer, got {training[name]!r:.60}.")
    if training["stop_reason"] not in get_args(StopReason):
        raise ValueError(f"training cannot end by {training['stop_reason']!r:.60}.")
    net.max_epochs, net.stop_reason_ = training["max_epochs"], training["stop_reason"]
    net.n_epochs_begun_ = training["n_epochs_begun"]
    net.checks_per_epoch_ = training["checks_per_epoch"]
    if type(training["history"]) is not list:
        raise ValueError("a training's history must be a list.")
    for check in training["history"]:
        net.history.append(check_dict(check, what="a check"))
    net.forget_training()
    if "training_state" in state:
        net.training_state_ = _training_state(state["training_state"], net)
    return net


def _training_state(values: Any, net: DINNet) -> TrainingState:
    shapes = net.dense_shapes
    columns = candidate_columns(net.module_.schema)
    return state_from_plain(values, net.module_.embeddings.sizes, shapes, columns)


def _tensor(name: str, array: Any) -> Tensor:
    """Weights that are float32 and finite; memory that cannot be written to is copied."""
    check_array(array, dtype="float32", shape=np.shape(array), what=f"weights {name!r:.80}")
    return torch.from_numpy(array if array.flags.writeable else np.array(array))


def _module(schema: Schema, options: dict[str, Any], weights: dict[str, Tensor]) -> DIN:
    """Build the network without memory of its own, then give it the weights, which must fit."""
    _check_size(schema, options, weights)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        module = DIN(schema, **options)
    wanted = {name: tuple(its.shape) for name, its in module.state_dict().items()}
    given = {name: tuple(its.shape) for name, its in weights.items()}
    if wanted != given:
        wrong = [name for name in {**wanted, **given} if wanted.get(name) != given.get(name)]
        raise ValueError(f"weights {wrong[:3]} are not those of a network with these options.")
    module.load_state_dict(weights, assign=True)
    return module.eval()


def _check_size(schema: Schema, options: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Raise where options tell of more layers or wider ones than there are weights."""
    dims = options.get("embedding_dim")
    widths = {dims} if type(dims) is int else set(check_dict(dims, what="embedding_dim").values())
    units = [options.get(name) for name in ("hidden_units", "attention_units")]
    for its in (widths, *units):
        if type(its) not in (set, tuple) or any(type(n) is not int or n < 1 for n in its or ()):
            raise ValueError(f"widths must be positive integers, got {its!r:.60}.")
    n_units = sum(not behaviour.is_bag for behaviour in schema.behaviours)
    n_layers = len(units[0] or ()) + len(units[1] or ()) * n_units
    n_attributes = sum(len(behaviour.histories) for behaviour in schema.behaviours)
    n_weights = sum(tensor.numel() for tensor in weights.values())
    uses_unit = options.get("pooling") == "attention"
    if n_attributes * max(widths, default=0) > n_weights * max(1, len(widths)):
        raise ValueError("the options tell of wider embeddings than there are weights.")
    if (n_layers if uses_unit else len(units[0] or ())) > len(weights):
        raise ValueError("the options tell of a larger network than there are weights.")


def _present_device(device: object) -> str:
    """Where to put the network: where it was asked for, where it was, or on the CPU."""
    wanted = _DEVICE.get()
    if wanted is not None:
        return wanted
    if type(device) is not str:
        raise ValueError(f"a device must be text, got {device!r:.60}.")
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        warnings.warn(
            f"the classifier was trained on {device!r}, which this machine lacks: it is on the "
            "CPU now.",
            UserWarning,
            stacklevel=2,
        )
        return "cpu"
    return device
