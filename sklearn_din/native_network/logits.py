"""Logits of a batch and their gradients in native code: ``module(batch)``, faster."""

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sklearn_din.module import DIN, compute_alone_if_forked
from sklearn_din.native.structures import LOSSES, UNKNOWN_ID, WHICH, load_library, why_missing
from sklearn_din.native_network.coverage import are_plain, may_compute, not_covered
from sklearn_din.native_network.optimizer import NativeUpdate
from sklearn_din.native_network.plan import Plan, plan_of
from sklearn_din.network.batch import Batch
from sklearn_din.network.embeddings import sparse_gradient
from sklearn_din.network.interest import likeness_of_lists
from sklearn_din.utils.warnings import ADVICE_FROM, log_once

n_native_threads: ContextVar[int | None] = ContextVar("n_native_threads", default=None)
_team: ContextVar[int] = ContextVar("_team", default=0)  # the library's, of so many threads


@contextmanager
def use_native_threads(n_threads: int) -> Iterator[None]:
    """Have the native code compute with so many threads, which live as long as the block."""
    library = load_library()
    team = library.din_open_team(n_threads) if n_threads > 1 and library is not None else 0
    tokens = n_native_threads.set(n_threads), _team.set(team)
    try:
        yield
    finally:
        n_native_threads.reset(tokens[0])
        _team.reset(tokens[1])
        if team:
            library.din_close_team(team)


def logits_of(module: DIN, batch: Batch) -> Tensor:
    """Return ``module(batch)``, to rounding, by the native code where it covers the network."""
    found = _plan_for(module, batch)
    if found is None:
        return module(batch)
    call = _Call(batch, module, *found)
    if torch.is_grad_enabled():
        return module.add_favours(_Logits.apply(call, *call.parameters), batch)
    return module.add_favours(call.forward(), batch)


def add_gradients(module: DIN, batch: Batch, y: Tensor, loss: str) -> tuple[Tensor, Tensor] | None:
    """Give the parameters the gradients of a mean loss in one pass; return the loss and the logits.

    ``loss`` of ``y`` is "log" or "squares". None where torch must compute: where rows have
    positions, somebody waits for gradients, layers share a parameter, or a field holds lists.
    """
    found = _plan_for_loss(module, batch, y)
    if found is None:
        return None
    call = _Call(batch, module, *found)
    value, logits, gradients = call.gradients(loss, y, batch.weights, batch.n_joint_rows)
    for parameter, gradient in zip(call.parameters, gradients, strict=True):
        parameter.grad = gradient
    return value, logits


class NativeSteps:
    """Steps of a training: what ``add_gradients`` and then the optimizer do, in one native call.

    Nothing moves where the loss is not finite. Until the last step nobody else may change the parts
    of the network or replace the optimizer's moments.
    """

    def __init__(
        self, module: DIN, plan: Plan, parameters: Sequence[Tensor], update: NativeUpdate, loss: str
    ) -> None:
        self._of_calls, self._update, self._loss = (module, plan, parameters), update, loss
        # And torch's random state before and after it
        self._ahead: tuple[Batch, _Call, Tensor, Tensor] | None = None

    @classmethod
    def begin(
        cls,
        module: DIN,
        batch: Batch,
        y: Tensor,
        loss: str,
        prepare: Callable[[Sequence[Tensor], Sequence[Tensor]], NativeUpdate],
    ) -> "NativeSteps | None":
        """Return the steps of a training that has such batches; None where torch must help."""
        found = _plan_for_loss(module, batch, y)
        if found is None:
            return None
        plan, parameters = found
        n_tables = len(module.embeddings.tables)
        update = prepare(parameters[n_tables:], parameters[:n_tables])
        return cls(module, plan, parameters, update, loss) if update.is_covered else None

    def take(self, batch: Batch, y: Tensor) -> tuple[Tensor, Tensor]:
        """Take a step; return its loss and the logits before it."""
        call, updates = self._call_for(batch), self._update.prepare()
        given = self._loss, y, batch.weights, batch.n_joint_rows
        value, logits = call.run_backward(*given, updates=updates, ahead=self._prepare)
        self._update.note()
        return value, logits

    def _call_for(self, batch: Batch) -> "_Call":
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] is batch and not ahead[1].has_moved():
            _, call, before, after = ahead
            if torch.equal(torch.random.get_rng_state(), before):  # no callback has drawn
                torch.random.set_rng_state(after)
                return call
        return _Call(batch, *self._of_calls)

    def _prepare(self, batch: Batch) -> None:
        """Prepare the next step; what it draws counts as drawn when the step is taken."""
        with torch.random.fork_rng(devices=[]):
            before, call = torch.random.get_rng_state(), _Call(batch, *self._of_calls)
            self._ahead = batch, call, before, torch.random.get_rng_state()


