"""How a picture is drawn: arrays and names in, matplotlib out."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

if TYPE_CHECKING:  # matplotlib need not be installed
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

FOR, AGAINST, GREY = "#1f6fb4", "#d1662b", "#6b7280"
LONGEST_NAME = 26
MOST_LABELS = 60
NOTED_CELLS = 60


def draw_bars(ax: Axes, weights: np.ndarray, events: list[str], candidate: str) -> None:
    """One impression: a bar per event, the oldest at the top."""
    places = np.arange(len(weights))
    colours = [FOR if weight >= 0 else AGAINST for weight in weights]
    ax.barh(places, weights, color=colours, height=0.75)
    ax.axvline(0, color=GREY, linewidth=0.8)
    _name_ticks(ax.yaxis, places, events)
    ax.set_ylim(len(weights) - 0.4, -0.6)
    low, high = min(0.0, weights.min()), max(0.0, weights.max())
    room = 0.04 * ((high - low) or 1.0)
    ax.set_xlim(low - room * (low < 0), high + room * (high > 0 or low == 0))
    ax.set_ylabel("past events\n(newest at the bottom)")
    ax.set_xlabel(_weight_text(weights))
    ax.set_title(_title(candidate))
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def draw_heat(
    ax: Axes, weights: np.ndarray, events: list[str], candidates: list[str], *, label: str
) -> None:
    """Several candidates: a row per candidate, a column per event, in the bars' colours."""
    from matplotlib.colors import LinearSegmentedColormap

    largest = float(np.abs(weights).max()) or 1.0
    colours = [AGAINST, "white", FOR] if weights.min() < 0 else ["white", FOR]
    image = ax.imshow(
        weights,
        aspect="auto",
        cmap=LinearSegmentedColormap.from_list("interest", colours),
        vmin=-largest if weights.min() < 0 else 0.0,
        vmax=largest,
    )
    n_candidates, n_events = weights.shape
    _name_ticks(ax.xaxis, np.arange(n_events), events)
    ax.tick_params(axis="x", labelrotation=90 if n_events > 4 else 0)
    _name_ticks(ax.yaxis, np.arange(n_candidates), candidates)
    ax.set_xlabel("past events (newest on the right)")
    ax.set_ylabel(label)
    ax.set_title("What counts in the history, candidate by candidate")
    ax.set_xticks(np.arange(1, n_events) - 0.5, minor=True)
    ax.set_yticks(np.arange(1, n_candidates) - 0.5, minor=True)
    ax.grid(which="minor", color="#e5e7eb", linewidth=0.8)
    ax.tick_params(which="minor", length=0)
    ax.figure.colorbar(image, ax=ax, label=_weight_text(weights))
    if weights.size <= NOTED_CELLS:
        for (row, column), weight in np.ndenumerate(weights):
            colour = "white" if abs(weight) > 0.6 * largest else "black"
            ax.text(column, row, f"{weight:.2f}", ha="center", va="center", color=colour)


def draw_nothing(ax: Axes, candidates: list[str]) -> None:
    """Say that there is no history."""
    more = f" and {len(candidates) - 3} more" if len(candidates) > 3 else ""
    text = "No past events: there is nothing to pay attention to.\nThe other columns decide alone."
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color=GREY)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(_title("; ".join(candidates[:3]) + more))


def draw_losses(ax: Axes, history: pd.DataFrame, best_epoch: float | None) -> None:
    """Loss by epoch, the validation check that is kept marked."""
    epoch, train_loss = history["epoch"], history["train_loss"]
    ax.plot(epoch, train_loss, color=GREY, label="training rows", marker="o", markersize=4)
    if best_epoch is None:
        ax.set_title("Training (no validation rows: the last epoch is kept)")
    else:
        valid_loss = history["valid_loss"]
        ax.plot(epoch, valid_loss, color=FOR, label="validation rows", marker="o", markersize=4)
        ax.set_title(f"Training: the network as it was after epoch {best_epoch:.3g} is kept")
        _mark(ax, best_epoch)
    ax.set_ylabel("loss\n(lower is better)")
    ax.legend(frameon=False)


