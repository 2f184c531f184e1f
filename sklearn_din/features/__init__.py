"""Encoded rows, the encoder's output: a schema, id arrays and ragged histories."""

from sklearn_din.features.encoded import EncodedFeatures as EncodedFeatures
from sklearn_din.features.ragged import Ragged as Ragged
from sklearn_din.features.schema import FIRST_KNOWN_ID as FIRST_KNOWN_ID
from sklearn_din.features.schema import PADDING_ID as PADDING_ID
from sklearn_din.features.schema import UNKNOWN_ID as UNKNOWN_ID
from sklearn_din.features.schema import Behaviour as Behaviour
from sklearn_din.features.schema import Field as Field
from sklearn_din.features.schema import Kind as Kind
from sklearn_din.features.schema import Schema as Schema
