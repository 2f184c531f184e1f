"""Nets that go on from another one: with more ids, or restored."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.history import History
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sklearn_din.features.schema import Schema
from sklearn_din.module import DIN
from sklearn_din.training.optim import RowwiseAdam, dense_parameters


def next_seeds(net: NeuralNet) -> tuple[int, int]:
    """Seeds of new rows and of torch in the next training."""
    first, second = np.random.SeedSequence(net.seed_).generate_state(2)
    return int(first), int(second)


def grow(net: NeuralNet, schema: Schema) -> NeuralNet:
    """Return a net whose tables have rows for all ids of a schema, which may have more ids.

    No prediction changes. New rows are drawn as those of a new network, their moments are zero.
    """
    if not can_go_on(net):
        raise ValueError(
            "partial_fit needs the network and the optimizer's moments as fit left them, and "
            "the network of this classifier was replaced. Fit it anew."
        )
    options: dict[str, Any] = dict(net.module_.options)
    with torch.device("meta"):
        module = DIN(schema, **options)
    weights = _grown_weights(net.module_, module, seed=next_seeds(net)[0])
    module.load_state_dict(weights, assign=True)
    grown = net_around(net, module)
    grown.history = History(dict(epoch) for epoch in net.history)
    grown.decisions_ = net.decisions_
    grown.checks_, grown.n_epochs_ = [dict(check) for check in net.checks_], net.n_epochs_
    grown.neighbours_, grown.novelty_ = net.neighbours_, net.novelty_.widen(schema)
    grown.mixture_ = net.mixture_
    grown.order_ = copy.deepcopy(net.order_)
    for name in ("batch_size_", "occurrences_", "labels_", "seed_", "callbacks"):
        setattr(grown, name, getattr(net, name))
    _copy_moments(net, grown)
    return grown


def net_around(net: NeuralNet, module: DIN) -> NeuralNet:
    """Return a net with the same parameters around a network; its ``fit`` makes another."""
    own = net.get_params(deep=False) | {"callbacks": None}  # callbacks have a state
    own = {name: value for name, value in own.items() if not name.startswith("module")}
    copied = type(net)(module, **own).initialize()
    copied.module, copied.module__schema = DIN, module.schema
    for name, option in module.options.items():
        setattr(copied, f"module__{name}", option)
    copied.module_.eval()
    return copied


def can_go_on(net: NeuralNet) -> bool:
    """Return whether the optimizer holds the moments of this network, which ``fit`` made."""
    if not hasattr(net, "seed_") or not is_own(net):
        return False
    groups = net.optimizer_.param_groups
    held = {id(parameter) for group in groups for parameter in group["params"]}
    return held == {id(parameter) for parameter in net.module_.parameters()}


def is_own(net: NeuralNet) -> bool:
    """Return whether the network is as ``fit`` made it, not halved or replaced."""
    parameters = net.module_.parameters()
    return type(net.module_) is DIN and all(p.dtype == torch.float32 for p in parameters)


def moments_of(net: NeuralNet) -> Mapping[Tensor, dict[str, Tensor]]:
    """Return the optimizer's moments by parameter; of one of another kind, by a callback, none."""
    return net.optimizer_.state if isinstance(net.optimizer_, RowwiseAdam) else {}


def _copy_moments(earlier: NeuralNet, net: NeuralNet) -> None:
    """Give the optimizer of a grown net copies of the moments; ids appended since have none."""
    new, old = net.module_.embeddings, earlier.module_.embeddings
    before, moments = dense_parameters(earlier.module_), moments_of(earlier)
    for name, parameter in dense_parameters(net.module_).items():
        state = moments.get(before[name], {})
        net.optimizer_.state[parameter] = {key: moment.clone() for key, moment in state.items()}
    for width, table in new.tables.items():
        state = moments.get(old.tables[width], {})
        if not state:
            continue
        names = new.vocabularies_of(width)
        squares = state["square"].split([old.sizes[name] for name in names])
        padded = [
            F.pad(square, (0, new.sizes[name] - len(square)))
            for name, square in zip(names, squares, strict=True)
        ]
        numbers = {key: state[key].clone() for key in ("total", "share")}
        net.optimizer_.state[table] = {"square": torch.cat(padded), **numbers}


def _grown_weights(old: DIN, new: DIN, *, seed: int) -> dict[str, Tensor]:
    """Return copied weights of ``old`` as a state_dict of ``new``, whose new rows are drawn."""
    generator = torch.Generator().manual_seed(seed)
    weights = {name: weight.detach().clone() for name, weight in old.state_dict().items()}
    for width in new.embeddings.tables:
        blocks = []
        for vocabulary in new.embeddings.vocabularies_of(width):
            earlier = old.embeddings.weight(vocabulary).detach()
            n_new = new.embeddings.sizes[vocabulary] - len(earlier)
            fresh = torch.empty(n_new, int(width), dtype=earlier.dtype)
            fresh.normal_(std=new.embeddings.scale, generator=generator)
            blocks += [earlier, fresh.to(earlier.device)]
        weights[f"embeddings.tables.{width}"] = torch.cat(blocks)
    return weights
