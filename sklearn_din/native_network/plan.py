"""A network's sizes as the library needs them, computed once and kept as long as the network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_din.module import DIN
from sklearn_din.native.structures import (
    ACTIVATIONS,
    BEHAVIOUR,
    FACTORS,
    IDS,
    LINEAR,
    NETWORK,
    POINTER,
    TABLE,
    WORD,
)
from sklearn_din.native_network.coverage import Watch, are_plain, not_covered
from sklearn_din.network.interest import ADDED_EVENTS, DECAYS, N_COUNTED, Interest
from sklearn_din.network.layers import PReLU

NO_TABLE = -1  # of numbers that are compared as ids are
OF_LAYER = "weight", "bias", "slope"  # the first members of a layer; not all have a slope
OF_LOSS = "targets", "weights", "loss", "n_joint_rows", "updates"
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
    """Structures of a covered network, without the pointers that change from call to call.

    words : (n_words,), int64, all structures of ``network.h`` one after the other, the network
        first, and the pointers to event numbers. Each member is a word
    inputs, outputs : numbers of the words that a call fills in: for all passes, and for gradients
    pointers, distances : (5,), int64, numbers of the words that point to other structures, and how
        many bytes from the first word these lie
    n_touched : (n_tables,), int64, numbers of the words that then say how many rows of each table
        have a gradient
    names : whose ids they are: all fields, then the attributes of each behaviour
    n_ids : below which theirs are; of lists as many as a batch has
    names_of_table : those names by their table. Behind the module's own tables, each field of lists
        has one: the means of a batch's distinct lists
    lists : fields of lists, in the order of these tables
    compared : a behaviour's histories, one of them of lists or numbers, and the candidate of lists
    shapes : of the parameters, in their order: tables, then weight, bias and slope of each layer
    n_weights : sizes of those of the layers
    event_numbers : numeric histories, behaviour by behaviour, and whether differences are meant
    """

    def __init__(self, module: DIN) -> None:
        self.watch = Watch(module)
        self.names: list[str] = []
        self.event_numbers: list[tuple[str, bool]] = []
        self.lists = [field.name for field in module.schema.fields if field.holds_lists]
        self.compared: list[tuple[tuple[str, ...], str, str]] = []
        self._parameters: list[tuple[dict, str]] = []
        self.shapes: list[torch.Size] = []
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
        widths = [*map(int, embeddings.tables), *map(embeddings.width, self.lists)]
        table_of = [ids[1] for ids in self._ids if ids[1] != NO_TABLE]
        self.names_of_table = [
            [name for name, table in zip(self.names, table_of, strict=True) if table == number]
            for number in range(len(widths))
        ]
        self.n_ids = [ids[3] for ids in self._ids if ids[1] != NO_TABLE]
        tables = [(0, width, 0, 0, 0) for width in widths]
        self.n_weights = [shape.numel() for shape in self.shapes[len(embeddings.tables) :]]
        network = np.zeros(1, dtype=NETWORK)
        network["decays"] = _DECAYS.ctypes.data
        network["n_fields"], network["n_behaviours"] = len(module.of_ids), len(parts)
        network["n_layers"], network["n_tables"] = n_layers, len(tables)
        network["n_numbers"] = sum(module.mlp_inputs[name] for name in module.of_numbers)
        network["n_inputs"] = sum(module.mlp_inputs.values())
        network["n_decays"], network["n_counted"] = len(DECAYS), N_COUNTED
        network["n_added"] = int(ADDED_EVENTS)
        self._arrange(
            network=network,
            ids=np.array(self._ids, dtype=IDS),
            behaviours=np.array(rows, dtype=BEHAVIOUR),
            layers=np.array([tuple(layer) for layer in self._layers], dtype=LINEAR),
            tables=np.array(tables, dtype=TABLE),
            event_numbers=np.zeros(len(self.event_numbers), dtype=POINTER),
        )

    def parameters(self) -> Sequence[Tensor] | None:
        """Return tables, then weight, bias and slope of each layer; None where torch must compute.

        That is where one of them has other sizes now, or gets no gradient while others do.
        """
        tensors = [held.get(name) for held, name in self._parameters]
        if not are_plain(tensors) or [tensor.shape for tensor in tensors] != self.shapes:
            return None
        if torch.is_grad_enabled() and not all(tensor.requires_grad for tensor in tensors):
            return None
        return tensors

    def _add_parameters(self, part: nn.Module, *names: str) -> None:
        held = part._parameters
        self._parameters += [(held, name) for name in names]
        self.shapes += [getattr(part, name).shape for name in names]

    def _add_ids(self, module: DIN, name: str, column: int, candidate: int = -1) -> None:
        embeddings = module.embeddings
        vocabulary = embeddings.vocabulary_of[name]
        width = embeddings.width_of[vocabulary]
        table = self._table_of[str(width)], embeddings.offset_of[vocabulary]
        n_ids = embeddings.sizes[vocabulary]
        if name in self.lists:
            table, n_ids = (len(self._table_of) + self.lists.index(name), 0), 0
        self.names.append(name)
        self._ids.append((0, *table, n_ids, width, column, candidate, 0))

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
            if name in self.lists and candidate is not None:
                self.compared.append((behaviour.histories, name, candidate))
        for name in interest.compared_numbers:
            self._ids.append((0, NO_TABLE, 0, 0, 0, interest.width, 0, 0))
            self.compared.append((behaviour.histories, name, ""))
        self.event_numbers += [(name, False) for name in behaviour.numbers]
        self.event_numbers += [(name, True) for name in interest.compared_numbers]
        first_layer, n_layers = len(self._layers), 0
        if interest.weighs:
            unit = interest.unit
            n_layers = self._add_layers([unit.first, *unit.above, unit.last])
        factor = FACTORS["mean" if interest.pooling == "mean" else interest.divisor]
        n_attributes, n_numbers = len(self._ids) - first_ids, interest.n_numbers
        sizes = n_attributes, first_number, n_numbers, len(behaviour.numbers)
        layers = first_layer, n_layers, interest.width, column, factor
        return (0, 0, first_ids, *sizes, *layers, interest.extended, interest.trains_embeddings)

    def _arrange(self, **structures: np.ndarray) -> None:
        """Put the structures one after the other, and find the words that a call fills in.

        The words are numbered from 0, and their numbers laid out as the structures are: where
        ``network["n_rows"]`` is 3 here, the call's number of rows goes into ``words[3]``.
        """
        self.words = np.concatenate([array.view(np.int64) for array in structures.values()])
        ends = np.cumsum([array.nbytes // WORD for array in structures.values()])
        numbers = np.split(np.arange(ends[-1]), ends[:-1])
        network, ids, behaviours, layers, tables, event_numbers = (
            some.view(array.dtype) for some, array in zip(numbers, structures.values(), strict=True)
        )
        # Of each layer the pointers alone, without the slope that only a PReLU has.
        of_layers = layers.view(POINTER).reshape(len(layers), -1)[:, : len(OF_LAYER)]
        is_there = np.ones(of_layers.shape, dtype=bool)
        is_there[:, -1] = structures["layers"]["activation"] == ACTIVATIONS["PReLU"]
        has_ids = structures["ids"]["table"] != NO_TABLE
        of_lists = structures["ids"]["table"] >= len(self._table_of)
        is_compared = (of_lists | ~has_ids) & (structures["ids"]["candidate"] >= 0)
        # In the order in which ``_Call`` (logits.py) writes their values.
        inputs = [ids["ids"][has_ids], ids["n_ids"][of_lists], ids["likeness"][is_compared]]
        inputs += [behaviours["offsets"], behaviours["is_shared"], event_numbers]
        inputs += [tables["rows"], of_layers[is_there]]
        of_rows = "numbers", "offsets", "n_rows", "n_threads", "team"
        inputs += [network[member] for member in of_rows]
        outputs = [tables["touched"], tables["values"]]
        outputs += [network[member] for member in OF_LOSS]
        self.inputs, self.outputs = np.concatenate(inputs), np.concatenate(outputs)
        self.n_touched = tables["n_touched"]
        # The structures lie behind the network in the order of its pointers to them.
        members = "ids", "behaviours", "layers", "tables", "event_numbers"
        self.pointers = np.concatenate([network[member] for member in members])
        self.distances = ends[:-1] * WORD
