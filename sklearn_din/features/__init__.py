"""Encoded rows, from the encoder to the classifier: a schema, id arrays and ragged histories."""

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import (
    FIRST_KNOWN_ID,
    PADDING_ID,
    UNKNOWN_ID,
    Behaviour,
    Field,
    Kind,
    Schema,
)

__all__ = [
    "FIRST_KNOWN_ID",
    "PADDING_ID",
    "UNKNOWN_ID",
    "Behaviour",
    "EncodedFeatures",
    "Field",
    "Kind",
    "Ragged",
    "Schema",
]
