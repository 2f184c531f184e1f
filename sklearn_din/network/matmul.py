"""Products of long matrices, by the faster of the two libraries that torch has on a CPU.

``torch.mm`` calls MKL, convolutions call oneDNN. On an AMD processor with AVX-512, which MKL leaves
unused there, oneDNN was measured at up to twice MKL's rate; on one with AVX2 alone at a third of it
for the gradients of weights (``benchmarks/README.md``). Elsewhere nobody has measured, and MKL
multiplies. A product of n rows is a convolution with a window of one pixel over n pixels: the same
numbers in the same places, no copy.

oneDNN compiles a kernel for each shape and keeps it: give it sizes that come again
(:func:`padded_length`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

IMAGES = 16  # that the rows are dealt to: with fewer, torch does not ask oneDNN for one thread
SMALLEST = 1 << 23  # multiplications: below, a convolution's longer way in costs more
LONG = 4096  # rows from which on threads should share a sum over them
PARTS = 8  # that they share, where MKL multiplies
PROCESSOR: Any = getattr(torch.cpu, "get_capabilities", dict)()  # older torch does not tell
ONEDNN_IS_FASTER = bool(
    torch.backends.mkldnn.is_available()
    and PROCESSOR.get("sse4a")  # AMD's own
    and PROCESSOR.get("avx512_f")
)


def padded_length(n_rows: int) -> int:
    """Next of few numbers of rows: at most 1 / 32 more, 32 in each power of two.

    Examples
    --------
    >>> padded_length(19_500), padded_length(500)
    (19968, 500)
    """
    step = 1 << max(n_rows.bit_length() - 6, 0)
    return n_rows if step < IMAGES else -(-n_rows // step) * step


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """``left @ right + bias``: (n, k), (k, m), (m,) -> (n, m).

    Examples
    --------
    >>> import torch
    >>> product(torch.eye(2), torch.tensor([[1.0], [2.0]]), torch.ones(1))
    tensor([[2.],
            [3.]])
    """
    if not _is_for_convolution(left, right.shape[1]):
        return left @ right if bias is None else torch.addmm(bias, left, right)
    window = right.t().reshape(*right.t().shape, 1, 1)
    return _rows(F.conv2d(_images(left), window, bias))


def added_product(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """``total + left @ right``, where total (n, m) is overwritten: (n, k), (k, m) -> (n, m).

    Examples
    --------
    >>> import torch
    >>> added_product(torch.ones(1, 1), torch.tensor([[2.0]]), torch.tensor([[3.0]]))
    tensor([[7.]])
    """
    if _is_for_convolution(left, right.shape[1]):
        return product(left, right).add_(total)
    return total.addmm_(left, right)


def transposed_product(left: Tensor, right: Tensor) -> Tensor:
    """``left.t() @ right``: (n, k), (n, m) -> (k, m).

    Examples
    --------
    >>> import torch
    >>> transposed_product(torch.ones(3, 1), torch.eye(3))
    tensor([[1., 1., 1.]])
    """
    n_rows, k = left.shape
    m = right.shape[1]
    if n_rows >= LONG and _is_for_convolution(left, m):
        window = left.new_empty(m, k, 1, 1)  # its shape alone is read
        shape = ([0], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False])
        of_window = torch.ops.aten.convolution_backward(
            _images(right), _images(left), window, *shape
        )[1]
        return of_window.view(m, k).t()
    if n_rows < LONG or n_rows % PARTS:
        return left.t() @ right
    shared = [tensor.unflatten(0, (PARTS, -1)) for tensor in (left, right)]
    return torch.bmm(shared[0].transpose(1, 2), shared[1]).sum(0)


def _is_for_convolution(left: Tensor, m: int) -> bool:
    n, k = left.shape
    return (
        ONEDNN_IS_FASTER
        and n * k * m >= SMALLEST
        and n % IMAGES == 0
        and left.dtype == torch.float32
        and left.is_cpu
    )


def _images(matrix: Tensor) -> Tensor:
    """Rows as pixels, columns as channels, in the order of memory that oneDNN likes."""
    n, k = matrix.shape
    return matrix.reshape(IMAGES, n // IMAGES, 1, k).permute(0, 3, 1, 2)


def _rows(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1).flatten(0, 2)
