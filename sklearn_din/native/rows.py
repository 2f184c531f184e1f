"""The row-wise part of the optimizer in native code."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_din.native.coverage import is_plain
from sklearn_din.native.structures import ROW_UPDATE, load_library


def update_rows(
    table: Tensor, sparse: Tensor, state: dict[str, Tensor], group: dict[str, Any], starts: Tensor
) -> bool:
    """Move a table's rows as ``RowwiseAdam`` does; False where torch must do it.

    table : (n_ids, width)
    sparse : its gradient, each row once, ascending
    state : square (n_ids,), total and share (n_vocabularies,)
    """
    library, rows, gradient = load_library(), sparse._indices()[0], sparse._values()
    numbers = [gradient, group["decay"], table, state["square"], state["total"], state["share"]]
    if library is None or not all(x is None or is_plain(x) for x in numbers):
        return False
    pointers = [
        0 if x is None else x.data_ptr() for x in (rows, *numbers[:4], starts, *numbers[4:])
    ]
    update = np.array([(*pointers, len(rows), table.shape[1], len(starts))], dtype=ROW_UPDATE)
    library.din_update_rows(update.ctypes.data, group["lr"], group["betas"][1], group["eps"])
    torch.autograd.graph.increment_version(table)
    return True
