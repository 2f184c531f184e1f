"""The weight or the effect of every past event, as ids and as original values."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.event_table import KEYS, behaviours_with_candidate, event_table
from sklearn_din.features.ragged import Ragged
from sklearn_din.inspection.fitted import FittedPipeline, find_memory, split_pipeline
from sklearn_din.utils.spans import Spans
from sklearn_din.utils.validation import check_choice

EVENTS_PER_BLOCK = 1 << 20  # of the copies of histories without one of their events
COLUMN_BY = {"weight": "weight", "leave_out": "effect"}


def explain(pipeline: BaseEstimator, X: object, *, by: str = "weight") -> pd.DataFrame:
    """Return the weight or the effect of each past event for each impression, with original values.

    ``by="weight"`` is :meth:`DINClassifier.attention_weights` for a Pipeline: how much of the
    event enters the interest. It shows where the network looks, not in which direction: the
    network processes the interest further, so an event with a negative weight may still make the
    click more likely. ``by="leave_out"`` gives the direction: each event is left out of its
    history and the impression predicted again::

        effect = log-odds with the event - log-odds without it

    A positive effect makes the click more likely, a negative one less likely. Effects of several
    events do not add up: of two redundant events, either can be left out without any effect.

    Parameters
    ----------
    pipeline : Pipeline, search over one, or CalibratedClassifierCV of one
        Fitted; a HistorySequenceEncoder among its steps and a DINClassifier at its end.
    X : DataFrame
        Impressions, as given to the Pipeline's ``predict_proba``.
    by : {"weight", "leave_out"}, default="weight"
        What to return for each event. "leave_out" costs one prediction per event, so a history of
        50 costs as much as 50 impressions. Events older than attention reads do not replace the one
        that is left out.

    Returns
    -------
    DataFrame
        One row per event, oldest first: row (position of the impression in X), behaviour,
        position (0 is the oldest event kept), one column of original values per attribute (None
        for a value not seen at fit, or if the behaviour lacks the attribute), weight or effect,
        and share: that number divided by the sum of absolute values in the impression's
        behaviour, which makes impressions comparable. ``attrs["click"]`` is the label that counts
        as the click; of a classifier with trees, ``attrs["trees"]`` lists how much of each
        impression's log-odds is the trees' summand: weights are of the network alone, effects are
        of both. Of a Pipeline that begins with ``HistoryBuilder(online_model=True)``,
        ``attrs["online"]`` lists for each impression what each key adds to the online model's
        estimate: the mean of its weight, by the key's columns, and of "bias".

    Raises
    ------
    TypeError
        If ``pipeline`` is not such a Pipeline.
    ValueError
        If no history has a candidate; for weights, also with ``pooling="max"``.

    See Also
    --------
    sklearn_din.inspection.display.AttentionDisplay : The same as a picture.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_din.estimator import DINClassifier
    >>> from sklearn_din.transformers import HistorySequenceEncoder
    >>> shown = pd.DataFrame({"item": ["hat", "sock"], "hist_item": [["sock"], ["hat", "shoe"]]})
    >>> model = make_pipeline(
    ...     HistorySequenceEncoder(), DINClassifier(pooling="mean", max_epochs=1)
    ... ).fit(shown, [0, 1])
    >>> explain(model, shown).drop(columns="behaviour")
       row  position hist_item  weight  share
    0    0         0      sock     1.0    1.0
    1    1         0       hat     0.5    0.5
    2    1         1      shoe     0.5    0.5
    """
    check_choice(by, tuple(COLUMN_BY), name="by")
    fitted = split_pipeline(pipeline, purpose="explain")
    table = explain_encoded(fitted, fitted.transformers.transform(X), by=by)
    memory = find_memory(fitted)
    if memory is not None and memory.online_model:
        parts = memory.online_parts(cast(Any, X))
        means = {str(name).rpartition("_")[0]: parts[name] for name in parts.columns[::2]}
        table.attrs["online"] = pd.DataFrame(means).to_dict("records")
    return table


def explain_encoded(pipeline: FittedPipeline, X: EncodedFeatures, *, by: str) -> pd.DataFrame:
    """Return weights or effects with original values instead of ids, and fractions of the total."""
    if by == "weight":
        table = pipeline.classifier.attention_weights(X)
    else:
        table = _effect_table(pipeline.classifier, X)
    column = COLUMN_BY[by]
    for name in table.columns.drop([*KEYS, column]):
        are_lists = table[name].dtype == object
        decode = pipeline.decode_lists if are_lists else pipeline.encoder.inverse_transform_ids
        values: Any = decode(name, table[name])
        table[name] = pd.Series(values, index=table.index, dtype=object)
    totals = table[column].abs().groupby([table["row"], table["behaviour"]]).transform("sum")
    classes = getattr(pipeline.classifier, "classes_", None)
    if isinstance(classes, np.ndarray):
        table.attrs["click"] = classes.tolist()[1]
    if getattr(pipeline.classifier, "trees_weight_", 0):
        table.attrs["trees"] = pipeline.classifier.net_.mixture_.part_of(X).tolist()
    table["share"] = (table[column] / totals.where(totals > 0, 1.0)).astype("float32")
    return table


def _effect_table(classifier: Any, X: EncodedFeatures) -> pd.DataFrame:
    """Return how much higher the log-odds, or the number, are with each event than without it."""
    behaviours = behaviours_with_candidate(X)
    if not behaviours:
        raise ValueError("by='leave_out' needs a history with a candidate, got none.")
    score = getattr(classifier, "decision_function", classifier.predict)
    if hasattr(classifier, "label_names_"):
        raise ValueError(
            f"by='leave_out' needs one label, got {classifier.label_names_}. Explain by='weight', "
            "or a classifier that is fitted on one of them."
        )
    scores, effects = score(X), {}
    for behaviour in behaviours:
        key, of_block = behaviour.histories, [np.empty(0, dtype=np.float32)]
        for rows, without in _leave_each_out(X.behaviours[key]):
            copies = X[rows]
            copies.behaviours[key] = without
            of_block.append(scores[rows] - score(copies))
        effects[key] = np.concatenate(of_block)
    return event_table(X, effects, "effect")


def _leave_each_out(history: Ragged) -> Iterator[tuple[np.ndarray, Ragged]]:
    """Yield rows and their histories without one event after the other, in blocks."""
    spans = history.spans
    rows, events = np.repeat(np.arange(len(spans)), spans.lengths), spans.index()
    if not len(rows):
        return
    block_of = np.cumsum(history.whole.lengths[rows], dtype=np.int64) // EVENTS_PER_BLOCK
    for block in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(block_of)) + 1):
        copies = history.take(rows[block])
        index, lengths = copies.whole.index(), copies.whole.lengths
        index = index[index != np.repeat(events[block], lengths)]
        columns = {name: values[index] for name, values in history.columns.items()}
        without = Spans.from_lengths(lengths - 1).newest(copies.spans.lengths - 1)
        yield rows[block], copies.over(columns, without, copies.n_older)
