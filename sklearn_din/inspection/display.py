"""A plot of a fitted model: attention per past event."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Behaviour
from sklearn_din.inspection.explain import COLUMN_BY, explain_encoded
from sklearn_din.inspection.fitted import FittedPipeline, split_pipeline
from sklearn_din.utils.extras import import_package
from sklearn_din.utils.validation import check_choice

if TYPE_CHECKING:  # matplotlib need not be installed
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

FOR, AGAINST, GREY = "#1f6fb4", "#d1662b", "#6b7280"
BELOW_ZERO = {"weight": "#9aa1ac", "leave_out": AGAINST}  # a weight below 0 is no vote against
LEGENDS = {
    "weight": "attention weight (factor of the event in\nthe interest; its sign is no vote)",
    "leave_out": "log-odds with the event minus without it\n"
    "(above 0: speaks for the candidate, below 0: against it)",
}
TITLES = {"weight": "Attention to the history", "leave_out": "What each past event changes"}
LONGEST_NAME = 26
MOST_LABELS = 60
NOTED_CELLS = 60


@dataclass(kw_only=True, eq=False, repr=False)
class AttentionDisplay:
    """Plot of which past events count for a candidate.

    One impression is plotted as bars: its history from the oldest event at the top to the newest
    at the bottom, with lengths for weights (``by="weight"``: where the network looks) or for
    effects on the log-odds (``by="leave_out"``: positive ones make the click more likely; see
    :func:`sklearn_din.explain`). Several impressions with one history become a heat map: one row
    per candidate, one column per event. Create it with :meth:`from_estimator`; numbers of your own
    are given as below, then call :meth:`plot`.

    Parameters
    ----------
    weights : ndarray of shape (n_candidates, n_events)
        Attention weights or effects, oldest event first.
    events : list of str
        Name of each event.
    candidates : list of str
        Name of the candidate of each impression.
    probability : ndarray of shape (n_candidates,), default=None
        Predicted click probability of each impression.
    by : {"weight", "leave_out"}, default="weight"
        What the numbers are: attention weights, or effects of leaving out each event.
    click : str, default=""
        Label of the click, if it is not 1.

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

    weights: np.ndarray
    events: list[str]
    candidates: list[str]
    probability: np.ndarray | None = None
    by: str = "weight"
    click: str = ""

    @classmethod
    def from_estimator(
        cls,
        pipeline: BaseEstimator,
        X: Any,
        *,
        behaviour: str | None = None,
        by: str = "weight",
        ax: Axes | None = None,
    ) -> AttentionDisplay:
        """Plot the weights or effects of the history of X from a fitted Pipeline.

        Values that were not seen at fit are "unknown". For names in the place of ids, map those of
        :func:`sklearn_din.explain`, and give them as ``events`` and ``candidates``.

        Parameters
        ----------
        pipeline : Pipeline, search over one, or CalibratedClassifierCV of one
            Fitted; a HistorySequenceEncoder among its steps and a DINClassifier at its end.
        X : DataFrame
            One impression, or several that share one history: a user's candidates.
        behaviour : str, default=None
            Which behaviour, by one of its history columns or by its name in
            :func:`sklearn_din.explain`. Required if there are several.
        by : {"weight", "leave_out"}, default="weight"
            What to plot for each event: its attention weight, or how much higher the log-odds are
            with it than without it. "leave_out" costs one prediction per event.
        ax : matplotlib Axes, default=None
            Where to plot; by default a new figure of suitable size.

        Returns
        -------
        display : AttentionDisplay
            Plotted.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If rows have different histories, there are several behaviours and none is chosen, or
            the network has no weights (``pooling="max"``).
        """
        check_choice(by, tuple(COLUMN_BY), name="by")
        fitted = split_pipeline(pipeline, purpose="AttentionDisplay")
        encoded = fitted.transformers.transform(X)
        schema = encoded.schema
        table = explain_encoded(fitted, encoded, by=by)
        behaviours = {schema.display_name(b): b for b in schema.behaviours if not b.is_bag}
        named = [n for n, b in behaviours.items() if behaviour in (None, *b.histories)]
        named = named or [name for name in behaviours if name == behaviour]
        if len(named) != 1:
            raise ValueError(f"behaviour must name one of {[*behaviours]}, got {behaviour!r}.")
        shown, chosen = named[0], behaviours[named[0]]
        table = table[table["behaviour"] == shown]
        weights, events = _one_history(table, len(encoded), chosen.histories)
        target, options = fitted.classifier._target, dict[str, Any]()
        if target.value_name == "probability":
            logits = fitted.classifier.decision_function(encoded)
            options["probability"] = fitted.calibration(logits)
        labels = _candidate_labels(fitted, encoded, chosen)
        options |= {"candidates": labels, "by": by, "click": target.click_name}
        return cls(weights=weights, events=events, **options).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> AttentionDisplay:
        """Plot bars for one impression, a heat map for several.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to plot; by default a new figure of suitable size.

        Returns
        -------
        self : AttentionDisplay
        """
        n_candidates, n_events = self.weights.shape
        size = (7.0, float(np.clip(1.5 + 0.24 * n_events, 2.6, 16)))
        if n_candidates > 1 and n_events:
            width = float(np.clip(4.5 + 0.32 * n_events, 7, 20))
            size = (width, float(np.clip(3.0 + 0.32 * n_candidates, 4.4, 16)))
        pyplot = import_package("matplotlib.pyplot", purpose="AttentionDisplay", extra="plot")
        if ax is None:
            self.figure_, self.ax_ = pyplot.subplots(figsize=size, layout="constrained")
        else:
            self.figure_, self.ax_ = cast("Figure", ax.figure), ax  # or a SubFigure
        number = f"{self.click} probability".strip()
        if n_events and n_candidates > 1:
            label = "candidates" if self.probability is None else f"candidates ({number})"
            shown = self._label_candidates("")
            _draw_heat(self.ax_, self.weights, self.events, shown, label=label, by=self.by)
            return self
        labels = self._label_candidates(f"{number} ")
        if n_events:
            _draw_bars(self.ax_, self.weights[0], self.events, labels[0], by=self.by)
        else:
            _draw_nothing(self.ax_, labels)
        return self

    def _label_candidates(self, number: str) -> list[str]:
        if self.probability is None:
            return self.candidates
        pairs = zip(self.candidates, self.probability, strict=True)
        return [f"{name} ({number}{probability:.0%})" for name, probability in pairs]


