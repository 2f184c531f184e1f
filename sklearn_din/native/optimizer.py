"""Steps of the optimizer in native code."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_din.native.coverage import are_plain
from sklearn_din.native.structures import POINTER, UNKNOWN_ID, load_library


def update_rows(
    table: Tensor, sparse: Tensor, state: dict[str, Tensor], group: dict[str, Any], starts: Tensor
) -> bool:
    """Move a table's rows as ``RowwiseAdam`` does; False where torch must do it.

    table : (n_ids, width)
    sparse : its gradient, each row once, ascending
    state : square (n_ids,), total and share (n_vocabularies,)
    """
    library, rows, gradient = load_library(), sparse._indices()[0].contiguous(), sparse._values()
    decay, square, total, share = group["decay"], state["square"], state["total"], state["share"]
    numbers = gradient, table, square, total, share
    if library is None or not are_plain(numbers if decay is None else (*numbers, decay)):
        return False
    tensors = rows, gradient, decay, table, square, starts, total, share
    pointers = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    # The members of ``RowUpdate`` in network.h.
    sizes = rows.shape[0], *table.shape, starts.shape[0]
    update = np.array([*pointers, *sizes], dtype=POINTER)
    rates = map(float, (group["lr"], group["betas"][1], group["eps"]))
    if library.din_update_rows(update.ctypes.data, *rates) == UNKNOWN_ID:  # which torch refuses
        return False
    torch.autograd.graph.increment_version(table)
    return True
