"""Encoded rows, the encoder's output: a schema, id arrays and ragged histories.

- ``encoded``: EncodedFeatures, which the encoder returns and the classifier reads. ``store`` keeps
  its arrays in files, ``event_table`` shows one number per event as a table.
- ``schema``: what each array means (fields and behaviours). ``identities``: negative ids, which
  stand for different unknown values.
- ``ragged``: histories as windows over shared event columns; ``lists``: columns of lists of ids;
  ``vectors``: fixed vectors of ids.
- ``level_columns`` and ``request_columns``: names of the columns that a memory or a request adds.
  ``number_ends``: the range of numbers in the training rows.
"""

from sklearn_din.features.encoded import EncodedFeatures as EncodedFeatures
from sklearn_din.features.ragged import Ragged as Ragged
from sklearn_din.features.schema import FIRST_KNOWN_ID as FIRST_KNOWN_ID
from sklearn_din.features.schema import PADDING_ID as PADDING_ID
from sklearn_din.features.schema import UNKNOWN_ID as UNKNOWN_ID
from sklearn_din.features.schema import Behaviour as Behaviour
from sklearn_din.features.schema import Field as Field
from sklearn_din.features.schema import Kind as Kind
from sklearn_din.features.schema import Schema as Schema