def _one_history(
    table: pd.DataFrame, n_rows: int, attributes: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """Return numbers (n_candidates, n_events), and the names of the events shared by all rows."""
    column = next(name for name in COLUMN_BY.values() if name in table)
    values = table[[*attributes]].itertuples(index=False)
    table = table.assign(event=[_event_name(event) for event in values])
    groups = [table[table["row"] == row] for row in range(n_rows)]
    first, *others = (group["event"].tolist() for group in groups)
    for row, history in enumerate(others, start=1):
        if history != first:
            is_longer = len(history) != len(first)
            raise ValueError(
                "the rows must share one history, so that candidates can be compared: row 0 has "
                f"{len(first)} events, row {row} has "
                f"{len(history) if is_longer else 'the same number of different ones'}."
            )
    return np.stack([group[column].to_numpy(dtype=float) for group in groups]), first


def _candidate_labels(
    fitted: FittedPipeline, X: EncodedFeatures, behaviour: Behaviour
) -> list[str]:
    """Name each impression's candidate as its history is named."""
    columns: list[Any] = []
    for name in filter(None, behaviour.candidate_of.values()):
        if X.schema[name].kind == "list":
            lists = pd.Series([ids[ids > 0] for ids in X[name]])
            columns.append(fitted.decode_lists(name, lists))
        else:
            columns.append(fitted.encoder.inverse_transform_ids(name, X[name]))
    return [_event_name(row) for row in zip(*columns, strict=True)]


def _event_name(values: Iterable[Any]) -> str:
    shown = []
    for value in values:
        those = value if isinstance(value, list | np.ndarray) else [value]
        named = ["unknown" if pd.isna(v) else str(v) for v in those]
        shown.append(_short(", ".join(named) or "none"))
    return "unknown" if set(shown) == {"unknown"} else " · ".join(shown)


def _draw_bars(
    ax: Axes, weights: np.ndarray, events: list[str], candidate: str, *, by: str
) -> None:
    """One impression: a bar per event, the oldest at the top."""
    positions = np.arange(len(weights))
    colours = [FOR if weight >= 0 else BELOW_ZERO[by] for weight in weights]
    ax.barh(positions, weights, color=colours, height=0.75)
    ax.axvline(0, color=GREY, linewidth=0.8)
    _name_ticks(ax.yaxis, events)
    ax.set_ylim(len(weights) - 0.4, -0.6)
    low, high = min(0.0, weights.min()), max(0.0, weights.max())
    room = 0.04 * ((high - low) or 1.0)
    ax.set_xlim(low - room * (low < 0), high + room * (high > 0 or low == 0))
    ax.set_ylabel("past events\n(newest at the bottom)")
    ax.set_xlabel(LEGENDS[by])
    ax.set_title(f"{TITLES[by]}, for\n{_plain(_short(candidate, 80))}")
    ax.spines[["top", "right"]].set_visible(False)


def _draw_heat(
    ax: Axes, weights: np.ndarray, events: list[str], candidates: list[str], *, label: str, by: str
) -> None:
    """Several candidates: a row per candidate, a column per event, in the bars' colours."""
    from matplotlib.colors import LinearSegmentedColormap

    largest = float(np.abs(weights).max()) or 1.0
    least, colours = 0.0, ["white", FOR]
    if weights.min() < 0:
        least, colours = -largest, [BELOW_ZERO[by], *colours]
    shades = LinearSegmentedColormap.from_list("interest", colours)
    mesh = ax.pcolormesh(weights, cmap=shades, vmin=least, vmax=largest)
    mesh.set(edgecolors="#e5e7eb", linewidth=0.8)
    ax.invert_yaxis()
    _name_ticks(ax.xaxis, events, at=0.5)
    ax.tick_params(axis="x", labelrotation=90 if len(events) > 4 else 0)
    _name_ticks(ax.yaxis, candidates, at=0.5)
    ax.set_xlabel("past events (newest on the right)")
    ax.set_ylabel(label)
    ax.set_title(f"{TITLES[by]}, candidate by candidate")
    ax.figure.colorbar(mesh, ax=ax, label=LEGENDS[by])
    if weights.size <= NOTED_CELLS:
        for (row, column), weight in np.ndenumerate(weights):
            colour = "white" if abs(weight) > 0.6 * largest else "black"
            middle: dict[str, Any] = {"ha": "center", "va": "center", "color": colour}
            ax.text(column + 0.5, row + 0.5, f"{weight:.2f}", **middle)


def _draw_nothing(ax: Axes, candidates: list[str]) -> None:
    more = f" and {len(candidates) - 3} more" if len(candidates) > 3 else ""
    text = "No past events: there is nothing to pay attention to.\nThe other columns decide alone."
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color=GREY)
    ax.set_xticks([])
    ax.set_yticks([])
    shown = "; ".join(candidates[:3]) + more
    ax.set_title(f"{TITLES['weight']}, for\n{_plain(_short(shown, 80))}")


def _short(name: str, longest: int = LONGEST_NAME) -> str:
    """Cut a long name in its middle: "A very long na…1997)"."""
    name = " ".join(name.split())
    if len(name) <= longest:
        return name
    tail = longest // 4
    return f"{name[: longest - tail - 1].rstrip()}…{name[-tail:].lstrip()}"


def _name_ticks(axis: Axis, names: list[str], *, at: float = 0.0) -> None:
    """Label ticks, fewer where they would cover each other; the last one always stays."""
    step = -(-len(names) // MOST_LABELS)
    positions = np.arange(len(names))[::-1][::step][::-1]
    axis.set_ticks(positions + at, [_plain(names[position]) for position in positions])


def _plain(name: str) -> str:
    return name.replace("$", r"\$")  # matplotlib reads text between dollar signs as a formula
