"""Pictures show the caller's values in the order of time, and say so when there is nothing."""

import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sklearn_din import AttentionDisplay, HistorySequenceEncoder, explain
from sklearn_din.inspection.display import AGAINST
from tests.click_frames import OF_TWINS, PAIR, TWINS
from tests.fitted_pipelines import make_model

matplotlib = pytest.importorskip("matplotlib", reason="install sklearn-din[plot] to draw")
matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


SHOWN = TWINS[["item", "kind", "hist_item", "hist_kind"]]
SHOWN = SHOWN.assign(item=[1, 2, 3, 1], hist_item=[[2, 1, 3], [2, 1, 3], [1], []])


@pytest.fixture(scope="module")
def model():
    return make_model(HistorySequenceEncoder(histories=PAIR)).fit(SHOWN, [0, 1, 0, 1])


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def drawn(display):
    display.figure_.canvas.draw()
    texts = [display.ax_.get_title(), display.ax_.get_xlabel(), display.ax_.get_ylabel()]
    return " ".join([*texts, *(text.get_text() for text in display.ax_.texts)])


def test_one_impression_is_bars_from_the_oldest_to_the_newest(model):
    display = AttentionDisplay.from_estimator(model, SHOWN[:1])
    assert ticks(display.ax_.yaxis) == ["2 · shoe", "1 · hat", "3 · shoe"]
    top, bottom = display.ax_.get_ylim()[1], display.ax_.get_ylim()[0]
    assert top < 0 < 2 < bottom, "the newest event is at the bottom"
    widths = [bar.get_width() for bar in display.ax_.patches]
    np.testing.assert_allclose(widths, explain(model, SHOWN[:1])["weight"], rtol=1e-6)
    probability = model.predict_proba(SHOWN[:1])[0, 1]
    assert f"1 · hat (probability {probability:.0%})" in drawn(display)


@pytest.mark.parametrize("make", [pd.DataFrame, pa.Table.from_pandas])
def test_an_event_not_seen_at_fit_reads_as_unknown(model, make):
    row = SHOWN[:1].assign(item=[77], hist_item=[[98, 99, 1]], hist_kind=[["tie", "hat", "hat"]])
    display = AttentionDisplay.from_estimator(model, make(row))
    assert ticks(display.ax_.yaxis) == ["unknown", "unknown · hat", "1 · hat"]
    assert "\nunknown · hat" in display.ax_.get_title()


def test_candidates_of_one_user_are_rows_of_a_heat_map(model):
    display = AttentionDisplay.from_estimator(model, SHOWN[:2])
    assert ticks(display.ax_.xaxis) == ["2 · shoe", "1 · hat", "3 · shoe"]
    assert [text.split(" (")[0] for text in ticks(display.ax_.yaxis)] == ["1 · hat", "2 · shoe"]
    weights = explain(model, SHOWN[:2])["weight"].to_numpy().reshape(2, 3)
    np.testing.assert_allclose(display.ax_.collections[0].get_array(), weights, rtol=1e-6)
    message = r"must share one history.*row 0 has 3 events, row 2 has 1"
    with pytest.raises(ValueError, match=message):
        AttentionDisplay.from_estimator(model, SHOWN[:3])
    with pytest.raises(ValueError, match="row 0 has 1 events, row 1 has 0"):
        AttentionDisplay.from_estimator(model, SHOWN[2:])
    display = AttentionDisplay.from_estimator(model, SHOWN[3:])
    assert "No past events" in drawn(display)
    assert "1 · hat" in drawn(display)


def display_of(*weights, **options):
    """A display of one impression, its events in order."""
    options = {"events": [f"item {n}" for n in range(len(weights))], "candidates": ["c"]} | options
    return AttentionDisplay(weights=np.array([weights]), **options)


def test_long_names_are_cut_in_their_middle(model):
    name = "Twelve pairs of very long woollen socks for $5 or $6, blue"
    named = SHOWN.assign(hist_kind=[[name, "hat", "shoe"], *SHOWN["hist_kind"][1:]])
    model = make_model(HistorySequenceEncoder(histories=PAIR)).fit(named, [0, 1, 0, 1])
    display = AttentionDisplay.from_estimator(model, named[:1])
    display.figure_.canvas.draw()
    label = ticks(display.ax_.yaxis)[0]
    assert len(label) < 37
    assert label.startswith("2 · Twelve pairs")
    assert label.endswith("blue")


@pytest.mark.parametrize("n_rows", [1, 2])
def test_effects_are_drawn_as_votes(model, n_rows):
    display = AttentionDisplay.from_estimator(model, SHOWN[:n_rows], by="leave_out")
    effects = explain(model, SHOWN[:n_rows], by="leave_out")
    assert display.by == "leave_out"
    np.testing.assert_allclose(display.weights, effects["effect"].to_numpy().reshape(n_rows, 3))
    legend = [display.ax_.get_xlabel(), *(ax.get_ylabel() for ax in display.figure_.axes)]
    votes = "above 0: speaks for the candidate, below 0: against it"
    assert any(votes in text for text in legend)
    assert "What each past event changes" in display.ax_.get_title()
    shown = display_of(0.5, -0.2, by="leave_out").plot()
    _, left = shown.ax_.patches
    assert matplotlib.colors.to_hex(left.get_facecolor()) == AGAINST


def test_given_axes_are_drawn_into():
    figure, ax = pyplot.subplots()
    assert display_of(0.5, 0.2).plot(ax=ax).figure_ is figure
    assert len(pyplot.get_fignums()) == 1


def test_several_behaviours_must_be_chosen_from():
    """One column's name is what the joint behaviour beside it would be called."""
    joint, single = "'hist_item' + 'hist_kind'", "'hist_item+hist_kind'"
    twins = make_model(HistorySequenceEncoder(histories=OF_TWINS)).fit(TWINS, [0, 1, 0, 1])
    weights = explain(twins, TWINS[:1]).set_index("behaviour")["weight"]
    with pytest.raises(ValueError, match=r"must name one of .*, got None"):
        AttentionDisplay.from_estimator(twins, TWINS[:1])
    for name, shown in ((joint, joint), (single, single), ("hist_kind", joint)):
        display = AttentionDisplay.from_estimator(twins, TWINS[:1], behaviour=name)
        np.testing.assert_array_equal(display.weights[0], weights[[shown]])


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    message = r"AttentionDisplay needs matplotlib.*pip install 'sklearn-din\[plot\]'"
    with pytest.raises(ImportError, match=message):
        display_of(1.0).plot()