def _plan_for_loss(module: DIN, batch: Batch, y: Tensor) -> tuple[Plan, Sequence[Tensor]] | None:
    of_more = bool(module.options["position_shares"] or batch.lists)
    found = None if of_more else _plan_for(module, batch)
    if found is None or any(
        p.grad is not None or p._backward_hooks or p._post_accumulate_grad_hooks for p in found[1]
    ):
        return None
    if len({*map(id, found[1])}) < len(found[1]):  # of tied weights: added up
        return None
    labels = [y] if batch.weights is None else [y, batch.weights]
    if not are_plain(labels) or any(t.shape != (batch.n_rows,) for t in labels):
        return None
    return found


def _plan_for(module: DIN, batch: Batch) -> tuple[Plan, Sequence[Tensor]] | None:
    plan = plan_of(module) if load_library() is not None and may_compute(batch) else None
    parameters = None if plan is None else plan.parameters()
    if plan is None or parameters is None:
        return None
    compute_alone_if_forked()
    return plan, parameters


def engine_text(module: nn.Module) -> str:
    """Return what computes a network, and why it is not the native code."""
    missing = not_covered(module)
    if missing:
        return f"computed by: torch ({missing} has no native code)"
    return f"computed by: {'native code' if load_library() else f'torch ({_not_compiled()})'}"


def advise_to_compile(module: nn.Module, n_rows: int) -> None:
    """Log once how to train faster, where that is by compiling and the user did not choose it."""
    is_chosen = os.environ.get(WHICH) == "0"
    if (
        n_rows >= ADVICE_FROM
        and not is_chosen
        and load_library() is None
        and not not_covered(module)
    ):
        log_once(f"networks are computed by torch: {_not_compiled()}.")


def _not_compiled() -> str:
    if os.environ.get(WHICH) == "0":
        return f"the environment variable {WHICH} is 0"
    why, state = why_missing(), "is not compiled. Install a C++ compiler"
    if why:
        state = f"could not be compiled or loaded: {why}. Solve that"
    command = '"python -m sklearn_din.native.build"'
    return f"the native code {state}, then run {command}: fits take about a quarter of the time"


class _Logits(torch.autograd.Function):
    """The whole network as one node of autograd, whose inputs are the parameters."""

    @staticmethod
    def forward(ctx: Any, call: "_Call", *parameters: Tensor) -> Tensor:
        ctx.call = call
        return call.forward()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logits: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.call.gradients("given", grad_logits)[2])


class _StepOfThreads:
    """A step of threads; it holds all memory that they use until it has ended."""

    _step: ctypes.c_void_p | None = None

    def begin(self, *held: Any) -> None:
        call, logits, gradients = self._held = held
        library, words, step = load_library(), call.words, ctypes.c_void_p()
        self._end, self._step = library.din_end, step
        to = logits.data_ptr(), gradients.data_ptr(), ctypes.addressof(step)
        library.din_begin(words.ctypes.data, *to)

    def end(self) -> int:
        """Compute what is left; a second call does nothing."""
        return 0 if self._step is None else self._end(ctypes.addressof(self._step))

    __del__ = end  # where a second Ctrl-C has come before ``end``


