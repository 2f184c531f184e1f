"""The Pipelines that are compared, and the one that is saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sklearn.pipeline import Pipeline

from sklearn_din.command_line.study import Roles, Study
from sklearn_din.estimator import DINClassifier
from sklearn_din.logs.history import HistoryBuilder
from sklearn_din.serving.saving import ModelFileError, load
from sklearn_din.transformers import HistorySequenceEncoder

Parameters = Mapping[str, str | int]

MODELS: dict[str, Parameters] = {
    "base model (sum pooling)": {"pooling": "sum", "interest": "paper"},
    "DIN": {},
}


def make_model(roles: Roles, parameters: Parameters, *, order: str) -> Pipeline:
    """Encoder and classifier, for impressions that have their histories.

    ``order`` ("user" or "time") says what parts the rows to predict from the rows of fit. Item
    neighbours and validation rows are of the same kind. The paper's network gets no numbers of item
    neighbours: it stays as published.
    """
    encoder = HistorySequenceEncoder(user=roles.user, time=roles.time)
    if order == "user":
        encoder.set_params(time=None, drop=[roles.time])
    classifier = DINClassifier().set_params(**parameters)
    if classifier.interest == "paper":
        classifier.set_params(neighbours=None)
    return Pipeline([("encode", encoder), ("din", classifier)])


def fit_final_model(study: Study, parameters: Parameters) -> Pipeline:
    """DIN fitted on all rows.

    For a log of one's own it begins with a HistoryBuilder that remembers every click: new rows
    need no histories. The events of the embedded log are no rows, so there it has none.
    """
    model = make_model(study.roles, parameters, order="time")
    if study.ceiling is not None:
        return model.fit(study.X, study.y)
    roles = study.roles
    builder = HistoryBuilder(
        user=roles.user, time=roles.time, columns=roles.events, events="positive"
    )
    model = Pipeline([("history", builder), *model.steps])
    return model.fit(study.X[roles.columns], study.y)


def load_model(path: Path) -> Pipeline:
    """Read a Pipeline that ``--save`` wrote."""
    try:
        model = load(path)
    except ModelFileError as error:
        raise ValueError(f"{path} is no model that --save wrote: {error}") from error
    if not isinstance(model, Pipeline) or not hasattr(model, "feature_names_in_"):
        raise ValueError(f"{path} is no model that --save wrote, but a {type(model).__name__}.")
    return model
