"""Permutation importance: how much a score falls when a behaviour, column or group is shuffled."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, is_regressor
from sklearn.metrics import check_scoring
from sklearn.pipeline import make_pipeline
from sklearn.utils import check_consistent_length, check_random_state

from sklearn_din.inspection.fitted import split_pipeline
from sklearn_din.utils.frames import CallerFrame
from sklearn_din.utils.validation import check_choice, check_count
from sklearn_din.utils.warnings import collect_messages

Scorer = Callable[[BaseEstimator, IntoDataFrame, ArrayLike], float]
Feature = tuple[str, str, tuple[str, ...]]  # name, kind, and columns that are shuffled together


def history_importance(
    pipeline: BaseEstimator,
    X: IntoDataFrame,
    y: ArrayLike,
    *,
    by: Literal["column", "group"] = "column",
    scoring: str | Scorer | None = "roc_auc",
    n_repeats: int = 5,
    random_state: int | np.random.RandomState | None = None,
) -> pd.DataFrame:
    """Measure how much the score of a fitted Pipeline depends on each behaviour, column or group.

    Permutation importance (Breiman, "Random Forests", 2001): the values of one column are
    shuffled between rows, and the fall of the score shows how much the model relies on them. The
    columns of one behaviour (items, categories and times of the same events) are shuffled
    together, so that every row has a real history of some user.
    ``sklearn.inspection.permutation_importance`` shuffles each column separately: aligned
    histories then differ in length, and the encoder rejects them.

    Parameters
    ----------
    pipeline : Pipeline, search over one, or CalibratedClassifierCV of one
        Fitted, with a HistorySequenceEncoder and a DINClassifier.
    X : pandas, polars or Arrow frame
        Impressions on which the Pipeline was not fitted.
    y : array-like of shape (n,)
        Their labels.
    by : {"column", "group"}, default="column"
        What is shuffled together. "column": each behaviour, and each other column. "group": all
        histories; all levels of a memory (rates and counts so far); the user's id; the item, with
        what follows from it; all other columns. It tells whether histories or rates decide.
    scoring : str, callable or None, default="roc_auc"
        Score to use: a name known to scikit-learn, a scorer such as
        ``group_roc_auc_scorer("user")``, or None for the Pipeline's own ``score``: accuracy, or
        R2 for a regressor, for which "roc_auc" is undefined.
    n_repeats : int, default=5
        Number of shuffles of each. Each costs one prediction of all rows.
    random_state : int, RandomState or None, default=None
        Seed of the shuffles, which are the same for everything that is shuffled.

    Returns
    -------
    DataFrame
        A row per behaviour and other column, or per group, the most important first: feature (its
        name), kind ("behaviour", "column" or "group"), columns (tuple of those shuffled together),
        importance_mean and importance_std of the fall of the score. By column, the candidates of a
        behaviour have rows of their own.

    Raises
    ------
    TypeError
        If there is no Pipeline with both, or X is no frame.

    Notes
    -----
    Redundant columns replace each other, so each seems unimportant; what is learnt of pairs, such
    as histories beside items, counts for both. A candidate shuffled without its category makes
    pairs that are in no catalogue. ``table[::-1].plot.barh("feature", "importance_mean",
    xerr="importance_std")`` is a picture.

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
    check_choice(by, ("column", "group"), name="by")
    check_count(n_repeats, name="n_repeats")
    if is_regressor(fitted.classifier) and scoring == "roc_auc":
        raise ValueError("scoring must be one that regressors have, such as 'r2', got 'roc_auc'.")
    check_consistent_length(X, y)
    steps = fitted.encoder, *fitted.around_encoder()[1], fitted.classifier
    model = fitted.calibrated.around(make_pipeline(*steps))
    frame = CallerFrame(fitted.read(X), name="X")
    scorer, rows = check_scoring(model, scoring=scoring), np.arange(len(frame.pandas))
    seeds = check_random_state(random_state)
    orders = [seeds.permutation(rows) for _ in range(n_repeats)]
    score = scorer(model, frame.native, y)
    schema, falls_of = fitted.classifier.schema_, []
    features: list[Feature] = [
        (schema.display_name(b), "behaviour", (*b.histories, *b.numbers)) for b in schema.behaviours
    ]
    names = fitted.encoder._learnt.of_rows
    features += [(name, "column", (name,)) for name in names if name in frame.pandas]
    if by == "group":
        features = _group(features, fitted.encoder, [*frame.pandas])
    for name, kind, columns in features:
        shuffled = (frame.take(rows, instead=dict.fromkeys(columns, order)) for order in orders)
        with collect_messages():  # that candidates have another item's category is meant
            falls = [score - scorer(model, others, y) for others in shuffled]
        falls_of.append((name, kind, columns, np.mean(falls), np.std(falls)))
    of_columns = ["feature", "kind", "columns", "importance_mean", "importance_std"]
    table = pd.DataFrame(falls_of, columns=of_columns)
    return table.sort_values("importance_mean", ascending=False, kind="stable", ignore_index=True)


def _group(features: list[Feature], encoder: Any, names: list[str]) -> list[Feature]:
    """Return groups of behaviours and columns, and of the user's id, to be shuffled together."""
    candidates = [name for b in encoder.schema_.behaviours for name in b.candidates]
    group_of = dict.fromkeys([*candidates, *encoder._learnt.of_item], "item")
    levels = [field.name for field in encoder.schema_.fields if field.follows_labels]
    group_of |= dict.fromkeys(levels, "levels") | {encoder.user: "user"}
    groups: dict[str, list[str]] = {"user": [encoder.user]} if encoder.user in names else {}
    for name, kind, columns in features:
        group = "histories" if kind == "behaviour" else group_of.get(name, "other columns")
        groups.setdefault(group, []).extend(columns)
    return [(name, "group", tuple(columns)) for name, columns in groups.items()]
