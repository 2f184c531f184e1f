"""A batch whose rows several processes share: draws and sums are those of the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sklearn_din.network.batch import JointRows

Sum = Callable[[Tensor], None]  # replaces a tensor by its sum over all processes


class _Joint(NamedTuple):
    rows: JointRows
    sum: Sum


_current: ContextVar[_Joint | None] = ContextVar("joint_batch", default=None)


@contextmanager
def joint_batch(rows: JointRows | None, sum_over_processes: Sum | None) -> Iterator[None]:
    """Let layers know, within the block, that they see some rows of a joint batch.

    Parameters
    ----------
    rows : JointRows or None
        Which of its rows they see. None: the batch is this process' alone.
    sum_over_processes : callable or None
        Takes a tensor and replaces it by its sum over all processes, each of which must call it.
    """
    is_joint = rows is not None and sum_over_processes is not None
    token = _current.set(_Joint(rows, sum_over_processes) if is_joint else None)  # type: ignore
    try:
        yield
    finally:
        _current.reset(token)


def rand_like_rows(rows: Tensor) -> Tensor:
    """Numbers from [0, 1), one for each of some rows' numbers.

    In a joint batch they are drawn for all of its rows, of which the process takes its own: all
    processes draw the same, and what one process with the whole batch would draw.

    Examples
    --------
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

    Examples
    --------
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
        kept = _whole(values, joint).bernoulli_(1 - self.p).div_(1 - self.p)
        return values * _own_rows(kept, values, joint)


def _whole(rows: Tensor, joint: _Joint) -> Tensor:
    """Memory for one number per number of all rows of the joint batch."""
    return rows.new_empty(joint.rows.n_rows, *rows.shape[1:])


def _own_rows(whole: Tensor, rows: Tensor, joint: _Joint) -> Tensor:
    return whole[joint.rows.start : joint.rows.start + rows.shape[0]]


class Moments(NamedTuple):
    """Of the scores that all processes have.

    Parameters
    ----------
    n : int
    mean, variance : Tensor of shape (n_features,)
        The variance divides by n.
    """

    n: int
    mean: Tensor
    variance: Tensor


def joint_sum() -> Sum | None:
    """Sum over the processes that share the batch at hand; None where it is not shared."""
    joint = _current.get()
    return None if joint is None else joint.sum


def joint_moments(scores: Tensor, sum_over_processes: Sum) -> Moments:
    """Mean and variance of scores (n, n_features) over all processes, in double precision.

    Examples
    --------
    >>> joint_moments(torch.tensor([[1.0], [3.0]]), lambda tensor: None)
    Moments(n=2, mean=tensor([2.]), variance=tensor([1.]))
    """
    its = scores.detach().double()
    sums = torch.cat([its.new_tensor([its.shape[0]]), its.sum(0), its.square().sum(0)])
    sum_over_processes(sums)
    n = int(sums[0])
    mean, square = (sums[1:] / max(n, 1)).chunk(2)
    variance = (square - mean.square()).clamp(min=0.0)
    return Moments(n, mean.to(scores.dtype), variance.to(scores.dtype))


class JointDice(torch.autograd.Function):
    """Dice (``layers.py``) with the mean and variance of a joint batch.

    Each process' loss is its share of the joint loss. The gradient through mean and variance needs
    two more sums over the processes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        slope: Tensor,
        moments: Moments,
        eps: float,
        sum_over_processes: Sum,
    ) -> Tensor:
        inverse_std = (moments.variance + eps).rsqrt()
        gate = torch.sigmoid((scores - moments.mean) * inverse_std)
        factor = torch.addcmul(slope, 1 - slope, gate)
        ctx.save_for_backward(scores, slope, gate, factor, moments.mean, inverse_std)
        ctx.n, ctx.sum = moments.n, sum_over_processes
        return scores * factor

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        scores, slope, gate, factor, mean, inverse_std = ctx.saved_tensors
        grad_factor = grad_output * scores
        grad_slope = (grad_factor * (1 - gate)).sum(0)
        grad_normed = grad_factor * (1 - slope) * gate * (1 - gate)
        normed = (scores - mean) * inverse_std
        sums = torch.stack([grad_normed.sum(0), (grad_normed * normed).sum(0)])
        ctx.sum(sums)
        average, shrink = sums / ctx.n
        grad_scores = (grad_normed - average - normed * shrink) * inverse_std
        return (grad_scores + grad_output * factor, grad_slope, None, None, None)
