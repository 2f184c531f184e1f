"""Two tables whose clocks differ are told apart from two whose clocks agree."""

import numpy as np
import pandas as pd
import pytest

from sklearn_din import attach_history
from sklearn_din.logs.clocks import note_clocks
from tests.tables import as_scan, said

SECONDS = np.sort(np.random.default_rng(0).integers(0, 90 * 86_400, 300)) + 1_400_000_000
TIMES = pd.Series(pd.to_datetime(SECONDS, unit="s"), name="time")


def frames(shown, log):
    user = np.arange(300) % 10
    item = np.arange(300) % 7
    return [pd.DataFrame({"user": user, "item": item, "time": times}) for times in (shown, log)]


def attach(shown, log):
    def call():
        attach_history(shown, log, user="user", time="time", columns="item")

    return said(call, filename=__file__)[0]


@pytest.mark.parametrize(("grain", "letter"), [("days", "D"), ("hours", "h"), ("minutes", "min")])
@pytest.mark.parametrize("zone", [None, "Asia/Kolkata"])
def test_events_of_a_coarser_grain_and_the_advice(grain, letter, zone):
    times = TIMES.dt.tz_localize(zone)
    shown, log = frames(times, times.dt.floor(letter))
    (message,) = attach(shown, log)
    assert message.startswith(f"the times of events are whole {grain}, those of impressions")
    assert message.endswith(f"impressions['time'].dt.floor('{letter}').")
    shown["time"] = shown["time"].dt.floor(letter)
    assert attach(shown, log) == []
    assert attach(*frames(times.dt.floor(letter), times)) == []  # they see less, not too much


@pytest.mark.parametrize(
    ("factors", "advice"),
    [((1000, 1), "events['time'] * 1000."), ((1, 1_000_000), "impressions['time'] * 1000000.")],
)
def test_numbers_of_another_unit_or_grain_and_the_advice(factors, advice):
    shown, log = frames(SECONDS * factors[0], SECONDS * factors[1])
    message = attach(shown, log)[0]
    assert message.startswith("the times of impressions look like ")
    assert message.endswith(f"Give both one unit, {advice}")
    (shown if factors[0] == 1 else log)["time"] *= max(factors)
    assert attach(shown, log) == []
    shown, log = frames(SECONDS, SECONDS // 86_400 * 86_400)
    (message,) = attach(shown, log)
    assert message.endswith("impressions['time'] // 86400 * 86400.")
    shown["time"] = shown["time"] // 86_400 * 86_400
    assert attach(shown, log) == []


@pytest.mark.parametrize("kind", ["Date", "Datetime"])
def test_dates_of_polars_of_files_and_of_a_misread_unit(kind, tmp_path):
    pl = pytest.importorskip("polars")
    shown, log = (pl.from_pandas(frame) for frame in frames(TIMES, TIMES))
    log = log.with_columns(pl.col("time").cast(getattr(pl, kind)))
    messages = attach(shown, log)
    assert len(messages) == (kind == "Date")
    assert all("whole days" in message for message in messages)
    shown, log = frames(TIMES, TIMES.dt.floor("D"))
    assert attach(as_scan(shown, tmp_path), log) == attach(shown, log) != []
    misread = pd.Series(pd.to_datetime(SECONDS))  # nanoseconds: 1.4 seconds after 1970
    (message,) = attach(*frames(TIMES, misread))
    assert message.startswith("the times of events are about 1970 and the others are not")


@pytest.mark.parametrize(
    "pair",
    [
        (TIMES, TIMES + pd.Timedelta("3s")),
        (TIMES.dt.floor("D"), TIMES.dt.floor("D")),
        (TIMES.dt.floor("min"), TIMES.dt.floor("min")),
        (pd.Series(np.arange(300) + 5000), pd.Series(np.arange(300))),  # counters
        (pd.Series(SECONDS / 7.0), pd.Series(SECONDS)),
        (TIMES[:10], TIMES.dt.floor("D")),  # too few to tell
        (TIMES, TIMES.dt.floor("D").where(TIMES.index != 7, TIMES)),  # one exception
    ],
)
def test_clocks_that_agree_or_cannot_be_told_say_nothing(pair):
    assert note_clocks(*pair) is None
