"""A fitted network as text: its columns, its behaviours, the size of its parts."""

from __future__ import annotations

from collections.abc import Sequence

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from sklearn_din.features.schema import Field
from sklearn_din.inspection.structure import (
    Layers,
    Table,
    interests_of,
    learnt_parts,
    n_parameters,
    pooling_of,
)
from sklearn_din.module import DIN
from sklearn_din.network.interest import Interest

KINDS = {
    "numeric": "number",
    "categorical": "id",
    "history": "history of ids",
    "numeric_history": "history of numbers",
}
NORMALIZATIONS = {None: "", "sqrt": ", / sqrt(length)", "softmax": ", softmax"}


def summarize(classifier: BaseEstimator) -> str:
    """Describe a fitted DINClassifier: columns, behaviours, layers and parameters.

    Parameters
    ----------
    classifier : DINClassifier
        Fitted. Of a Pipeline, its last step.

    Returns
    -------
    str
        Three tables. ``ids`` counts padding and unknown too. Columns that are "not used" are dates,
        and histories that the encoder's ``histories`` does not name.

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
            [
                *(_field(field, module) for field in module.schema.fields),
                *((name, "not used", "", "", "") for name in module.schema.unused),
            ],
            numbers=(3, 4),
        )
    ]
    if module.schema.behaviours:
        rows = [_behaviour(interest, module) for interest in interests_of(module)]
        tables.append(_aligned(("behaviour", "compared with", "becomes interest by"), rows))
    parts = [
        (part.title, _layers(part.layers), f"{part.n_parameters:,}")
        for part in learnt_parts(module)
    ]
    total = ("total", "", f"{n_parameters(module):,}")
    tables.append(_aligned(("part", "layers", "parameters"), [*parts, total], numbers=(2,)))
    return "\n\n".join(tables)


def _field(field: Field, module: DIN) -> tuple[str, ...]:
    kind = KINDS[field.kind]
    if not field.has_ids:
        return field.name, kind, "", "", "1"
    width = module.embeddings.width(field.name)
    return field.name, kind, field.vocabulary, f"{field.n_ids:,}", str(width)


def _behaviour(interest: Interest, module: DIN) -> tuple[str, ...]:
    behaviour, schema = interest.behaviour, module.schema
    candidates = [candidate for candidate in behaviour.candidates if candidate is not None]
    how = pooling_of(interest)
    return (
        "+".join((schema.display_name(behaviour), *behaviour.numbers)),
        ", ".join(candidates) or "nothing",
        f"{how.pooling}{NORMALIZATIONS[how.normalization]}, newest {schema.max_length} events",
    )


def _layers(layers: Layers | Table) -> str:
    if isinstance(layers, Table):
        return f"{layers.n_ids:,} x {layers.width}"
    widths = " -> ".join(map(str, layers.widths))
    return f"{widths} ({layers.activation})" if layers.activation else widths


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
