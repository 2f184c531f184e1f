"""Pictures of a fitted model: which past events counted, and how its training went."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Behaviour
from sklearn_din.inspection.drawing import (
    draw_auc,
    draw_bars,
    draw_heat,
    draw_losses,
    draw_nothing,
    new_axes,
    new_panels,
    short,
)
from sklearn_din.inspection.fitted import (
    ENCODED,
    FittedPipeline,
    classifier_of,
    fitted_pipeline,
    original_weights,
)

if TYPE_CHECKING:  # matplotlib need not be installed
    from matplotlib.axes import Axes

Names = dict[str, dict[Hashable, object]]


class AttentionDisplay:
    """Picture of which past events count for a candidate.

    One impression becomes bars: its history from the oldest event at the top to the newest at
    the bottom, each as long as its weight. Several impressions of one history become a heat
    map: one row per candidate, one column per event. Make it with :meth:`from_estimator` or
    :meth:`from_predictions`.

    Parameters
    ----------
    weights : ndarray of shape (n_candidates, n_events)
        Attention weights, oldest event first.
    events : list of str
        Name of each event.
    candidates : list of str
        Name of what was shown in each impression.
    probability : ndarray of shape (n_candidates,), default=None
        Predicted probability of the click on each.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> weights = np.array([[0.1, 0.8]])
    >>> display = AttentionDisplay(weights=weights, events=["hat", "boot"], candidates=["sock"])
    >>> [label.get_text() for label in display.plot().ax_.get_yticklabels()]
    ['hat', 'boot']
    """

    def __init__(
        self,
        *,
        weights: np.ndarray,
        events: list[str],
        candidates: list[str],
        probability: np.ndarray | None = None,
    ) -> None:
        self.weights = weights
        self.events = events
        self.candidates = candidates
        self.probability = probability

    @classmethod
    def from_estimator(
        cls,
        pipeline: BaseEstimator,
        X: Any,
        *,
        behaviour: str | None = None,
        names: Mapping[Any, Any] | pd.Series | None = None,
        ax: Axes | None = None,
    ) -> AttentionDisplay:
        """Draw the attention that a fitted Pipeline pays to the history of X.

        Parameters
        ----------
        pipeline : Pipeline, or search over one
            Fitted; a HistorySequenceEncoder among its steps and a DINClassifier at its end.
        X : DataFrame
            One impression, or several that share one history: a user's candidates.
        behaviour : str, default=None
            Which behaviour, by one of its history columns or by the name that
            :func:`sklearn_din.explain` shows. Needed where there are several.
        names : mapping or Series, default=None
            Original id -> name to show, for the first attribute (the item) of events and
            candidates; or history column -> such a mapping.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure of fitting size by default.

        Returns
        -------
        AttentionDisplay
        """
        fitted = fitted_pipeline(pipeline, purpose="AttentionDisplay")
        encoded = fitted.encode(X)
        schema = encoded.schema
        table = original_weights(fitted, encoded)
        behaviours = {schema.display_name(b): b for b in schema.behaviours if not b.is_bag}
        shown = _one_behaviour({name: b.histories for name, b in behaviours.items()}, behaviour)
        chosen = behaviours[shown]
        named = _by_attribute(names, chosen.histories)
        table = table[table["behaviour"] == shown]
        weights, events = _one_history(table, range(len(encoded)), chosen.histories, named)
        display = cls(
            weights=weights,
            events=events,
            candidates=_candidate_labels(fitted, encoded, chosen, named),
            probability=fitted.classifier.predict_proba(encoded)[:, 1],
        )
        return display.plot(ax=ax)

    @classmethod
    def from_predictions(
        cls,
        weights: pd.DataFrame,
        *,
        candidates: Sequence[object] | None = None,
        behaviour: str | None = None,
        names: Mapping[Any, Any] | pd.Series | None = None,
        ax: Axes | None = None,
    ) -> AttentionDisplay:
        """Draw weights that are there already.

        Parameters
        ----------
        weights : DataFrame
            From :func:`sklearn_din.explain`, or ``attention_weights``: row,
            behaviour, position, attributes, weight.
        candidates : sequence, default=None
            What was shown in each row, in order; "row 0" and so on by default.
        behaviour : str, default=None
            Which behaviour, by one of its history columns or by its name in the table. Needed
            where there are several.
        names : mapping or Series, default=None
            Id -> name to show, for the first attribute (the item) of the events; or history
            column -> such a mapping.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure of fitting size by default.

        Returns
        -------
        AttentionDisplay
        """
        behaviours = _histories_by_behaviour(weights)
        shown = _one_behaviour(behaviours, behaviour)
        histories = behaviours[shown]
        table = weights[weights["behaviour"] == shown]
        rows = sorted(table["row"].unique())
        if candidates is None:
            candidates = [f"row {row}" for row in rows] or ["the candidate"]
        if len(candidates) != max(len(rows), 1):
            raise ValueError(
                f"candidates must name each of the {max(len(rows), 1)} impressions in weights, "
                f"got {len(candidates)} names."
            )
        named = _by_attribute(names, histories)
        array, events = _one_history(table, rows or [0], histories, named)
        display = cls(weights=array, events=events, candidates=[str(c) for c in candidates])
        return display.plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> AttentionDisplay:
        """Draw bars for one impression, a heat map for several.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; a new figure of fitting size by default.

        Returns
        -------
        AttentionDisplay
        """
        n_candidates, n_events = self.weights.shape
        size = (7.0, float(np.clip(1.5 + 0.24 * n_events, 2.6, 16)))
        if n_candidates > 1 and n_events:
            width = float(np.clip(4.5 + 0.32 * n_events, 7, 20))
            size = (width, float(np.clip(3.0 + 0.32 * n_candidates, 4.4, 16)))
        self.figure_, self.ax_ = new_axes(ax, size, purpose="AttentionDisplay")
        if not n_events:
            draw_nothing(self.ax_, self._named_candidates(" (click probability {:.0%})"))
        elif n_candidates == 1:
            (candidate,) = self._named_candidates(" (click probability {:.0%})")
            draw_bars(self.ax_, self.weights[0], self.events, candidate)
        else:
            label = "candidates" + ("" if self.probability is None else " (click probability)")
            shown = self._named_candidates(" ({:.0%})")
            draw_heat(self.ax_, self.weights, self.events, shown, label=label)
        return self

    def _named_candidates(self, form: str) -> list[str]:
        if self.probability is None:
            return self.candidates
        pairs = zip(self.candidates, self.probability, strict=True)
        return [name + form.format(probability) for name, probability in pairs]


class TrainingDisplay:
    """Picture of a training: loss and AUC by epoch, and the validation check that is kept.

    A validation check measures loss and AUC on the rows set aside for validation; a fitted
    classifier has the weights of the check with the smallest loss.

    Make it with :meth:`from_estimator`.

    Parameters
    ----------
    history : DataFrame
        ``DINClassifier.history_``.

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes
        Loss, and AUC where there were validation checks.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import pandas as pd
    >>> history = pd.DataFrame(
    ...     {
    ...         "epoch": [1.0, 2.0],
    ...         "train_loss": [0.6, 0.5],
    ...         "valid_loss": [0.61, 0.62],
    ...         "valid_auc": [0.7, 0.69],
    ...     }
    ... )
    >>> TrainingDisplay(history=history).plot().best_epoch
    1.0
    """

    def __init__(self, *, history: pd.DataFrame) -> None:
        self.history = history

    @classmethod
    def from_estimator(cls, estimator: BaseEstimator, *, ax: Axes | None = None) -> TrainingDisplay:
        """Draw the training of a fitted classifier.

        Parameters
        ----------
        estimator : DINClassifier, Pipeline that ends in one, or search over one
            Fitted.
        ax : matplotlib Axes, default=None
            Whose place the two panels take; a new figure by default.

        Returns
        -------
        TrainingDisplay
        """
        classifier = classifier_of(estimator, purpose="TrainingDisplay")
        return cls(history=classifier.history_).plot(ax=ax)

    @property
    def best_epoch(self) -> float | None:
        """Epoch with the smallest validation loss; None without validation rows."""
        loss = self.history["valid_loss"].to_numpy()
        if np.isnan(loss).all():
            return None
        return float(self.history["epoch"].iloc[int(np.nanargmin(loss))])

    def plot(self, *, ax: Axes | None = None) -> TrainingDisplay:
        """Draw the loss, and the AUC where there is one.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Whose place the panels take; a new figure by default.

        Returns
        -------
        TrainingDisplay
        """
        if not len(self.history):
            raise ValueError(
                "TrainingDisplay needs at least one row in history_, got none: the training was "
                "interrupted before its first losses were known. Fit again."
            )
        best = self.best_epoch
        has_auc = best is not None and bool(self.history["valid_auc"].notna().any())
        self.figure_, self.ax_ = new_panels(ax, 1 + has_auc, purpose="TrainingDisplay")
        draw_losses(self.ax_[0], self.history, best)
        if best is not None and has_auc:
            draw_auc(self.ax_[1], self.history, best)
        self.ax_[-1].set_xlabel("epoch (one pass over the training rows)")
        return self


def _one_history(
    table: pd.DataFrame, rows: Sequence[int], attributes: Sequence[str], names: Names
) -> tuple[np.ndarray, list[str]]:
    """Weights (n_candidates, n_events), and the events' names, which all rows share."""
    groups = {row: group.sort_values("position") for row, group in table.groupby("row")}
    histories, weights = [], []
    for row in rows:
        group = groups.get(row, table[:0])
        values = group[[*attributes]].itertuples(index=False)
        histories.append([_event_name(event, attributes, names) for event in values])
        weights.append(group["weight"].to_numpy(dtype=float))
    for row, history in zip(rows, histories, strict=True):
        if history != histories[0]:
            raise ValueError(
                "the rows must share one history, so that candidates can be compared: row "
                f"{rows[0]} has {len(histories[0])} events, row {row} has {len(history)} or "
                "others. Choose one row, X.iloc[[i]], or rows of one user at one time."
            )
    return np.stack(weights), histories[0]


