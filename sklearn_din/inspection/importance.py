"""Permutation importance of behaviours and columns: the fall of a score without each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.metrics import check_scoring
from sklearn.pipeline import make_pipeline
from sklearn.utils import check_consistent_length, check_random_state

from sklearn_din._validation import check_count
from sklearn_din.features.schema import Schema
from sklearn_din.inspection.fitted import FittedPipeline, flat_steps, split_pipeline

if TYPE_CHECKING:  # polars need not be installed
    import polars as pl

    Frame: TypeAlias = pd.DataFrame | pl.DataFrame | pa.Table
    Scorer: TypeAlias = Callable[[BaseEstimator, Frame, ArrayLike], float]


def history_importance(
    pipeline: BaseEstimator,
    X: Frame,
    y: ArrayLike,
    *,
    scoring: str | Scorer | None = "roc_auc",
    n_repeats: int = 5,
    random_state: int | np.random.RandomState | None = None,
) -> pd.DataFrame:
    """Measure how much each behaviour and each column counts for a fitted Pipeline's score.

    Permutation importance (Breiman, "Random Forests", 2001): the values of one column are
    shuffled between the rows, and the score falls by as much as the model relies on them. The
    columns of one behaviour (items, categories and times of the same events) are shuffled
    together, so that every row keeps a history that some user really had.
    ``sklearn.inspection.permutation_importance`` shuffles each column by itself: aligned histories
    then differ in length, and the encoder refuses them.

    Parameters
    ----------
    pipeline : Pipeline, search over one, or CalibratedClassifierCV of one
        Fitted, with a HistorySequenceEncoder and a DINClassifier.
    X : pandas, polars or Arrow frame
        Impressions that the Pipeline was not fitted on.
    y : array-like of shape (n,)
        Their labels.
    scoring : str, callable or None, default="roc_auc"
        Score to watch: a name that scikit-learn knows, a scorer such as
        ``group_roc_auc_scorer("user")``, or None for the Pipeline's own ``score``, the accuracy.
    n_repeats : int, default=5
        How many times each is shuffled. Every time costs one prediction of all rows.
    random_state : int, RandomState or None, default=None
        Seed of the shuffles, which are the same for every behaviour and column.

    Returns
    -------
    DataFrame
        A row per behaviour and per column that is no history, the most important first: feature
        (the behaviour's or the column's name), kind ("behaviour" or "column"), columns (tuple of
        those shuffled together), importance_mean and importance_std of the fall of the score.
        A behaviour's candidates are columns with rows of their own.

    Raises
    ------
    TypeError
        If there is no Pipeline with both, or X is no frame.

    Notes
    -----
    Columns that say the same stand in for each other: each then seems to count for little. A
    candidate shuffled without its category makes pairs that no catalogue has.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_din import DINClassifier, HistorySequenceEncoder
    >>> histories = [["hat"], ["sock"], [], ["hat", "sock"], ["sock"]]
    >>> X = pd.DataFrame({"item": ["hat", "sock"] * 20, "hist_item": histories * 8})
    >>> y = [item in past for item, past in zip(X["item"], X["hist_item"])]
    >>> model = make_pipeline(HistorySequenceEncoder(), DINClassifier(random_state=0)).fit(X, y)
    >>> table = history_importance(model, X, y, random_state=0)
    >>> table[["feature", "kind", "columns"]].sort_values("feature")
         feature       kind       columns
    0  hist_item  behaviour  (hist_item,)
    1       item     column       (item,)
    """
    fitted = split_pipeline(pipeline, purpose="history_importance")
    check_count(n_repeats, name="n_repeats")
    check_consistent_length(X, y)
    frame, model = _from_the_encoder_on(fitted, X)
    names = _column_names(frame)
    scorer = check_scoring(model, scoring=scoring)
    seeds = check_random_state(random_state)
    orders = [seeds.permutation(len(frame)) for _ in range(n_repeats)]
    score = scorer(model, frame, y)
    rows = []
    for feature in _features(fitted.classifier.schema_, names):
        falls = [score - scorer(model, _shuffle(frame, feature, order), y) for order in orders]
        rows.append((*feature, np.mean(falls), np.std(falls)))
    table = pd.DataFrame(rows, columns=[*_Feature._fields, "importance_mean", "importance_std"])
    return table.sort_values("importance_mean", ascending=False, kind="stable", ignore_index=True)


class _Feature(NamedTuple):
    """Columns that are shuffled together, as one behaviour or one column."""

    feature: str
    kind: str
    columns: tuple[str, ...]


def _features(schema: Schema, names: list[str]) -> Iterator[_Feature]:
    for behaviour in schema.behaviours:
        columns = (*behaviour.histories, *behaviour.numbers)
        yield _Feature(schema.display_name(behaviour), "behaviour", columns)
    for name in schema.names("categorical", "numeric"):
        if name in names:  # "price_missing" is made of price, and shuffled with it
            yield _Feature(name, "column", (name,))


def _from_the_encoder_on(fitted: FittedPipeline, X: Frame) -> tuple[Frame, BaseEstimator]:
    """Return the encoder's input, and the model of the encoder and all that comes after it."""
    steps = [*flat_steps(fitted.transformers), fitted.classifier]
    first = next(number for number, step in enumerate(steps) if step is fitted.encoder)
    for step in steps[:first]:
        X = step.transform(X)
    return X, fitted.calibration.around(make_pipeline(*steps[first:]))


def _column_names(X: Frame) -> list[str]:
    names = X.column_names if isinstance(X, pa.Table) else getattr(X, "columns", None)
    if names is None:
        raise TypeError(
            "history_importance needs a DataFrame, whose columns have names, got "
            f"{type(X).__name__}. An array has no histories: for it there is "
            "sklearn.inspection.permutation_importance."
        )
    return list(names)


def _shuffle(frame: Frame, feature: _Feature, order: np.ndarray) -> Frame:
    """Return the frame with other rows' values in the feature's columns."""
    names = feature.columns
    if isinstance(frame, pd.DataFrame):
        return frame.assign(**{name: frame[name].array.take(order) for name in names})
    if isinstance(frame, pa.Table):
        for name in names:
            number = frame.column_names.index(name)
            values = frame[name].take(pa.array(order))
            frame = frame.set_column(number, frame.schema.field(name), values)
        return frame
    return frame.with_columns([frame[name][order] for name in names])
