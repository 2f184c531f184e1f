"""What the native code covers, and when it steps aside: the only list of it."""

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from sklearn_din.module import DIN
from sklearn_din.network.batch import Batch
from sklearn_din.network.embeddings import FieldEmbeddings
from sklearn_din.network.interest import Interest
from sklearn_din.network.layers import MLP, ActivationUnit, PReLU
from sklearn_din.network.number_bins import NumberBins

# Any widths and numbers of layers, several behaviours and attributes, bags, lists of ids, numbers
# of impressions and of events, positions, weights and L2. No module of another type, subclasses
# included: neither Dice, ReLU, dropout and several labels, nor what torch's parametrizations put in
# place of these.
MODULES = {
    *(DIN, FieldEmbeddings, nn.ParameterDict, nn.ModuleList, Interest, ActivationUnit, MLP),
    *(NumberBins, nn.Linear, PReLU, nn.Sigmoid),
}
POOLINGS = {"attention", "sum", "mean"}
NORMALIZATIONS = {None, "sqrt"}
PLAIN = {Tensor, nn.Parameter}
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def not_covered(module: nn.Module) -> str:
    """Return what of a network torch must compute; nothing where the native code covers it."""
    if not isinstance(module, DIN):
        return type(module).__name__
    for part in module.modules():
        if type(part) not in MODULES:
            return type(part).__name__
    for interest in module.interest_modules:
        if interest.pooling not in POOLINGS:
            return f'pooling="{interest.pooling}"'
        if interest.normalization not in NORMALIZATIONS:
            return f'attention_normalization="{interest.normalization}"'
    return "fixed vectors" if module.embeddings.projections else ""


class Watch:
    """The parts of a network as they were when it was found to be covered."""

    def __init__(self, module: DIN) -> None:
        parts = list(module.modules())
        self._parts, self._types = parts[1:], [type(part) for part in parts[1:]]
        self._children = [(part._modules, dict(part._modules)) for part in parts]
        self._hooks = [getattr(part, name) for part in parts for name in HOOKS]
        self._attributes = [vars(part) for part in parts]

    def is_unchanged(self) -> bool:
        """Return whether the network has the same parts, without hooks or functions of others."""
        return (
            not any(self._hooks)
            and [type(part) for part in self._parts] == self._types
            and all(held == children for held, children in self._children)
            and not any("forward" in attributes for attributes in self._attributes)
        )


def may_compute(batch: Batch) -> bool:
    """Return whether torch leaves a batch to others: nothing traces, transforms or casts now."""
    wants_gradients = torch.is_grad_enabled()
    compared = [tensor for own in batch.differences.values() for tensor in own]
    numbers = batch.numbers, *batch.event_numbers.values(), *compared
    return not (
        torch_module._has_any_global_hook()
        or torch.is_autocast_enabled("cpu")
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.jit.is_tracing()
        or torch.compiler.is_compiling()
        or (batch.shared and wants_gradients)
        or not are_plain(numbers)
        or any(values.requires_grad for values in numbers)
    )


def are_plain(tensors: Sequence[Any]) -> TypeGuard[Sequence[Tensor]]:
    """Return whether each tensor's float32 numbers lie one after the other in the host's memory."""
    return all(
        type(t) in PLAIN and t.dtype is torch.float32 and t.is_cpu and t.is_contiguous()
        for t in tensors
    )