def _candidate_labels(
    fitted: FittedPipeline, X: EncodedFeatures, behaviour: Behaviour, names: Names
) -> list[str]:
    """Name each impression's candidate as its history is named."""
    pairs = zip(behaviour.histories, behaviour.candidates, strict=True)
    columns = {h: fitted.decode(c, X[c]) for h, c in pairs if c is not None}
    return [_event_name(row, list(columns), names) for row in zip(*columns.values(), strict=True)]


def _event_name(values: Iterable[Any], attributes: Sequence[str], names: Names) -> str:
    shown = []
    for attribute, value in zip(attributes, values, strict=True):
        name = "unknown" if pd.isna(value) else names.get(attribute, {}).get(value, value)
        shown.append(short(str(name)))
    return "unknown" if set(shown) == {"unknown"} else " · ".join(shown)


def _by_attribute(names: Mapping[Any, Any] | pd.Series | None, histories: tuple[str, ...]) -> Names:
    """Names by history column, whichever of the two ways they were given."""
    if names is None:
        return {}
    if isinstance(names, pd.Series):
        names = names.to_dict()
    if not isinstance(names, Mapping):
        raise TypeError(
            f"names must map original ids to names (a dict or Series), got {type(names).__name__}."
        )
    if not names or not set(names) <= set(histories):
        return {histories[0]: dict(names)}
    return {attribute: dict(mapping) for attribute, mapping in names.items()}


