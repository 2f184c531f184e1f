"""Deep Interest Network for click prediction, inside scikit-learn.

Start from a click log as a DataFrame: attach each user's past to every impression, encode columns
as ids and masks, and train a Deep Interest Network on them, all as a regular scikit-learn
Pipeline.
"""

import importlib
from typing import TYPE_CHECKING, Any

from sklearn_din.utils.postponed import import_sklearn
from sklearn_din.utils.version import __version__ as __version__  # re-exported

if TYPE_CHECKING:
    from sklearn_din.estimator import DINClassifier as DINClassifier
    from sklearn_din.features.encoded import EncodedFeatures as EncodedFeatures
    from sklearn_din.features.schema import Field as Field
    from sklearn_din.features.schema import Schema as Schema
    from sklearn_din.inspection.check import check as check
    from sklearn_din.inspection.display import AttentionDisplay as AttentionDisplay
    from sklearn_din.inspection.explain import explain as explain
    from sklearn_din.inspection.importance import history_importance as history_importance
    from sklearn_din.large.attached_scan import AttachedScan as AttachedScan
    from sklearn_din.large.parquet_scan import ParquetScan as ParquetScan
    from sklearn_din.large.parquet_scan import scan_parquet as scan_parquet
    from sklearn_din.logs.aggregates import attach_aggregates as attach_aggregates
    from sklearn_din.logs.attach import LABEL as LABEL
    from sklearn_din.logs.attach import attach_history as attach_history
    from sklearn_din.logs.history_builder import HistoryBuilder as HistoryBuilder
    from sklearn_din.logs.negatives import sample_negatives as sample_negatives
    from sklearn_din.logs.requests import attach_request as attach_request
    from sklearn_din.model_selection import TimeSplit as TimeSplit
    from sklearn_din.module import DIN as DIN
    from sklearn_din.regressor import DINRegressor as DINRegressor
    from sklearn_din.resilient.checkpoint import Checkpoint as Checkpoint
    from sklearn_din.saving import inspect as inspect
    from sklearn_din.saving import load as load
    from sklearn_din.saving import save as save
    from sklearn_din.saving import trusted_types as trusted_types
    from sklearn_din.server.shown import read_events as read_events
    from sklearn_din.serving.evaluation import evaluate_ranking as evaluate_ranking
    from sklearn_din.serving.export import export_onnx as export_onnx
    from sklearn_din.serving.onnx_model import load_onnx as load_onnx
    from sklearn_din.serving.ranking import Ranker as Ranker
    from sklearn_din.serving.ranking import rank_candidates as rank_candidates
    from sklearn_din.serving.remembering import forget as forget
    from sklearn_din.serving.remembering import live_predictions as live_predictions
    from sklearn_din.serving.remembering import live_scoring as live_scoring
    from sklearn_din.serving.remembering import remember as remember
    from sklearn_din.serving.scoring import predict_to_parquet as predict_to_parquet
    from sklearn_din.serving.scoring import score_partitions as score_partitions
    from sklearn_din.serving.updating import update as update
    from sklearn_din.transformers import HistorySequenceEncoder as HistorySequenceEncoder

# Loaded when asked for (PEP 562): a worker that only encodes never pays for torch.
_FOLDERS = ("datasets", "features", "metrics")
_NAMES_OF = {
    "estimator": ("DINClassifier",),
    "features.encoded": ("EncodedFeatures",),
    "features.schema": ("Field", "Schema"),
    "inspection.check": ("check",),
    "inspection.display": ("AttentionDisplay",),
    "inspection.explain": ("explain",),
    "inspection.importance": ("history_importance",),
    "large.attached_scan": ("AttachedScan",),
    "large.parquet_scan": ("ParquetScan", "scan_parquet"),
    "logs.aggregates": ("attach_aggregates",),
    "logs.attach": ("LABEL", "attach_history"),
    "logs.history_builder": ("HistoryBuilder",),
    "logs.negatives": ("sample_negatives",),
    "logs.requests": ("attach_request",),
    "model_selection": ("TimeSplit",),
    "module": ("DIN",),
    "regressor": ("DINRegressor",),
    "resilient.checkpoint": ("Checkpoint",),
    "saving": ("inspect", "load", "save", "trusted_types"),
    "server.shown": ("read_events",),
    "serving.evaluation": ("evaluate_ranking",),
    "serving.export": ("export_onnx",),
    "serving.onnx_model": ("load_onnx",),
    "serving.ranking": ("Ranker", "rank_candidates"),
    "serving.remembering": ("forget", "live_predictions", "live_scoring", "remember"),
    "serving.scoring": ("predict_to_parquet", "score_partitions"),
    "serving.updating": ("update",),
    "transformers": ("HistorySequenceEncoder",),
}
_FILE_OF = {name: file for file, names in _NAMES_OF.items() for name in names}
__all__ = sorted(_FILE_OF)


def __getattr__(name: str) -> Any:
    if name not in _FOLDERS and name not in _FILE_OF:
        raise AttributeError(f"module 'sklearn_din' has no attribute {name!r}")
    import_sklearn()
    if name in _FOLDERS:
        return importlib.import_module(f"sklearn_din.{name}")
    return getattr(importlib.import_module(f"sklearn_din.{_FILE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_FOLDERS})
