"""Steps of the optimizer in native code."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_din.native.structures import (
    DENSE_UPDATE,
    ROW_UPDATE,
    UNKNOWN_ID,
    UPDATES,
    load_library,
)
from sklearn_din.native_network.coverage import are_plain

# Members of the structures, and the moments of ``RowwiseAdam`` that they point to.
OF_DENSE = {"mean": "exp_avg", "square": "exp_avg_sq", "n_steps": "step"}
OF_TABLE = {name: name for name in ("square", "total", "share")}


class NativeUpdate:
    """A step of ``RowwiseAdam`` on some parameters, for as long as it has the same moments.

    dense, tables : the parameters, by the kind of their gradients
    states, groups : of the former, then of the latter, as torch's optimizers have them
    starts : of each table, the first row of each vocabulary: (n_vocabularies,), int64
    """

    def __init__(
        self,
        dense: Sequence[Tensor],
        tables: Sequence[Tensor],
        *,
        states: Sequence[Mapping[str, Tensor]],
        groups: Sequence[Mapping[str, Any]],
        starts: Sequence[Tensor],
    ) -> None:
        self.parameters, self._n_dense = [*dense, *tables], len(dense)
        self._groups, self._starts = groups, starts
        # Aliases: where a callback gives a moment other memory, that of before stays
        self._moments = [moment.detach() for state in states for moment in state.values()]
        self._rates = np.zeros((len(groups), 4))  # ``Rates`` of each
        self._dense = np.zeros(len(dense), dtype=DENSE_UPDATE)
        self._tables = np.zeros(len(tables), dtype=ROW_UPDATE)
        for updates, members in (self._dense, OF_DENSE), (self._tables, OF_TABLE):
            own = states[: len(dense)] if updates is self._dense else states[len(dense) :]
            for member, name in members.items():
                updates[member] = [state[name].data_ptr() for state in own]
        rates = self._rates.ctypes.data + self._rates.strides[0] * np.arange(len(groups))
        self._dense["rates"], self._tables["rates"] = np.split(rates, [len(dense)])
        self._dense["n"] = [parameter.numel() for parameter in dense]
        self._tables["n_rows"] = [table.shape[0] for table in tables]
        self._tables["width"] = [table.shape[1] for table in tables]
        self._tables["starts"] = [of.data_ptr() for of in starts]
        self._tables["n_vocabularies"] = [len(of) for of in starts]
        parts = self._dense.ctypes.data, self._tables.ctypes.data
        self._updates = np.array([(*parts, len(dense), len(tables))], dtype=UPDATES)

    @property
    def is_covered(self) -> bool:
        """Whether the native code can read the moments and the factors of the L2."""
        decays = [group["decay"] for group in self._groups[self._n_dense :]]
        return are_plain([*self._moments, *(decay for decay in decays if decay is not None)])

    def prepare(self) -> int:
        """Return the address of ``Updates`` for a step, with the rates and places of now."""
        decays = [group["decay"] for group in self._groups[self._n_dense :]]
        self._rates[:] = [(group["lr"], *group["betas"], group["eps"]) for group in self._groups]
        pointers = [parameter.data_ptr() for parameter in self.parameters]
        self._dense["weight"] = pointers[: self._n_dense]
        self._tables["table"] = pointers[self._n_dense :]
        self._tables["decay"] = [0 if decay is None else decay.data_ptr() for decay in decays]
        return self._updates.ctypes.data

    def take(self, dense: Sequence[Tensor], sparse: Sequence[Tensor]) -> bool:
        """Take the step by gradients, those of tables sparse: each row once, ascending.

        False, and nothing moved, where torch must take it.
        """
        if load_library() is None or not self.is_covered:
            return False
        rows = [gradient._indices()[0].contiguous() for gradient in sparse]
        values = [gradient._values() for gradient in sparse]
        if not are_plain([*self.parameters, *dense, *values]):
            return False
        self._dense["gradient"] = [gradient.data_ptr() for gradient in dense]
        self._tables["touched"] = [of.data_ptr() for of in rows]
        self._tables["gradient"] = [of.data_ptr() for of in values]
        self._tables["n_touched"] = [len(of) for of in rows]
        if load_library().din_update(self.prepare()) == UNKNOWN_ID:  # which torch refuses
            return False
        self.note()
        return True

    def note(self) -> None:
        """Tell torch that the parameters have changed."""
        torch.autograd.graph.increment_version(self.parameters)
