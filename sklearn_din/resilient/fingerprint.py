"""Fingerprints that identify the parameters and data of a training."""

import json
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import nn

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.lists import Column, IdLists
from sklearn_din.training.alone import Given
from sklearn_din.training.parameters import NetworkParameters, TrainingParameters, names_of
from sklearn_din.utils.digests import digest
from sklearn_din.utils.keys import read_groups
from sklearn_din.utils.typed_fields import to_dict

ROWS_PER_BLOCK = 4_096  # that are hashed at a time: with histories of 10,000 events, 300 MB

Fingerprint = dict[str, dict[str, Any]]  # parameters, data and other parts: JSON by name


def fingerprint(given: Given) -> Fingerprint:
    """Return what decides the result of a training as JSON: parameters, and hashes of the data."""
    net = given.net
    names = {name: f"module__{name}" for name in names_of(NetworkParameters)}
    names |= {name: name for name in (*names_of(TrainingParameters), "device")}
    parameters = {n: plain_parameter(getattr(net, name, None)) for n, name in names.items()}
    callbacks = [item[1] if isinstance(item, tuple) else item for item in net.callbacks or ()]
    theirs = [callback for callback in callbacks if not getattr(callback, "sees_refit", False)]
    parameters["callbacks"] = [plain_parameter(callback) for callback in theirs]
    parameters["Checkpoint in callbacks"] = any(hasattr(item, "hold") for item in callbacks)
    weights = [] if given.weights is None else [given.weights]
    groups = [] if given.groups is None else [read_groups(given.groups).ranks]
    data = {
        "the number of rows": len(given.X),
        "y": digest(repr(to_dict(net.target)), given.y),
        "weights (sample_weight, class_weight)": digest(*weights),
        "groups": digest(*groups),
        **{f"X ({name})": column for name, column in digests_of(given.X).items()},
    }
    if given.goes_on:
        data["the network so far"] = weights_digest(net.module_)
    return {"parameters": parameters, "data": data}


def differences(earlier: Fingerprint, latest: Fingerprint) -> list[str]:
    """Return what differs between two fingerprints: of parameters both values, of data the name."""
    different = []
    for part in earlier:
        for name in {**earlier[part], **latest[part]}:
            was, now = earlier[part].get(name), latest[part].get(name)
            values = f" was {was!r:.200} and is {now!r:.200}" if part == "parameters" else ""
            if was != now:
                different.append(f"{name}{values}")
    return different


def plain_parameter(value: object) -> Any:
    """Return a parameter's value as JSON; of objects their class, and a state that counts."""
    text = json.dumps(value, default=_describe)
    return json.loads(text, parse_constant=str)  # NaN equals itself as text


def _describe(value: object) -> Any:
    """Return what JSON can hold of a value that it does not know."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.random.RandomState):
        return f"RandomState {_digest_of_state(value)}"
    kind = value if isinstance(value, type) else type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, Callback):
        settings = {n: getattr(value, n, None) for n in value._get_param_names()}
        return [name, {n: v for n, v in settings.items() if isinstance(v, str | Real)}]
    return name


def _digest_of_state(random_state: np.random.RandomState) -> str:
    state = random_state.get_state(legacy=False)
    if state["bit_generator"] != "MT19937":
        raise ValueError(
            "Checkpoint, and a training of several processes, need a random_state that is an "
            f"int, None or numpy's usual RandomState, got one of "
            f"{state['bit_generator']}. Pass RandomState(seed)."
        )
    key, *others = state["state"]["key"], state["state"]["pos"], state["has_gauss"], state["gauss"]
    return digest(key, repr(others))[:16]


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of a network's weights."""
    weights = module.state_dict()
    flat = (weight.detach().cpu().contiguous().flatten() for weight in weights.values())
    return digest(*weights, *(weight.view(torch.uint8).numpy() for weight in flat))


def digests_of(X: EncodedFeatures) -> dict[str, str]:
    """Hash every column of encoded impressions, a block of rows at a time, by field.

    Histories count by their values: windows over a large log and a compact copy are equal.
    """
    digests = {"the schema": digest(X.schema.identity)}

    def update(name: str, *columns: Column) -> None:
        arrays = (c.digests if isinstance(c, IdLists) else c for c in columns)
        digests[name] = digest(digests.get(name, ""), *arrays)

    for vectors in X.vectors.values():
        update("vectors=", *vars(vectors).values())
    for first in range(0, len(X), ROWS_PER_BLOCK):
        block = X[first : first + ROWS_PER_BLOCK]
        for name, values in block.columns.items():
            update(name, values)
        for name, values in block.metadata.items():
            update(f"{name.removesuffix('s')}=", values)
        for behaviour in X.schema.behaviours:
            ragged = block.behaviours[behaviour.histories]
            index = ragged.spans.index()
            for name in (*behaviour.histories, *behaviour.numbers):
                update(name, ragged.spans.lengths, ragged.flat(name, index))
    return digests
