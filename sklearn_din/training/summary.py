"""Text summary of a network: columns, behaviours, layers, number of parameters."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from torch import nn

from sklearn_din.features.schema import KINDS, Field, Schema
from sklearn_din.module import DIN
from sklearn_din.native.logits import engine_text
from sklearn_din.neighbours.pairs import LEAST_ITEMS, histories_with_candidate
from sklearn_din.network.interest import Interest
from sklearn_din.utils.text_table import text_table

if TYPE_CHECKING:
    from sklearn_din.training.net import DINNet

NORMALIZATIONS = {None: "", "sqrt": ", / sqrt(length)", "softmax": ", softmax"}


def summarize(classifier: Any) -> str:
    """Return what ``DINClassifier.summary`` shows of a fitted classifier."""
    module: DIN = classifier.module_
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
    tables = [text_table(("column", "kind", "vocabulary", "ids", "width"), columns, numbers=(3, 4))]
    if schema.behaviours:
        rows = [_behaviour(interest, module) for interest in module.interest_modules]
        tables.append(text_table(("behaviour", "compared with", "becomes interest by"), rows))
    parts = [*learnt_parts(module), ("total", "", n_parameters(module))]
    rows = [(title, layers, f"{size:,}") for title, layers, size in parts]
    tables.append(text_table(("part", "layers", "parameters"), rows, numbers=(2,)))
    tables.append(engine_text(module))
    tables.append(neighbours_text(schema, classifier.net_))
    tables += [part.describe() for part in classifier.net_.neighbours_.parts]
    if classifier.net_.mixture_ is not None:
        tables.append(classifier.net_.mixture_.describe())
    target = classifier._target
    if target.click_name and hasattr(target, "classes"):
        tables.append(f"click: {target.click_name}, of the labels {target.classes.tolist()}")
    return "\n\n".join(filter(None, tables))


def neighbours_text(schema: Schema, net: DINNet) -> str:
    """Return for which candidates a network has item neighbours, or why none."""
    pairs = net.neighbours_.pairs
    if not schema.behaviours:
        return ""
    if pairs:
        found = dict.fromkeys((pair.candidate, pair.what_is_off) for pair in pairs)
        texts = [f"for {name} ({off})" if off else f"for {name}" for name, off in found]
        return f"item neighbours: {', '.join(texts)}"
    why = "neither user nor time is named, HistorySequenceEncoder(user=..., time=...)"
    if not histories_with_candidate(schema):
        why = f"no history has a candidate with {LEAST_ITEMS} ids or more"
    elif net.neighbours is None:
        why = "neighbours=None"
    elif net.is_published:
        why = 'interest="paper" has none unless neighbours names an order'
    return f"item neighbours: off, {why}"


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
