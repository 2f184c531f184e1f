"""Two tables whose clocks differ are told apart from two whose clocks agree."""

import numpy as np
import pandas as pd
import pytest

from sklearn_din import HistoryBuilder, attach_aggregates, attach_history
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


@pytest.mark.parametrize("seconds", [60, 3_600, 86_400])
def test_the_moment_after_the_newest_event_is_no_finer_clock(seconds):
    """As a ranking asks for it, for users without a time."""
    events = pd.Series(pd.date_range("2024-01-01", periods=60, freq=f"{seconds}s"))
    now = pd.Series([events.max() + pd.Timedelta(1, unit="s")] * 40)
    assert note_clocks(now, events) is None
    assert note_clocks(now + pd.Timedelta(7, unit="s"), events) is not None


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


@pytest.mark.parametrize("pair", [
    (TIMES, TIMES + pd.Timedelta("3s")),
    (TIMES.dt.floor("D"), TIMES.dt.floor("D")),
    (TIMES.dt.floor("min"), TIMES.dt.floor("min")),
    (pd.Series(np.arange(300) + 5000), pd.Series(np.arange(300))),  # counters
    (pd.Series(SECONDS / 7.0), pd.Series(SECONDS)),
    (TIMES[:10], TIMES.dt.floor("D")),  # too few to tell
    (TIMES, TIMES.dt.floor("D").where(TIMES.index != 7, TIMES)),  # one exception
])  # fmt: skip
def test_clocks_that_agree_or_cannot_be_told_say_nothing(pair):
    assert note_clocks(*pair) is None


def make_outcomes(n_rows=2_000, seed=0):
    """Rows by seconds of users who come back to their items, and what came of them."""
    rng = np.random.RandomState(seed)
    days, start = rng.randint(90, size=n_rows), pd.Timestamp("2024-01-01")
    seconds = np.sort(days * 86_400 + rng.randint(8 * 3600, 22 * 3600, size=n_rows))
    names = {"user": rng.randint(60, size=n_rows), "item": rng.randint(12, size=n_rows)}
    rows = pd.DataFrame({**names, "time": start + pd.to_timedelta(seconds, unit="s")})
    return rows, rng.randint(2, size=n_rows)


def tell(rows, told, y, way, known=None, some=np.True_):
    """What is said where the later half of some rows is asked by outcomes with their own times."""
    late, columns = rows["time"] > rows["time"].iloc[len(rows) // 2], ["user", "item", "time"]

    def call():
        if way == "attached":
            log = told.assign(label=y)[some & (y >= 0)]
            options = {"time": "time", "aggregates": "levels", "user": "user", "label": "label"}
            attach_aggregates(rows[columns], log, known=known, **options)
            return
        names = {"user": "user", "time": "time", "columns": ["item"], "events": "all"}
        memory = HistoryBuilder(**names, levels="auto", known=known)
        memory.fit(rows[~late].assign(known=rows["time"]) if known else rows[~late], y[~late])
        memory.partial_fit(told[late & some], y[late & some])
        memory.transform(rows.loc[late, columns])

    return said(call, filename=__file__)[0]


@pytest.mark.parametrize("way", ["attached", "remembered"])
@pytest.mark.parametrize("early", ["5s", "2h", "dates"])
def test_outcomes_told_by_an_early_clock_are_said_and_the_advice_works(way, early):
    rows, y = make_outcomes()
    told = rows.assign(time=rows["time"] - pd.Timedelta("5s" if early == "dates" else early))
    if early == "dates":
        told = rows.assign(time=rows["time"].dt.normalize())
        message = tell(rows, told, y, way)[0]
        assert "are whole days, those of" in message
        assert "what happened later in the same one counts as the past" in message
        return
    (message,) = tell(rows, told, y, way)
    assert "of the same user and columns that was told pd.Timedelta" in message
    assert "what came of each row counts as its past" in message
    told["time"] += eval(message.split(" to 'time'")[0].split("Add ")[1])
    assert tell(rows, told, y, way) == []
    numbers = rows.assign(time=np.arange(len(rows)) * 7.5)
    (message,) = tell(numbers, numbers.assign(time=numbers["time"] - 0.25), y, way)
    assert message.endswith("Add 0.25 to 'time' of what is told.")


@pytest.mark.parametrize("way", ["attached", "remembered"])
@pytest.mark.parametrize("what", ["all", "twice", "again", "clicks", "some", "late"])
def test_honest_twins_are_not_said(way, what):
    """Rows logged twice, tried again at once, of people who come back each day, told in part."""
    rows, y = make_outcomes()
    times = rows["time"]
    if what in ("twice", "again"):
        some = np.arange(len(rows)) % (1 if what == "twice" else 10) == 0
        rows = pd.concat([rows, rows[some].assign(time=times[some] + pd.Timedelta("2s"))])
        y = np.append(y, y[some])
    elif what == "late":  # each comes back after a day; what came of it was known later
        rows = pd.concat([rows, rows.assign(time=times + pd.Timedelta("1D"))])
        y = np.append(y, 1 - y)
    order = np.argsort(rows["time"], kind="stable")
    rows, y, known = rows.iloc[order].reset_index(drop=True), y[order], None
    told = rows.copy()
    if what == "late":
        known, told = "known", rows.assign(known=rows["time"] + pd.Timedelta("3h"))
    some = {"clicks": y == 1, "some": np.arange(len(y)) % 2 == 0}.get(what, y >= 0)
    assert tell(rows, told, y, way, known, some) == []
