"""The optimizer: Adam, with a row-wise variant for embedding tables that touches few rows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import unwrap
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.optim.adam import adam
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from sklearn_din.module import DIN
from sklearn_din.native_network.optimizer import NativeUpdate

HOOKS = "_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"


class RowwiseAdam(torch.optim.Optimizer):
    """Adam for dense gradients and, for embedding tables, a row-wise kind for sparse gradients.

    One optimizer with a group of parameters for each table, so that schedules and clipping reach
    everything that is trained. Parameters with dense gradients take the steps of
    :class:`torch.optim.Adam`.

    A table takes steps without momentum and with one second moment per row, on the rows of the
    batch only: row j with gradient g moves by ``lr * g / sqrt(v_j + v)``. v_j is the row's second
    moment (a moving average, from zero, of the mean square of its gradients), v that of all rows
    of its vocabulary that were in a batch. A row seen once thus moves in proportion to its
    gradient, relative to the vocabulary's typical gradient. Adam divides by the row's own moment
    alone and moves it as far as any other, so that rare ids learn noise
    (benchmarks/quality-results.md, "Rare ids"). A row whose gradients are often large is slowed
    down by its own moment.

    The cost of a step follows the number of distinct ids in the batch, since all other rows stay
    as they are. Sparse gradients must hold each row once, in ascending order, as
    :class:`sklearn_din.network.embeddings.FieldEmbeddings` makes them.

    params, lr, betas, eps : as for Adam. For a table, (n_ids, dim), ``lr`` is about how far a row
        moves whose gradient is as large as is typical of its vocabulary
    starts : (n_vocabularies,), int64, first row of each vocabulary in the group's table, in
        ascending order. None: the table is one vocabulary
    decay : (n_ids,), factor of each row's mini-batch aware L2 (paper, section 5.1):
        ``decay[j] * w[j]`` is added to the gradient of each row j in the batch. None: nothing is

    >>> table = torch.nn.Parameter(torch.zeros(4, 2))
    >>> optimizer = RowwiseAdam([table], lr=0.1)
    >>> gradient = torch.ones(1, 2)
    >>> table.grad = torch.sparse_coo_tensor([[2]], gradient, (4, 2), check_invariants=True)
    >>> optimizer.step()
    >>> [round(value, 4) for value in table[2].tolist()]
    [-0.1, -0.1]
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        starts: Tensor | None = None,
        decay: Tensor | None = None,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "starts": starts, "decay": decay}
        super().__init__(params, options)

    # torch wraps these for torch.compile, and the first call spends over a second on importing the
    # compiler. Nothing here is compiled, so the unwrapped functions do.
    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of another optimizer; ValueError where it has other sizes."""
        for saved, group in zip(state_dict["param_groups"], self.param_groups, strict=False):
            starts = saved.get("starts")
            n_vocabularies = (1 if starts is None else len(starts),)
            for number, parameter in zip(saved["params"], group["params"], strict=False):
                sizes = dict.fromkeys(("exp_avg", "exp_avg_sq"), parameter.shape)
                sizes |= dict.fromkeys(("total", "share"), n_vocabularies)
                sizes |= {"square": parameter.shape[:1], "step": ()}
                for name, moment in state_dict["state"].get(number, {}).items():
                    if moment.shape != (needed := sizes.get(name, moment.shape)):
                        raise ValueError(
                            "an optimizer's state must have the sizes of its parameters: "
                            f"{name} needs {tuple(needed)}, got {tuple(moment.shape)}. Load that "
                            "of the same network."
                        )
        unwrap(torch.optim.Optimizer.load_state_dict)(self, state_dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or set them to zero, as torch does."""
        for parameter in chain(*(group["params"] for group in self.param_groups)):
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad = torch.zeros_like(parameter.grad)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; return what the closure returns."""
        update = type(self)._update
        if self.has_hooks:
            update = self.profile_hook_step(update)
        return update(self, closure)

    # Else torch itself wraps ``step`` so, for its profiler, where no hook waits: 2 % of a training.
    step.hooked = True  # type: ignore[attr-defined]

    @property
    def has_hooks(self) -> bool:
        """Return whether some function waits for each step, or stands in its place."""
        own = [vars(self).get(name) for name in (*HOOKS, "step")]
        return any((*own, _global_optimizer_pre_hooks, _global_optimizer_post_hooks))

    @torch.no_grad()
    def _update(self, closure: Callable[[], Any] | None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        parameters = list(chain(*(group["params"] for group in self.param_groups)))
        gradients = {p: p.grad for p in parameters if p.grad is not None}
        if not gradients:
            return loss
        sparse = {p: gradient for p, gradient in gradients.items() if gradient.is_sparse}
        dense = {p: gradient for p, gradient in gradients.items() if p not in sparse}
        if self.prepare([*dense], [*sparse]).take([*dense.values()], [*sparse.values()]):
            return loss
        for group in self.param_groups:
            for table in [p for p in group["params"] if p in sparse]:
                self._update_rows(table, sparse[table], group)
            self._update_dense([p for p in group["params"] if p in dense], group)
        return loss

    def prepare(self, dense: Sequence[Tensor], tables: Sequence[Tensor]) -> NativeUpdate:
        """Return a step by native code on parameters with dense gradients, and with sparse ones."""
        group_of = {id(p): group for group in self.param_groups for p in group["params"]}
        groups = [group_of[id(parameter)] for parameter in (*dense, *tables)]
        starts = [_starts_of(group) for group in groups[len(dense) :]]
        for parameter in dense:
            self._begin(parameter, step=(), exp_avg=parameter.shape, exp_avg_sq=parameter.shape)
        for table, of in zip(tables, starts, strict=True):
            self._begin(table, square=table.shape[:1], total=of.shape, share=of.shape)
        states = [self.state[parameter] for parameter in (*dense, *tables)]
        return NativeUpdate(dense, tables, states=states, groups=groups, starts=starts)

    def _begin(self, parameter: Tensor, **shapes: Sequence[int]) -> None:
        """Give a parameter without moments those of such shapes."""
        state = self.state[parameter]
        for name, shape in {} if state else shapes.items():
            dtype = torch.float32 if name == "step" else parameter.dtype
            state[name] = torch.zeros(shape, dtype=dtype, device=parameter.device)

    def _update_dense(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[parameter] for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        means, squares = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        adam(
            parameters,
            gradients,
            means,
            squares,
            [],
            [state["step"] for state in states],
            # The fused kernel reads and writes numbers as they lie, whatever the strides are.
            fused=all(t.is_contiguous() for t in (*parameters, *gradients, *means, *squares)),
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )

    def _update_rows(self, table: Tensor, sparse: Tensor, group: dict[str, Any]) -> None:
        state, beta, starts = self.state[table], group["betas"][1], _starts_of(group)
        rows, gradient = sparse._indices()[0], sparse._values()
        values = table.index_select(0, rows)
        if group["decay"] is not None:
            decay = group["decay"].index_select(0, rows)
            gradient = torch.addcmul(gradient, values, decay.unsqueeze(1))
        latest = (gradient * gradient).mean(1)
        typical = _typical_square(latest, rows, starts, state, beta)
        square = state["square"].index_select(0, rows).lerp_(latest, 1 - beta)
        state["square"].index_copy_(0, rows, square)
        denominator = square.add_(typical).sqrt_().add_(group["eps"]).unsqueeze(1)
        table.index_copy_(0, rows, values.addcdiv_(gradient, denominator, value=-group["lr"]))


def _starts_of(group: dict[str, Any]) -> Tensor:
    """Return the first row of each vocabulary in a group's table."""
    starts: Tensor | None = group["starts"]
    if starts is None:
        return torch.zeros(1, dtype=torch.int64, device=group["params"][0].device)
    return starts


