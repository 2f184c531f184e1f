"""Deep Interest Network for click prediction, inside scikit-learn.

A click log goes in as a DataFrame, every impression gets the user's past attached, the encoder
turns columns into ids and masks, the classifier trains a Deep Interest Network on them, and all
of it behaves like any other scikit-learn Pipeline.
"""

from sklearn_din.estimator import DINClassifier
from sklearn_din.features import EncodedFeatures, Field, Schema
from sklearn_din.inspection.display import AttentionDisplay, TrainingDisplay
from sklearn_din.inspection.explain import explain
from sklearn_din.logs.aggregates import attach_aggregates
from sklearn_din.logs.history import HistoryBuilder, attach_history
from sklearn_din.logs.negatives import sample_negatives
from sklearn_din.module import DIN
from sklearn_din.serving.export import export_onnx
from sklearn_din.serving.ranking import rank_candidates
from sklearn_din.transformers import HistorySequenceEncoder

__version__ = "0.1.0"

__all__ = [
    "DIN",
    "AttentionDisplay",
    "DINClassifier",
    "EncodedFeatures",
    "Field",
    "HistoryBuilder",
    "HistorySequenceEncoder",
    "Schema",
    "TrainingDisplay",
    "attach_aggregates",
    "attach_history",
    "explain",
    "export_onnx",
    "rank_candidates",
    "sample_negatives",
]
