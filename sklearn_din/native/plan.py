"""A network's sizes as the library wants them, found once and kept as long as the network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_din.module import DIN
from sklearn_din.native.coverage import Watch, is_plain, not_covered
from sklearn_din.native.structures import (
    ACTIVATIONS,
    BEHAVIOUR,
    FACTORS,
    IDS,
    LINEAR,
    NETWORK,
    TABLE,
)
from sklearn_din.network.interest import ADDED_EVENTS, DECAYS, N_COUNTED, Interest
from sklearn_din.network.layers import PReLU

_DECAYS = np.array(DECAYS, dtype=np.float32)
_plans: WeakKeyDictionary[DIN, Plan] = WeakKeyDictionary()


def plan_of(module: DIN) -> Plan | None:
    """Return the plan of a network; None where torch must compute it."""
    plan = _plans.get(module) if type(module) is DIN else None
    if plan is not None and plan.watch.is_unchanged():
        return plan
    if not_covered(module):
        return None
    plan = _plans[module] = Plan(module)
    return plan if plan.watch.is_unchanged() else None


class Plan:
    """Structures without the pointers that change from call to call.

    Parameters
    ----------
    module : DIN
        A network that the native code covers.

    Attributes
    ----------
    ids, layers, behaviours, tables, network : ndarray
        Structures of ``network.h``.
    names : list of str
        Whose ids they are: all fields, then the attributes of each behaviour.
    event_numbers : list of str
        Numeric histories, behaviour by behaviour.
    """

    def __init__(self, module: DIN) -> None:
        self.watch = Watch(module)
        self.names: list[str] = []
        self.event_numbers: list[str] = []
        self._parameters: list[tuple[dict, str, torch.Size]] = []
        self._ids: list[tuple[int, ...]] = []
        self._layers: list[list[int]] = []
        embeddings = module.embeddings
        self._table_of = {width: number for number, width in enumerate(embeddings.tables)}
        for width in embeddings.tables:
            self._add_parameters(embeddings.tables, width)
        starts = accumulate(module.mlp_inputs.values(), initial=0)
        columns = dict(zip(module.mlp_inputs, starts, strict=False))
        for name in module.of_ids:
            self._add_ids(module, name, columns[name])
        n_layers = self._add_layers([*module.mlp, module.output])
        parts = module.interest_modules
        rows = [self._behaviour(module, p, columns[p.behaviour.histories]) for p in parts]
        self.behaviours = np.array(rows, dtype=BEHAVIOUR)
        self.ids = np.array(self._ids, dtype=IDS)
        self.layers = np.array([tuple(layer) for layer in self._layers], dtype=LINEAR)
        self.tables = np.array([(0, int(w), 0, 0, 0) for w in embeddings.tables], dtype=TABLE)
        sizes = len(module.of_ids), len(parts), n_layers, len(self.tables), len(module.of_numbers)
        n_inputs, counts = sum(module.mlp_inputs.values()), (len(DECAYS), N_COUNTED)
        constants = _DECAYS.ctypes.data, *sizes, n_inputs, *counts, int(ADDED_EVENTS)
        self.network = np.array([(0, 0, 0, 0, 0, 0, *constants, 0, 0, 0, 0, 0, 0)], dtype=NETWORK)
        n_members = LINEAR.itemsize // 8
        self._places = [
            n_members * number + place
            for number, layer in enumerate(self._layers)
            for place in range(3 if layer[-1] == ACTIVATIONS["PReLU"] else 2)
        ]

    def parameters(self) -> list[Tensor] | None:
        """Return tables, then weight, bias and slope of each layer; None where torch must compute.

        That is where one of them has other sizes now, or gets no gradient while others do.
        """
        wants_gradients = torch.is_grad_enabled()
        tensors = []
        for held, name, shape in self._parameters:
            tensor = held.get(name)
            if tensor is None or not is_plain(tensor) or tensor.shape != shape:
                return None
            if wants_gradients and not tensor.requires_grad:
                return None
            tensors.append(tensor)
        return tensors

    def layers_at(self, parameters: Sequence[Tensor]) -> np.ndarray:
        """Return the layers with pointers to their parameters, which come in their order."""
        layers = self.layers.copy()
        pointers = [parameter.data_ptr() for parameter in parameters]
        layers.view(np.int64)[self._places] = pointers
        return layers

    def _add_parameters(self, part: nn.Module, *names: str) -> None:
        held = part._parameters
        self._parameters += [(held, name, getattr(part, name).shape) for name in names]

    def _add_ids(self, module: DIN, name: str, column: int, candidate: int = -1) -> None:
        embeddings = module.embeddings
        vocabulary = embeddings.vocabulary_of[name]
        width = embeddings.width_of[vocabulary]
        sizes = embeddings.offset_of[vocabulary], embeddings.sizes[vocabulary], width
        self.names.append(name)
        self._ids.append((0, self._table_of[str(width)], *sizes, column, candidate))

    def _add_layers(self, modules: Sequence[nn.Module]) -> int:
        """Add linear layers and what follows them; returns the number of layers."""
        before = len(self._layers)
        for layer in modules:
            if isinstance(layer, nn.Linear):
                self._add_parameters(layer, "weight", "bias")
                self._layers.append([0, 0, 0, layer.in_features, layer.out_features, 0])
                continue
            self._layers[-1][-1] = ACTIVATIONS[type(layer).__name__]
            if isinstance(layer, PReLU):
                self._add_parameters(layer, "slope")
        return len(self._layers) - before

    def _behaviour(self, module: DIN, interest: Interest, column: int) -> tuple[int, ...]:
        behaviour = interest.behaviour
        first_ids, first_number = len(self._ids), len(self.event_numbers)
        for (name, candidate), start in zip(
            behaviour.candidate_of.items(), accumulate(interest.widths, initial=0), strict=False
        ):
            number = -1 if candidate is None else module.of_ids.index(candidate)
            self._add_ids(module, name, start, number)
        self.event_numbers += behaviour.numbers
        first_layer, n_layers = len(self._layers), 0
        if interest.pooling == "attention":
            unit = interest.unit
            n_layers = self._add_layers([unit.first, *unit.above, unit.last])
        factor = FACTORS["mean" if interest.pooling == "mean" else interest.divisor]
        sizes = len(behaviour.histories), first_number, len(behaviour.numbers)
        layers = first_layer, n_layers, interest.width, column, factor
        return (0, 0, first_ids, *sizes, *layers, interest.extended, interest.trains_embeddings)