def optimizer_of(module: DIN, *, lr: float, embedding_lr: float | None) -> RowwiseAdam:
    """Return the optimizer of a network: a group of dense parameters, then one for each table."""
    embeddings = module.embeddings
    groups: list[dict[str, Any]] = [{"params": list(dense_parameters(module).values())}]
    for width, table in embeddings.tables.items():
        groups.append({"params": [table], "starts": embeddings.starts(width).to(table.device)})
    optimizer = RowwiseAdam(groups, lr=lr)
    set_rates(optimizer, lr=lr, embedding_lr=embedding_lr)
    return optimizer


def dense_parameters(module: DIN) -> dict[str, Tensor]:
    """Return all parameters but the embedding tables, by name."""
    tables = {id(table) for table in module.embeddings.tables.values()}
    return {n: p for n, p in module.named_parameters() if id(p) not in tables}


def check_groups(optimizer: torch.optim.Optimizer, module: DIN) -> None:
    """Raise unless the groups are as those of :func:`optimizer_of`, which a callback replaced."""
    tables, (_, *groups) = [*module.embeddings.tables.values()], optimizer.param_groups
    if [[*map(id, group["params"])] for group in groups] != [[id(table)] for table in tables]:
        raise ValueError(
            f"an optimizer needs {1 + len(tables)} groups of parameters, the dense ones and then "
            f"one for each embedding table, in order, and the {type(optimizer).__name__} that a "
            f"callback has set has {1 + len(groups)}. Take them over: [{{'params': "
            "group['params']} for group in net.optimizer_.param_groups]."
        )


def set_rates(optimizer: RowwiseAdam, *, lr: float, embedding_lr: float | None) -> None:
    """Give an optimizer the rates of the parameters."""
    dense, *tables = optimizer.param_groups
    dense["lr"] = dense["initial_lr"] = lr  # the latter for schedules that are resumed
    for group in tables:
        group["lr"] = group["initial_lr"] = embedding_lr or lr


def set_decay(optimizer: RowwiseAdam, module: DIN, decay: Mapping[str, np.ndarray] | None) -> None:
    """Give the tables of an optimizer the factors of their L2, by vocabulary."""
    tables = module.embeddings.tables.items()
    for (width, table), group in zip(tables, optimizer.param_groups[1:], strict=False):
        group["decay"] = None
        if decay is not None:
            names = module.embeddings.vocabularies_of(width)
            factors = np.concatenate([decay[name] for name in names])
            group["decay"] = torch.from_numpy(factors).to(table.device)


def _typical_square(
    latest: Tensor, rows: Tensor, starts: Tensor, state: dict[str, Tensor], beta: float
) -> Tensor:
    """Second moment of the vocabulary that each row belongs to: one number per row of the batch.

    ``total`` is the moving average over batches of its rows' mean square, zero where a batch has
    none of its rows, ``share`` that of 1 and 0; their ratio is the average over batches that have
    some.
    """
    first = torch.searchsorted(rows, starts)
    counts = F.pad(first, (0, 1), value=len(rows)).diff()
    # With the built-in checks of the counts, or an unknown output length, the host would wait for
    # the GPU.
    sums = torch.segment_reduce(latest, "sum", lengths=counts, unsafe=True)
    mean = sums / counts.clamp(min=1)
    state["total"].lerp_(mean, 1 - beta)  # zero for a vocabulary without rows in this batch
    state["share"].lerp_((counts > 0).to(mean.dtype), 1 - beta)
    typical = state["total"] / state["share"].clamp(min=1 - beta)
    return typical.repeat_interleave(counts, output_size=len(rows))
