"""Steps of the optimizer in native code."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_din.native.coverage import are_plain
from sklearn_din.native.structures import load_library


def update_rows(
    table: Tensor, sparse: Tensor, state: dict[str, Tensor], group: dict[str, Any], starts: Tensor
) -> bool:
    """Move a table's rows as ``RowwiseAdam`` does; False where torch must do it.

    table : (n_ids, width)
    sparse : its gradient, each row once, ascending
    state : square (n_ids,), total and share (n_vocabularies,)
    """
    library, rows, gradient = load_library(), sparse._indices()[0], sparse._values()
    decay, square, total, share = group["decay"], state["square"], state["total"], state["share"]
    numbers = gradient, table, square, total, share
    if library is None or not are_plain(numbers if decay is None else (*numbers, decay)):
        return False
    tensors = rows, gradient, decay, table, square, starts, total, share
    pointers = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    # The members of ``RowUpdate`` in network.h.
    update = np.array([*pointers, rows.shape[0], *table.shape[1:], starts.shape[0]])
    rates = map(float, (group["lr"], group["betas"][1], group["eps"]))
    library.din_update_rows(update.ctypes.data, *rates)
    torch.autograd.graph.increment_version(table)
    return True


def update_dense(
    parameters: list[Tensor], states: list[dict[str, Tensor]], group: dict[str, Any]
) -> bool:
    """Move parameters as ``torch.optim.Adam`` does; False where torch must do it.

    states : exp_avg and exp_avg_sq like the parameter, step a number
    """
    library, gradients = load_library(), [parameter.grad for parameter in parameters]
    n_steps = [state["step"] for state in states]
    if library is None or not (are_plain(parameters) and are_plain(n_steps)):
        return False
    if not are_plain(gradients):
        return False
    updates = np.array(  # the members of ``DenseUpdate`` in network.h
        [
            [tensor.data_ptr() for tensor in parameters],
            [gradient.data_ptr() for gradient in gradients],
            [state["exp_avg"].data_ptr() for state in states],
            [state["exp_avg_sq"].data_ptr() for state in states],
            [number.data_ptr() for number in n_steps],
            [tensor.numel() for tensor in parameters],
        ]
    ).T.copy()
    rates = map(float, (group["lr"], *group["betas"], group["eps"]))
    library.din_update_dense(updates.ctypes.data, len(updates), *rates)
    torch.autograd.graph.increment_version(parameters)
    return True
