"""The encoder's work as JSON: how a server makes a network's inputs out of plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sklearn_din.features.schema import Behaviour, Field
from sklearn_din.inspection.fitted import FittedPipeline

RECIPE_VERSION = 1


def mask_name(behaviour: Behaviour) -> str:
    """Name of the input that says which positions of a behaviour hold events."""
    return f"{behaviour.histories[0]}_mask"


def recipe_of(fitted: FittedPipeline) -> dict[str, Any]:
    """Return how the ONNX file's inputs are made out of plain values, as values that JSON has.

    Ids that are neither text nor integers nor booleans raise TypeError.
    """
    encoder, schema = fitted.encoder, fitted.classifier.schema_
    scales = encoder.scales_
    inputs, source = [], ""
    computed = {name for pair in fitted.neighbours for name in pair.names}  # in the graph
    for field in schema.fields:
        if field.name in computed:
            continue
        source = field.name if field.name in scales else source  # an indicator follows its column
        inputs.append(_input_recipe(field, scales, source))
    for behaviour in schema.behaviours:
        name = behaviour.histories[0]
        inputs.append({"name": mask_name(behaviour), "kind": "mask", "column": name})
    return {
        "version": RECIPE_VERSION,
        "classes": fitted.classifier.classes_.tolist(),
        "max_length": schema.max_length,
        "separator": encoder.separator,
        "inputs": inputs,
        "vocabularies": {
            field.vocabulary: _plain_values(encoder.vocabularies_[field.name], field.name)
            for field in schema.fields
            if field.has_ids
        },
    }


def _input_recipe(field: Field, scales: Mapping[str, Any], source: str) -> dict[str, Any]:
    recipe: dict[str, Any] = {"name": field.name, "kind": field.kind, "column": field.name}
    if field.has_ids:
        return recipe | {"vocabulary": field.vocabulary}
    if field.name not in scales:
        return recipe | {"kind": "missing", "column": source}
    scale = scales[field.name]
    return recipe | {"shift": scale.shift, "scale": scale.scale, "is_elapsed": scale.is_elapsed}


def _plain_values(values: np.ndarray, name: str) -> list[Any]:
    plain = values.tolist()
    others = [value for value in plain if not isinstance(value, str | int)]  # bool is an int
    if others:
        raise TypeError(
            f"export_onnx writes ids as JSON, which has text, integers and booleans; {name} holds "
            f"{others[0]!r} ({type(others[0]).__name__}). Make the column text, or export the "
            "classifier alone: pipeline[-1]."
        )
    return plain