def _histories_by_behaviour(weights: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Behaviours of a table of weights, each with the columns that hold its events.

    A column belongs to one behaviour and is empty for the others. A behaviour whose events are
    unknown throughout has no value anywhere: it gets the columns that are empty for all.
    """
    columns = [str(name) for name in weights] if isinstance(weights, pd.DataFrame) else []
    attributes = [name for name in columns if name not in (*ENCODED, "weight", "share")]
    if not attributes or not {*ENCODED, "weight"} <= set(columns):
        raise ValueError(
            "weights must be the table that explain or attention_weights returns (row, "
            "behaviour, position, attributes, weight), got "
            f"{columns or type(weights).__name__}."
        )
    is_filled = weights[attributes].notna().groupby(weights["behaviour"], sort=False).any()
    empty = tuple(name for name in attributes if not is_filled[name].any())
    return {
        str(behaviour): tuple(name for name in attributes if filled[name]) or empty
        for behaviour, filled in is_filled.iterrows()
    } or {"": empty}


def _one_behaviour(histories: Mapping[str, tuple[str, ...]], wanted: str | None) -> str:
    """Name of the behaviour to draw: the only one, that of a history column, or the one named."""
    found = [name for name, columns in histories.items() if wanted in (None, *columns)]
    found = found or [name for name in histories if name == wanted]
    if len(found) != 1:
        raise ValueError(f"behaviour must name one of {[*histories]}, got {wanted!r}.")
    return found[0]
