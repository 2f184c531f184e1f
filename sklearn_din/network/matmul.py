"""Multiplication of long matrices by the faster of the two libraries that torch has on a CPU.

``torch.matmul`` calls MKL, convolutions call oneDNN. On an AMD processor with AVX-512, which MKL
leaves unused there, oneDNN was measured at up to twice MKL's rate; on one with AVX2 alone at a
third of it for the gradients of weights (``benchmarks/README.md``). Elsewhere nobody has measured,
and MKL multiplies. To multiply n rows by a matrix is a convolution with a window of one pixel over
n pixels: the same numbers in the same places, no copy.

oneDNN compiles a kernel for each shape and keeps it: give it sizes that come again
(:func:`padded_length`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

N_IMAGES = 16  # that share the rows: with fewer, torch does not call oneDNN on one thread
LEAST_MULTIPLICATIONS = 1 << 23  # below, calling a convolution costs more than it gains
LONG_SUM = 4096  # from this number of rows on, threads share a sum over them
N_SHARES = 8  # into which such a sum is split where MKL multiplies
LENGTHS_PER_DOUBLING = 32  # numbers of rows that ``padded_length`` gives between n and 2 n
PROCESSOR: Mapping[str, object] = (
    torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # older torch
)
ONEDNN_IS_FASTER = bool(
    torch.backends.mkldnn.is_available()
    and PROCESSOR.get("sse4a")  # AMD's own
    and PROCESSOR.get("avx512_f")
)


def padded_length(n_rows: int) -> int:
    """Round a number of rows up to one of few numbers: at most 1 / 32 more than asked.

    Examples
    --------
    >>> padded_length(19_500), padded_length(500)
    (19968, 500)
    """
    step = (1 << n_rows.bit_length()) // (2 * LENGTHS_PER_DOUBLING)
    return n_rows if step < N_IMAGES else -(-n_rows // step) * step


def matmul(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """``left @ right + bias``.

    left : (n, k)
    right : (k, m)
    bias : (m,), or None for zeros
    result : (n, m)

    Examples
    --------
    >>> import torch
    >>> matmul(torch.eye(2), torch.tensor([[1.0], [2.0]]), torch.ones(1))
    tensor([[2.],
            [3.]])
    """
    if not _is_for_convolution(left, right.shape[1]):
        return left @ right if bias is None else torch.addmm(bias, left, right)
    window = right.t().reshape(*right.t().shape, 1, 1)
    return _rows(F.conv2d(_images(left), window, bias))


def matmul_added(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """``total + left @ right``, where ``total`` may be overwritten.

    total : (n, m)
    left : (n, k)
    right : (k, m)
    result : (n, m)

    Examples
    --------
    >>> import torch
    >>> matmul_added(torch.ones(1, 1), torch.tensor([[2.0]]), torch.tensor([[3.0]]))
    tensor([[7.]])
    """
    if _is_for_convolution(left, right.shape[1]):
        return matmul(left, right).add_(total)
    return total.addmm_(left, right)


def matmul_transposed(left: Tensor, right: Tensor) -> Tensor:
    """``left.t() @ right``: a sum over n rows, where n is large and k and m are small.

    left : (n, k)
    right : (n, m)
    result : (k, m)

    Examples
    --------
    >>> import torch
    >>> matmul_transposed(torch.ones(3, 1), torch.eye(3))
    tensor([[1., 1., 1.]])
    """
    n_rows, k = left.shape
    m = right.shape[1]
    if n_rows >= LONG_SUM and _is_for_convolution(left, m):
        window = left.new_empty(m, k, 1, 1)  # its shape alone is read
        options = ([0], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False])
        grad_window = torch.ops.aten.convolution_backward(
            _images(right), _images(left), window, *options
        )[1]
        return grad_window.view(m, k).t()
    if n_rows < LONG_SUM or n_rows % N_SHARES:
        return left.t() @ right
    shared = [tensor.unflatten(0, (N_SHARES, -1)) for tensor in (left, right)]
    return torch.bmm(shared[0].transpose(1, 2), shared[1]).sum(0)


def _is_for_convolution(left: Tensor, m: int) -> bool:
    n, k = left.shape
    return (
        ONEDNN_IS_FASTER
        and n * k * m >= LEAST_MULTIPLICATIONS
        and n % N_IMAGES == 0
        and left.dtype == torch.float32
        and left.is_cpu
    )


def _images(matrix: Tensor) -> Tensor:
    """Rows (n, k) as the pixels of images with k channels, in the order of memory oneDNN likes."""
    n, k = matrix.shape
    return matrix.reshape(N_IMAGES, n // N_IMAGES, 1, k).permute(0, 3, 1, 2)


def _rows(images: Tensor) -> Tensor:
    """Pixels as rows again: the inverse of ``_images``."""
    return images.permute(0, 2, 3, 1).flatten(0, 2)
