"""A fitted network at a glance, as text: its columns, its behaviours, the size of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.utils.validation import check_is_fitted
from torch import nn

from sklearn_din.features.schema import Behaviour, Field
from sklearn_din.module import DIN

KINDS = {
    "numeric": "number",
    "categorical": "id",
    "history": "history of ids",
    "numeric_history": "history of numbers",
}


def summarize(classifier: Any) -> str:
    """Describe a fitted DINClassifier: columns, behaviours, layers and parameters.

    Parameters
    ----------
    classifier : DINClassifier
        Fitted. Of a Pipeline, its last step.

    Returns
    -------
    str
        Three tables. ``ids`` counts padding and unknown too.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_din.estimator import DINClassifier
    >>> classifier = DINClassifier(hidden_units=(4,), max_epochs=1).fit(np.eye(2), [0, 1])
    >>> print(summarize(classifier))
    column  kind    vocabulary  ids  width
    x0      number                       1
    x1      number                       1
    <BLANKLINE>
    part   layers               parameters
    MLP    2 -> 4 -> 1 (PReLU)          18
    total                               18
    """
    if not hasattr(classifier, "attention_weights"):
        raise TypeError(
            f"summarize needs a fitted DINClassifier, got {type(classifier).__name__}. Of a "
            "Pipeline give the last step, pipeline[-1]."
        )
    check_is_fitted(classifier, "module_")
    module = classifier.module_
    tables = [
        _aligned(
            ("column", "kind", "vocabulary", "ids", "width"),
            [_field(field, module) for field in module.schema.fields],
            numbers=(3, 4),
        )
    ]
    if module.schema.behaviours:
        rows = [_behaviour(interest, module) for interest in module.interests]
        tables.append(_aligned(("behaviour", "compared with", "becomes interest by"), rows))
    parts = [*part_sizes(module), ("total", "", n_parameters(module))]
    rows = [(name, layers, f"{size:,}") for name, layers, size in parts]
    tables.append(_aligned(("part", "layers", "parameters"), rows, numbers=(2,)))
    return "\n\n".join(tables)


def part_sizes(module: DIN) -> list[tuple[str, str, int]]:
    """Name, layers and number of parameters of each part that learns."""
    embeddings = module.embeddings
    parts = []
    for name, n_ids in embeddings.sizes.items():
        width = embeddings.width_of[name]
        parts.append((f"embedding of {name}", f"{n_ids:,} x {width}", n_ids * width))
    interests: Any = module.interests
    for interest in interests:
        if hasattr(interest, "unit"):
            name = f"attention of {interest.behaviour.name}"
            parts.append((name, layers_text(interest.unit), n_parameters(interest.unit)))
    size = n_parameters(module.mlp) + n_parameters(module.output)
    parts.append(("MLP", layers_text(nn.ModuleList([module.mlp, module.output])), size))
    return parts


def layers_text(part: nn.Module) -> str:
    """Widths of the linear layers, in the order of the data, and their activation.

    Examples
    --------
    >>> from sklearn_din.network.layers import MLP
    >>> layers_text(MLP(4, (8, 2), activation="dice"))
    '4 -> 8 -> 2 (Dice)'
    """
    linear = _linear_layers(part)
    widths = [linear[0].in_features, *(layer.out_features for layer in linear)]
    others = [m for m in part.modules() if not list(m.children()) and m not in linear]
    activations = [type(m).__name__ for m in others if not isinstance(m, nn.Dropout)]
    return " -> ".join(map(str, widths)) + (f" ({activations[0]})" if activations else "")


def interest_text(interest: Any) -> str:
    """How a behaviour's events become one vector."""
    normalization = {None: "", "sqrt": ", / sqrt(length)", "softmax": ", softmax"}
    is_sum = interest.pooling in ("attention", "sum")
    return interest.pooling + (normalization[interest.normalization] if is_sum else "")


def n_parameters(part: nn.Module) -> int:
    """Count the numbers that are learnt."""
    return sum(parameter.numel() for parameter in part.parameters())


def _linear_layers(part: nn.Module) -> list[nn.Linear]:
    """Linear layers by the way the data go: an activation unit keeps its first apart."""
    linear = [layer for layer in part.modules() if isinstance(layer, nn.Linear)]
    first = getattr(part, "first", None)
    return sorted(linear, key=lambda layer: layer is not first) if first is not None else linear


def _field(field: Field, module: DIN) -> tuple[str, ...]:
    kind = KINDS[field.kind]
    if not field.has_ids:
        return field.name, kind, "", "", "1"
    width = module.embeddings.width(field.name)
    return field.name, kind, field.vocabulary, f"{field.n_ids:,}", str(width)


def _behaviour(interest: Any, module: DIN) -> tuple[str, ...]:
    behaviour: Behaviour = interest.behaviour
    candidates = [candidate for candidate in behaviour.candidates if candidate is not None]
    text = f"{interest_text(interest)}, newest {module.schema.max_length} events"
    return "+".join((behaviour.name, *behaviour.numbers)), ", ".join(candidates) or "nothing", text


def _aligned(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = ()
) -> str:
    table = [header, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
