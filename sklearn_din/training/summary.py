"""Text summary of a fit: its automatic decisions, columns, behaviours, layers and parameters."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from torch import nn

from sklearn_din.features.schema import KINDS, Field
from sklearn_din.module import DIN
from sklearn_din.native_network.logits import engine_text
from sklearn_din.network.interest import Interest
from sklearn_din.training.decisions import decisions_table
from sklearn_din.utils.text_table import text_table

NORMALIZATIONS = {None: "", "sqrt": ", / sqrt(length)", "softmax": ", softmax"}


def summarize(classifier: Any) -> str:
    """Return what ``DINClassifier.summary`` shows of a fitted classifier."""
    module: DIN = classifier.module_
    tables = [decisions_table(classifier.net_)]
    schema = module.schema
    columns: list[tuple[str, ...]] = []
    for candidate, fields in groupby(schema.fields, lambda field: field.candidate):
        names = [field.name for field in fields]
        if candidate:
            size = str(len(names))
            columns.append((f"neighbours of {candidate}", f"{size} numbers", "", "", size))
            continue
        columns += [_column(schema[name], module) for name in names]
    columns += [(name, "not used", "", "", "") for name in schema.unused]
    header = "column", "kind", "vocabulary", "ids", "width"
    tables.append(text_table(header, columns, numbers=(3, 4)))
    if schema.behaviours:
        rows = [_behaviour(interest, module) for interest in module.interest_modules]
        tables.append(text_table(("behaviour", "compared with", "becomes interest by"), rows))
    parts = [*learnt_parts(module), ("total", "", n_parameters(module))]
    rows = [(title, layers, f"{size:,}") for title, layers, size in parts]
    tables.append(text_table(("part", "layers", "parameters"), rows, numbers=(2,)))
    tables.append(engine_text(module))
    tables += [part.describe() for part in classifier.net_.neighbours_.parts]
    if classifier.net_.mixture_ is not None:
        tables.append(classifier.net_.mixture_.describe())
    target = classifier._target
    if target.click_name and hasattr(target, "classes"):
        tables.append(f"click: {target.click_name}, of the labels {target.classes.tolist()}")
    return "\n\n".join(filter(None, tables))


def _column(field: Field, module: DIN) -> tuple[str, ...]:
    of_ids = "", "", "1"
    if field.has_ids:
        of_ids = field.vocabulary, f"{field.n_ids:,}", str(module.embeddings.width(field.name))
    return field.name, KINDS[field.kind], *of_ids


def learnt_parts(module: DIN) -> list[tuple[str, str, int]]:
    """Return title, layers and number of parameters of all parts of a network."""
    embeddings = module.embeddings
    parts = []
    for name, n_ids in embeddings.sizes.items():
        width = embeddings.width_of[name]
        parts.append((f"embedding of {name}", f"{n_ids:,} x {width}", n_ids * width))
    for name, projection in embeddings.projections.items():
        n_dims, width = projection.shape
        parts.append((f"vectors of {name}", f"{n_dims} -> {width}", n_dims * width))
    for interest in module.interest_modules:
        if interest.weighs:
            title = f"attention of {module.schema.display_name(interest.behaviour)}"
            unit = interest.unit
            parts.append((title, layers_text(unit), n_parameters(unit)))
    mlp = nn.ModuleList([module.mlp, module.output])
    return [*parts, ("MLP", layers_text(mlp), n_parameters(mlp))]


def layers_text(part: nn.Module) -> str:
    """Return widths and activation of linear layers; those that do not continue, behind a comma."""
    linear = [layer for layer in part.modules() if isinstance(layer, nn.Linear)]
    text, width = "", 0
    for layer in linear:
        starts = ", " * bool(text) + str(layer.in_features) if layer.in_features != width else ""
        text, width = f"{text}{starts} -> {layer.out_features}", layer.out_features
    others = [m for m in part.modules() if not list(m.children()) and m not in linear]
    activations = [type(m).__name__ for m in others if not isinstance(m, nn.Dropout)]
    return text + "".join(f" ({name})" for name in activations[:1])


def n_parameters(part: nn.Module) -> int:
    """Count the numbers that are learnt."""
    return sum(parameter.numel() for parameter in part.parameters())


def _behaviour(interest: Interest, module: DIN) -> tuple[str, ...]:
    behaviour, schema = interest.behaviour, module.schema
    candidates = [candidate for candidate in behaviour.candidates if candidate is not None]
    pooling = interest.pooling + NORMALIZATIONS[interest.divisor]
    return (
        "+".join((schema.display_name(behaviour), *behaviour.numbers)),
        ", ".join(candidates) or "nothing",
        f"{pooling}, newest {behaviour.max_length} events",
    )
