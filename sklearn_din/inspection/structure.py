"""What a network is made of, as data: its behaviours, its layers, the size of what it learns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, cast

from torch import nn

from sklearn_din.module import DIN
from sklearn_din.network.interest import Interest


class Layers(NamedTuple):
    """Linear layers that follow each other.

    Parameters
    ----------
    widths : tuple of int
        Width of the input, of each hidden layer and of the output, in the order of the data.
    activation : str, default=""
        Name of the class between the layers; empty where there is none.
    """

    widths: tuple[int, ...]
    activation: str = ""


class Table(NamedTuple):
    """The embeddings of one vocabulary.

    Parameters
    ----------
    n_ids : int
        Rows of the table; padding and unknown have one each.
    width : int
        Numbers per row.
    """

    n_ids: int
    width: int


class Part(NamedTuple):
    """A part of the network that has parameters of its own.

    Parameters
    ----------
    title : str
        What people read: "embedding of item".
    layers : Layers or Table
        What the part consists of.
    n_parameters : int
        How many numbers it learns.
    """

    title: str
    layers: Layers | Table
    n_parameters: int


class EventPooling(NamedTuple):
    """How the events of one behaviour become one vector.

    Parameters
    ----------
    pooling : {"attention", "sum", "mean", "max"}
        "attention" weighs each event by the candidate; the others treat all events alike.
    normalization : {None, "sqrt", "softmax"}
        What a sum is divided by. None for "mean" and "max", which know no normalization.
    """

    pooling: str
    normalization: str | None


def learnt_parts(module: DIN) -> list[Part]:
    """List the parts of the network: embedding tables, activation units, the MLP.

    Every parameter of the network belongs to exactly one part.
    """
    tables = {
        name: Table(n_ids, module.embeddings.width_of[name])
        for name, n_ids in module.embeddings.sizes.items()
    }
    parts = [
        Part(f"embedding of {name}", table, table.n_ids * table.width)
        for name, table in tables.items()
    ]
    for interest in interests_of(module):
        if interest.pooling == "attention":
            title = f"attention of {module.schema.display_name(interest.behaviour)}"
            parts.append(Part(title, layers_of(interest.unit), n_parameters(interest.unit)))
    size = n_parameters(module.mlp) + n_parameters(module.output)
    return [*parts, Part("MLP", mlp_layers(module), size)]


def interests_of(module: DIN) -> list[Interest]:
    """Return the interest modules, one per behaviour, in the order of the schema."""
    return list(cast("Iterable[Interest]", module.interests))


def mlp_layers(module: DIN) -> Layers:
    """Return the layers from the joined inputs to the logit."""
    return layers_of(nn.ModuleList([module.mlp, module.output]))


def layers_of(part: nn.Module) -> Layers:
    """Return widths and activation of the linear layers, in the order of the data.

    Examples
    --------
    >>> from sklearn_din.network.layers import MLP
    >>> layers_of(MLP(4, (8, 2), activation="dice"))
    Layers(widths=(4, 8, 2), activation='Dice')
    """
    linear = [layer for layer in part.modules() if isinstance(layer, nn.Linear)]
    widths = (linear[0].in_features, *(layer.out_features for layer in linear))
    others = [m for m in part.modules() if not list(m.children()) and m not in linear]
    activations = [type(m).__name__ for m in others if not isinstance(m, nn.Dropout)]
    return Layers(widths, activations[0] if activations else "")


def pooling_of(interest: Interest) -> EventPooling:
    """Return how a behaviour's events become one vector."""
    is_sum = interest.pooling in ("attention", "sum")
    return EventPooling(interest.pooling, interest.normalization if is_sum else None)


def n_parameters(part: nn.Module) -> int:
    """Count the numbers that are learnt."""
    return sum(parameter.numel() for parameter in part.parameters())