def draw_auc(ax: Axes, history: pd.DataFrame, best_epoch: float) -> None:
    """AUC by epoch, that of the validation check that is kept written out."""
    ax.plot(history["epoch"], history["valid_auc"], color=FOR, marker="o", markersize=4)
    ax.set_ylabel("AUC on validation rows\n(higher is better)")
    _mark(ax, best_epoch)
    auc = history.loc[history["epoch"] == best_epoch, "valid_auc"].iloc[0]
    ax.margins(y=0.25)
    is_late = best_epoch > history["epoch"].iloc[[0, -1]].mean()
    ax.annotate(
        f"kept: {auc:.4f}",
        (best_epoch, auc),
        xytext=(-6 if is_late else 6, -16),
        textcoords="offset points",
        ha="right" if is_late else "left",
        va="top",
        color=AGAINST,
    )


def new_axes(ax: Axes | None, size: tuple[float, float], *, purpose: str) -> tuple[Figure, Axes]:
    """Figure and axes: those given, or new ones."""
    pyplot = _pyplot(purpose)
    if ax is None:
        return pyplot.subplots(figsize=size, layout="constrained")
    return cast("Figure", ax.figure), ax  # or a SubFigure, where ax lies in one


def new_panels(ax: Axes | None, n_panels: int, *, purpose: str) -> tuple[Figure, np.ndarray]:
    """Figure and panels above each other that share x, in a new figure or in the place of ax."""
    pyplot = _pyplot(purpose)
    if ax is None:
        size = (6.4, 1.6 + 2.2 * n_panels)
        figure, axes = pyplot.subplots(
            n_panels, figsize=size, sharex=True, layout="constrained", squeeze=False
        )
        return figure, axes[:, 0]
    ax.set_axis_off()
    height = 1 / n_panels
    bottoms = [1 - (panel + 1) * height for panel in range(n_panels)]
    axes = np.array([ax.inset_axes((0, b, 1, height - 0.06 * (n_panels > 1))) for b in bottoms])
    for upper in axes[:-1]:
        upper.sharex(axes[-1])
        upper.tick_params(labelbottom=False)
    return cast("Figure", ax.figure), axes


def short(name: str, longest: int = LONGEST_NAME) -> str:
    """Cut a long name in its middle.

    Examples
    --------
    >>> short("A very long name of a film (1997)", 20)
    'A very long na…1997)'
    """
    name = " ".join(name.split())
    if len(name) <= longest:
        return name
    tail = longest // 4
    return f"{name[: longest - tail - 1].rstrip()}…{name[-tail:].lstrip()}"


def _title(candidate: str) -> str:
    return f"What counts in the history for\n{_plain(short(candidate, 80))}"


def _name_ticks(axis: Axis, places: np.ndarray, names: list[str]) -> None:
    """Tick labels, thinned where they would cover each other; the last one always stays."""
    step = -(-len(places) // MOST_LABELS)
    kept = places[::-1][::step][::-1]
    axis.set_ticks(kept, [_plain(names[place]) for place in kept])


def _plain(name: str) -> str:
    return name.replace("$", r"\$")  # matplotlib reads text between dollar signs as a formula


def _weight_text(weights: np.ndarray) -> str:
    if weights.size and weights.min() < 0:
        return "attention weight\n(0: ignored, below 0: counted against)"
    return "attention weight (0: ignored)"


def _mark(ax: Axes, epoch: float) -> None:
    ax.axvline(epoch, color=AGAINST, linestyle="--", linewidth=1.2, zorder=0)


def _pyplot(purpose: str) -> ModuleType:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs matplotlib, which is not installed. Install it with: "
            "pip install 'sklearn-din[plot]'"
        ) from error
    return pyplot
