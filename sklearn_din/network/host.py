"""What the host may read of a network without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor


def is_host(device: str | torch.device) -> bool:
    """Whether a device's memory is the host's own, which it reads without waiting.

    To read a number from a GPU, the host waits until the GPU has done everything that it was told
    before, and the GPU then waits for the host. Nothing in a training step may do that: what
    depends on the number has to be computed where the number is.

    Examples
    --------
    >>> is_host("cpu"), is_host("cuda")
    (True, False)
    """
    return torch.device(device).type == "cpu"


def number_on_host(tensor: Tensor) -> float | None:
    """Value of a tensor that holds one number; None where the host would have to wait for it.

    Examples
    --------
    >>> import torch
    >>> number_on_host(torch.tensor(0.25))
    0.25
    >>> number_on_host(torch.tensor(0.25, device="meta")) is None
    True
    """
    return tensor.item() if is_host(tensor.device) else None
