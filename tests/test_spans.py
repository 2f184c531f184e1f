"""Windows over flat arrays against plain loops: positions, newest, elapsed times, coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_din._spans import Spans, log_elapsed

N_EVENTS = 12
WINDOWS = st.lists(
    st.integers(0, N_EVENTS).flatmap(
        lambda start: st.tuples(st.just(start), st.integers(0, N_EVENTS - start))
    ),
    max_size=8,
)


def spans_of(windows):
    starts = np.array([start for start, _ in windows], dtype=np.int64)
    return Spans(starts, np.array([length for _, length in windows], dtype=np.int32))


def events_of(windows):
    return [list(range(start, start + length)) for start, length in windows]


@given(WINDOWS)
def test_the_index_is_every_event_row_after_row(windows):
    expected = [event for row in events_of(windows) for event in row]
    assert spans_of(windows).index().tolist() == expected


@given(WINDOWS, st.integers(1, 4))
def test_newest_keeps_the_last_events_of_each_row(windows, max_length):
    expected = [event for row in events_of(windows) for event in row[-max_length:]]
    assert spans_of(windows).newest(max_length).index().tolist() == expected


@given(WINDOWS)
def test_elapsed_is_the_row_s_time_less_each_event_s(windows):
    times = np.linspace(0.0, 3.0, N_EVENTS) ** 2
    anchors = np.arange(len(windows)) + 10.0
    expected = [
        anchors[row] - times[event]
        for row, events in enumerate(events_of(windows))
        for event in events
    ]
    assert spans_of(windows).time_since(times, anchors).tolist() == expected


@given(WINDOWS)
def test_covered_events_are_those_of_some_row_and_the_rows_stay_what_they_were(windows):
    spans, values = spans_of(windows), np.arange(N_EVENTS) * 7
    covered = spans.cover()
    held = [event for row in events_of(windows) for event in row]
    kept = sorted(set(held))
    assert values[covered.kept].tolist() == [7 * event for event in kept]
    assert covered.n_events == len(kept)
    assert covered.counts().tolist() == [held.count(event) for event in kept]
    assert values[covered.kept][covered.spans.index()].tolist() == values[spans.index()].tolist()
    assert covered.spans.lengths.tolist() == spans.lengths.tolist()


@given(WINDOWS)
def test_coverage_does_not_depend_on_the_order_of_the_rows(windows):
    forwards, backwards = spans_of(windows).cover(), spans_of(windows[::-1]).cover()
    assert forwards.run_starts.tolist() == backwards.run_starts.tolist()
    assert forwards.run_lengths.tolist() == backwards.run_lengths.tolist()


def test_one_run_is_a_slice_and_costs_no_index():
    assert spans_of([(4, 2), (6, 1)]).cover().kept == slice(4, 7)
    assert spans_of([(4, 0)]).cover().kept == slice(0, 0)
    assert spans_of([(4, 1), (8, 1)]).cover().kept.tolist() == [4, 8]


@pytest.mark.parametrize("rows", [slice(1, 3), np.array([2, 0]), np.array([True, False, True])])
def test_rows_are_taken_as_numpy_takes_them(rows):
    windows = [(0, 2), (5, 1), (3, 3)]
    taken = spans_of(windows).take(rows)
    assert list(zip(taken.starts, taken.lengths, strict=True)) == [
        tuple(window) for window in np.array(windows)[rows]
    ]


def test_a_time_before_its_event_counts_as_none_elapsed():
    assert log_elapsed(np.array([-1.0, 0.0, 1.0])).tolist() == pytest.approx([0, 0, np.log(2)])
