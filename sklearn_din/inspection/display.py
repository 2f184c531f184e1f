"""Pictures of a fitted model: what it looked at in a history, and how its training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

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
    FittedParts,
    classifier_of,
    fitted_parts,
    original_weights,
)

Names = dict[str, dict[Any, Any]]


class AttentionDisplay:
    """Picture of which past events count for a candidate.

    One impression becomes bars: its history from the oldest event at the top to the newest at
    the bottom, each as long as its weight. Several impressions of one history become a heat
    map: one row a candidate, one column an event. Make it with :meth:`from_estimator` or
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
        pipeline: Any,
        X: Any,
        *,
        behaviour: str | None = None,
        names: Any = None,
        ax: Any = None,
    ) -> AttentionDisplay:
        """Draw the attention that a fitted Pipeline pays to the history of X.

        Parameters
        ----------
        pipeline : Pipeline, or search over one
            Fitted; a HistorySequenceEncoder among its steps and a DINClassifier at its end.
        X : DataFrame
            One impression, or several that share one history: a user's candidates.
        behaviour : str, default=None
            Which behaviour, by its name or one of its history columns. None where there is one.
        names : mapping or Series, default=None
            Original id -> name to show, for the first attribute (the item) of events and
            candidates; or history column -> such a mapping.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure of fitting size by default.

        Returns
        -------
        AttentionDisplay
        """
        parts = fitted_parts(pipeline, purpose="AttentionDisplay")
        encoded = parts.encode(X)
        table = original_weights(parts, encoded)
        chosen = _one_behaviour([b for b in encoded.schema.behaviours if not b.is_bag], behaviour)
        named = _by_attribute(names, chosen.histories)
        table = table[table["behaviour"] == chosen.name]
        weights, events = _one_history(table, range(len(encoded)), chosen.histories, named)
        display = cls(
            weights=weights,
            events=events,
            candidates=_candidate_labels(parts, encoded, chosen, named),
            probability=parts.classifier.predict_proba(encoded)[:, 1],
        )
        return display.plot(ax=ax)

    @classmethod
    def from_predictions(
        cls,
        weights: pd.DataFrame,
        *,
        candidates: Sequence[Any] | None = None,
        behaviour: str | None = None,
        names: Any = None,
        ax: Any = None,
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
            Which behaviour. None where there is one.
        names : mapping or Series, default=None
            As for :meth:`from_estimator`.
        ax : matplotlib Axes, default=None
            Where to draw; a new figure of fitting size by default.

        Returns
        -------
        AttentionDisplay
        """
        chosen = _behaviour_in(weights, behaviour)
        table = weights[weights["behaviour"] == chosen.name]
        rows = sorted(table["row"].unique())
        if candidates is None:
            candidates = [f"row {row}" for row in rows] or ["the candidate"]
        if len(candidates) != max(len(rows), 1):
            raise ValueError(
                f"candidates must name each of the {max(len(rows), 1)} impressions in weights, "
                f"got {len(candidates)} names."
            )
        named = _by_attribute(names, chosen.histories)
        array, events = _one_history(table, rows or [0], chosen.histories, named)
        display = cls(weights=array, events=events, candidates=[str(c) for c in candidates])
        return display.plot(ax=ax)

    def plot(self, *, ax: Any = None) -> AttentionDisplay:
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
    """Picture of a training: loss and AUC by epoch, and the look whose weights are kept.

    Make it with :meth:`from_estimator`.

    Parameters
    ----------
    history : DataFrame
        ``DINClassifier.history_``.

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes
        Loss, and AUC where validation rows were looked at.
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
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> TrainingDisplay:
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

    def plot(self, *, ax: Any = None) -> TrainingDisplay:
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
                "TrainingDisplay needs at least one finished look at the losses, got none: the "
                "training was interrupted in its first epoch. Fit again."
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
    parts: FittedParts, X: EncodedFeatures, behaviour: Behaviour, names: Names
) -> list[str]:
    """Name each impression's candidate as its history is named."""
    pairs = zip(behaviour.histories, behaviour.candidates, strict=True)
    columns = {h: parts.decode(c, X[c]) for h, c in pairs if c is not None}
    return [_event_name(row, list(columns), names) for row in zip(*columns.values(), strict=True)]


def _event_name(values: Any, attributes: Sequence[str], names: Names) -> str:
    shown = []
    for attribute, value in zip(attributes, values, strict=True):
        name = "unknown" if pd.isna(value) else names.get(attribute, {}).get(value, value)
        shown.append(short(str(name)))
    return "unknown" if set(shown) == {"unknown"} else " · ".join(shown)


def _by_attribute(names: Any, histories: tuple[str, ...]) -> Names:
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


def _behaviour_in(weights: Any, wanted: str | None) -> Behaviour:
    """Return the behaviour to draw and its attributes, as far as a table of weights tells them."""
    columns = [str(name) for name in weights] if isinstance(weights, pd.DataFrame) else []
    attributes = [name for name in columns if name not in (*ENCODED, "weight", "share")]
    if not attributes or not {*ENCODED, "weight"} <= set(columns):
        raise ValueError(
            "weights must be the table that explain or attention_weights returns (row, "
            "behaviour, position, attributes, weight), got "
            f"{columns or type(weights).__name__}."
        )
    behaviours = []
    for name in weights["behaviour"].unique():
        histories = [attribute for attribute in attributes if attribute in name.split("+")]
        histories = histories or attributes
        behaviours.append(Behaviour(name, tuple(histories), (None,) * len(histories)))
    if not behaviours:
        return Behaviour("", tuple(attributes), (None,) * len(attributes))
    return _one_behaviour(behaviours, wanted)


def _one_behaviour(behaviours: list[Behaviour], wanted: str | None) -> Behaviour:
    found = [b for b in behaviours if wanted in (None, b.name) or wanted in b.histories]
    if len(found) != 1:
        raise ValueError(
            f"behaviour must name one of {[b.name for b in behaviours]}, got {wanted!r}."
        )
    return found[0]
