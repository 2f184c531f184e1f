"""A batch whose rows several processes share: draws and sums are those of the whole batch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sklearn_din.network.batch import JointRows

Sum = Callable[[Tensor], None]  # replaces a tensor by its sum over all processes


class _Joint(NamedTuple):
    """The batch at hand, where processes share it."""

    rows: JointRows
    sum: Sum


_current: ContextVar[_Joint | None] = ContextVar("joint_batch", default=None)


@contextmanager
def joint_batch(rows: JointRows | None, sum_over_processes: Sum | None) -> Iterator[None]:
    """Let layers know, within the block, that they see these rows of a joint batch.

    None: the batch is this process' alone. All processes must call ``sum_over_processes``, which
    replaces a tensor by its sum.
    """
    is_joint = rows is not None and sum_over_processes is not None
    token = _current.set(_Joint(rows, sum_over_processes) if is_joint else None)  # type: ignore
    try:
        yield
    finally:
        _current.reset(token)


def rand_like_rows(rows: Tensor) -> Tensor:
    """Draw numbers from [0, 1), one for each of some rows' numbers.

    In a joint batch they are drawn for all of its rows, of which the process takes its own: all
    processes draw the same, and what one process with the whole batch would draw.

    >>> rows = JointRows(start=1, n_rows=3)
    >>> _ = torch.manual_seed(0)
    >>> whole = rand_like_rows(torch.zeros(3, 2))
    >>> _ = torch.manual_seed(0)
    >>> with joint_batch(rows, lambda tensor: None):
    ...     torch.equal(rand_like_rows(torch.zeros(2, 2)), whole[1:])
    True
    """
    joint = _current.get()
    if joint is None:
        return torch.rand_like(rows)
    return _own_rows(torch.rand_like(_whole(rows, joint)), rows, joint)


class RowDropout(nn.Dropout):
    """Dropout of (n_rows, width) that in a joint batch draws for all of its rows.

    >>> RowDropout(0.5).eval()(torch.ones(1, 2))
    tensor([[1., 1.]])
    """

    def forward(self, values: Tensor) -> Tensor:
        """Drop numbers in training, and scale the others up.

        values : (n_rows, width)
        output : (n_rows, width)
        """
        joint = _current.get()
        if joint is None or not self.training:
            return super().forward(values)
        factors = _whole(values, joint).bernoulli_(1 - self.p).div_(1 - self.p)
        return values * _own_rows(factors, values, joint)


def _whole(rows: Tensor, joint: _Joint) -> Tensor:
    """Memory for one number per number of all rows of the joint batch."""
    return rows.new_empty(joint.rows.n_rows, *rows.shape[1:])


def _own_rows(whole: Tensor, rows: Tensor, joint: _Joint) -> Tensor:
    return whole[joint.rows.start : joint.rows.start + rows.shape[0]]


def joint_sum() -> Sum | None:
    """Return the sum over the processes that share the batch at hand; None where none does."""
    joint = _current.get()
    return None if joint is None else joint.sum


def joint_moments(scores: Tensor, sum_over_processes: Sum) -> tuple[int, Tensor, Tensor]:
    """Return number, mean and variance (by n) of the scores of all processes, by double precision.

    Each process' loss is its part of the joint loss: the gradient through mean and variance is
    summed over the processes too, which all must call backward.

    scores : (n, n_features), those of this process
    mean, variance : (n_features,)
    """
    doubles = scores.double()
    sums = [doubles.new_tensor([len(doubles)]), doubles.sum(0), doubles.square().sum(0)]
    totals = _SumOverProcesses.apply(torch.cat(sums), sum_over_processes)
    n = int(totals[0])
    mean, square = (totals[1:] / max(n, 1)).chunk(2)
    variance = (square - mean.square()).clamp(min=0.0)
    return n, mean.to(scores.dtype), variance.to(scores.dtype)


class _SumOverProcesses(torch.autograd.Function):
    """A tensor's sum over processes, and in the backward pass that of its gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sum_over_processes: Sum) -> Tensor:
        ctx.sum = sum_over_processes
        total = tensor.clone()
        ctx.sum(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor, None]:
        gradient = grad_total.clone()
        ctx.sum(gradient)
        return gradient, None