class _Call:
    """Passes over one batch; it holds what they point to."""

    def __init__(self, batch: Batch, module: DIN, plan: Plan, parameters: Sequence[Tensor]) -> None:
        self._plan, self._batch = plan, batch
        self._ids = batch.identities | {n: of.at.int() for n, of in batch.lists.items()}
        means = module.embeddings.means_of(batch.lists) if plan.lists else {}
        own_numbers, compared = dict[str, Tensor](), dict[str, tuple[Tensor, Tensor]]()
        for interest in module.interest_modules:
            numbers = interest.numbers_of(batch)
            own_numbers |= zip(interest.behaviour.numbers, numbers, strict=True)
            pairs = interest.compare_numbers(batch)
            compared |= zip(interest.compared_numbers, pairs, strict=True)
        self._likeness = [
            likeness_of_lists(batch, *names) if names[-1] else compared[names[1]][1]
            for names in plan.compared
        ]
        self._event_numbers = [
            compared[name][0] if is_compared else own_numbers[name]
            for name, is_compared in plan.event_numbers
        ]
        self._n_own = own = len(module.embeddings.tables)
        self.parameters = [
            *parameters[:own],
            *[means[name] for name in plan.lists],
            *parameters[own:],
        ]
        self._numbers = module._numbers(batch) if module.of_numbers else batch.numbers
        self._offsets = module.offsets_of(batch)
        self._n_threads = n_native_threads.get() or torch.get_num_threads()
        self._empty = parameters[0].new_empty  # whatever torch's default dtype and device are
        self._places = [parameter.data_ptr() for parameter in self.parameters]
        offsets = batch.offsets.values()
        self.words = plan.words.copy()
        self.words[plan.inputs] = [
            *[self._ids[name].data_ptr() for name in plan.names],
            *[len(means[name]) for name in plan.names if name in means],
            *[values.data_ptr() for values in self._likeness],
            *[tensor.data_ptr() for tensor in offsets],
            *[batch.shared and tensor.shape[0] == 2 for tensor in offsets],
            *[values.data_ptr() for values in self._event_numbers],
            *self._places,
            self._numbers.data_ptr(),
            0 if self._offsets is None else self._offsets.data_ptr(),
            *(batch.n_rows, self._n_threads, _team.get()),
        ]
        self.words[plan.pointers] = self.words.ctypes.data + plan.distances

    def has_moved(self) -> bool:
        """Return whether a parameter lies elsewhere by now."""
        return self._places != [parameter.data_ptr() for parameter in self.parameters]

    def forward(self) -> Tensor:
        """Return the logits: (n_rows,)."""
        logits = self._empty(self._batch.n_rows)
        self._run(logits, None)
        return logits

    def gradients(
        self, loss: str, targets: Tensor, weights: Tensor | None = None, n_joint_rows: int = 1
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return loss, logits and gradients; of a "given" loss, targets are those of logits."""
        plan = self._plan
        step = self.run_backward(loss, targets, weights, n_joint_rows)
        tables, (rows, values, flat, _) = self.parameters[: len(plan.names_of_table)], self._held
        touched = zip(tables, rows, values, self.words[plan.n_touched].tolist(), strict=True)
        sparse = [sparse_gradient(r[:n], v[:n], table.shape) for table, r, v, n in touched]
        of_lists = [gradient.to_dense() for gradient in sparse[self._n_own :]]
        shapes = plan.shapes[self._n_own :]
        dense = map(Tensor.view, flat.split(plan.n_weights), shapes)
        return *step, [*sparse[: self._n_own], *of_lists, *dense]

    def run_backward(
        self,
        loss: str,
        targets: Tensor,
        weights: Tensor | None,
        n_joint_rows: int,
        *,
        updates: int = 0,
        ahead: Callable[[Batch], object] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return loss and logits; ``updates`` is an address or 0, ``ahead`` gets the next batch."""
        plan = self._plan
        tables = self.parameters[: len(plan.names_of_table)]
        n_ids = [sum([self._ids[n].shape[0] for n in names]) for names in plan.names_of_table]
        rows = [self._empty(n, dtype=torch.int64) for n in n_ids]
        values = [self._empty(n, table.shape[1]) for n, table in zip(n_ids, tables, strict=True)]
        flat = self._empty(sum(plan.n_weights))
        given = targets.contiguous(), None if weights is None else weights.contiguous()
        self.words[plan.outputs] = [
            *[tensor.data_ptr() for tensor in (*rows, *values)],
            *[0 if tensor is None else tensor.data_ptr() for tensor in given],
            *(LOSSES[loss], n_joint_rows, updates),
        ]
        logits = self._empty(self._batch.n_rows + 1)
        self._held = rows, values, flat, given  # as long as threads may use them
        self._run(logits, flat, ahead)
        return logits[-1], logits[:-1]

    def _run(
        self,
        logits: Tensor,
        gradients: Tensor | None,
        ahead: Callable[[Batch], object] | None = None,
    ) -> None:
        if self._n_threads == 1 or gradients is None:
            to = None if gradients is None else gradients.data_ptr()
            code = load_library().din_run(self.words.ctypes.data, logits.data_ptr(), to)
        else:
            step = _StepOfThreads()
            try:
                step.begin(self, logits, gradients)
                following = self._batch.look_ahead and self._batch.look_ahead()
                if ahead is not None and following is not None:
                    ahead(following)
            finally:
                code = step.end()
        if code != UNKNOWN_ID:
            return
        for name, n_ids in zip(self._plan.names, self._plan.n_ids, strict=True):
            ids = self._ids[name]
            if name not in self._batch.lists and len(ids) and int(ids.max()) >= n_ids:
                raise IndexError(
                    f"{name} must lie in range(0, {n_ids}), got {int(ids.max())}. Was the encoder "
                    "fitted on another catalogue?"
                )
