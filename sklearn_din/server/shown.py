"""What a server showed and what was clicked, as impressions to train on."""

import json
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from sklearn_din.server.json_values import write
from sklearn_din.server.store import SCHEMES, Store
from sklearn_din.utils.validation import check_choice
from sklearn_din.utils.warnings import warn_user

OWN_COLUMNS = ("user", "time", "item", "position", "score", "request", "label", "known")
IS_GIVEN = " is given"  # whether an event was posted with its label; no column of a log


def read_events(
    url: str | Path,
    *,
    window: Any = "1h",
    rows: Literal["shown", "posted"] = "shown",
    user: str = "user",
    time: str = "time",
    item: str = "item",
) -> pd.DataFrame:
    """Read what a server showed, with a label that says whether it was clicked.

    For the store of ``python -m sklearn_din serve --events URL --log-shown``. A click joins one
    showing, the newest one before it: by the ``request`` that its event names, else by user and
    item within ``window``. What was posted with a ``label`` and belongs to no showing is a row of
    its own; a 0 that names request and item of a showing is that row.

    The impressions are ready for ``attach_history`` (with the events of ``rows="posted"``), for
    ``fit`` and for ``update``. No column of an answer is younger than the answer.

    Parameters
    ----------
    url : str or path
        The file of SQLite, or ``postgresql://...``.
    window : duration or number, default="1h"
        How long after a showing a click may come that does not name its request: a number where
        times are numbers. Rows that are younger than that (by the clock, or by the newest number)
        may still be clicked: they are left out.
    rows : {"shown", "posted"}, default="shown"
        "posted" returns the clicks themselves, also those on what was found elsewhere: user, time,
        item, their columns and a label of 1. They are a log for ``attach_history``.
    user : str, default="user"
        How the column of users is called in the result, as the model knows it.
    time : str, default="time"
        The same of times.
    item : str, default="item"
        The same of items.

    Returns
    -------
    DataFrame
        A row for each item that was shown, ordered by time: user, time (without a zone, in UTC),
        item, the request's own columns, the item's columns of that day, position (from 1), score
        of the model of then, request, label, and known: the time from which on the label was sure.
        ``attrs["joined"]`` counts the clicks by how they were joined. Other columns that are called
        like these end in ``_of_item`` or ``_of_request``, with a warning; so do those of both.

    Examples
    --------
    >>> read_events("events.db")  # doctest: +SKIP
       user                time  item  position  score  label               known
    0     7 2026-11-02 09:00:00    12         1   0.41      1 2026-11-02 10:00:00
    """
    check_choice(rows, ("shown", "posted"), name="rows")
    taken = {*OWN_COLUMNS, user, time, item}
    if not str(url).startswith(SCHEMES) and not Path(url).is_file():
        raise ValueError(f"there is no store {url}: name that of serve --events.")
    store = Store(str(url), reads_only=True)
    try:
        posted = _read_posted(store, taken)
        shown = _read_shown(store, taken) if rows == "shown" else posted
    finally:
        store.close()
    joined: dict[str, int] = {}
    if rows == "posted":
        shown = posted[posted["label"] != 0].drop(columns=IS_GIVEN)
    else:
        are_numbers = _are_numbers(posted, shown)
        if are_numbers and isinstance(window, str):
            raise TypeError(
                f"window must be a number, as the times of the store are, got {window!r}."
            )
        window = window if are_numbers else pd.Timedelta(window)
        shown, joined = _join(shown, posted, window)
        shown["known"] = shown["time"] + window
        now = shown["time"].max() if _are_numbers(shown) else pd.Timestamp.now("UTC")
        shown = shown[shown["known"] <= now]
    shown = shown.sort_values("time", kind="stable").reset_index(drop=True)
    for name in ("user", "item"):
        shown[name] = [json.loads(text) for text in shown[name]]
    for name in shown.columns.intersection(["time", "known"]):
        if not _are_numbers(shown):
            shown[name] = shown[name].dt.tz_localize(None)
    shown = shown.drop(columns="label").assign(label=shown["label"].astype("int8"))
    shown = shown.rename(columns={"user": user, "time": time, "item": item})
    shown.attrs["joined"] = joined
    return shown


def _read_posted(store: Store, taken: Collection[str]) -> pd.DataFrame:
    """Return posted events: user and item as text of JSON, their own columns behind."""
    _, users, times, items, labels, others = _columns(store.read_blocks("events"), 6)
    own = pd.DataFrame([json.loads(text) for text in others], index=range(len(others)))
    request = own.pop("request") if "request" in own else pd.Series(index=own.index)
    own = _rename(own, taken, "_of_item").assign(request=request.astype(object))
    frame = pd.DataFrame({"user": users, "time": _read_times(times), "item": items})
    frame = frame.astype({"user": object, "item": object})
    given = pd.Series(labels, dtype="Int8")
    frame = pd.concat([frame, own], axis=1)
    return frame.assign(**{"label": given.fillna(1), IS_GIVEN: given.notna()})


def _read_shown(store: Store, taken: Collection[str]) -> pd.DataFrame:
    """Return a row for each item that was shown."""
    _, requests, users, times, *others = _columns(store.read_blocks("shown"), 8)
    own, items, scores, facts = ([json.loads(text) for text in column] for column in others)
    lengths = [len(some) for some in items]
    answer = np.repeat(np.arange(len(items)), lengths)
    users = tuple(write(json.loads(user)) for user in users)  # as events have them, also of before
    frame = pd.DataFrame({"user": users, "time": _read_times(times)}).iloc[answer]
    frame["item"] = [write(item) for some in items for item in some]
    frame = frame.astype({"user": object, "item": object})
    of_items = pd.DataFrame([fact for some in facts for fact in some], index=range(len(answer)))
    of_items = _rename(of_items, taken, "_of_item")
    of_requests = pd.DataFrame(own, index=range(len(own)))
    of_requests = _rename(of_requests, {*taken, *of_items}, "_of_request").iloc[answer]
    parts = [part.reset_index(drop=True) for part in (frame, of_requests, of_items)]
    return pd.concat(parts, axis=1).assign(
        position=[place for n in lengths for place in range(1, n + 1)],
        score=[score for some in scores for score in some],
        request=np.asarray(requests, dtype=object)[answer],
    )


def _rename(frame: pd.DataFrame, taken: Collection[str], ending: str) -> pd.DataFrame:
    """Return columns with other names where they are taken, and warn of those."""
    names = {name: f"{name}{ending}" for name in frame.columns if name in taken}
    if names:
        warn_user(
            f"columns {[*names]} of items or requests are called like others that read_events "
            f"returns: here they are {[*names.values()]}. Rename them before fit."
        )
    return frame.rename(columns=names)


def _join(shown: pd.DataFrame, posted: pd.DataFrame, window: Any) -> tuple[pd.DataFrame, dict]:
    """Return what was shown with its labels, and how many clicks were joined by which."""
    places = shown.assign(row=np.arange(len(shown)))[["request", "user", "item", "time", "row"]]
    named = posted[posted["request"].notna()].reset_index(names="event")
    by_request = named.merge(places[["request", "item", "row"]], on=["request", "item"])
    row_of_named = by_request.drop_duplicates("event").set_index("event")["row"]
    others = posted[(posted["label"] != 0) & ~posted.index.isin(row_of_named.index)]
    by_user = pd.merge_asof(
        others.reset_index(names="event")[["event", "user", "item", "time"]].sort_values("time"),
        places.drop(columns="request").sort_values("time", kind="stable"),
        on="time",
        by=["user", "item"],
        tolerance=window,
    ).dropna(subset="row")
    row_of_other = by_user.set_index("event")["row"].astype(int)
    is_click = posted["label"] != 0
    row_of_click = pd.concat([row_of_named[is_click[row_of_named.index]], row_of_other])
    shown = shown.assign(label=np.isin(np.arange(len(shown)), row_of_click).astype("int8"))
    is_alone = ~posted.index.isin([*row_of_named.index, *row_of_other.index])
    alone = posted[posted[IS_GIVEN] & is_alone]
    joined = {"request": len(row_of_click) - len(by_user), "user and item": len(by_user)}
    joined["nothing shown"] = int(is_click.sum()) - sum(joined.values())
    parts = [part for part in (shown, alone.drop(columns=IS_GIVEN)) if len(part)]
    return pd.concat(parts or [shown], ignore_index=True), joined


def _columns(blocks: Iterator[list[tuple[Any, ...]]], n: int) -> list[tuple[Any, ...]]:
    return list(zip(*chain.from_iterable(blocks), strict=True)) or [()] * n


def _read_times(texts: tuple[str, ...]) -> pd.Series:
    """Return times that were stored: dates in UTC, or numbers."""
    values = [json.loads(text) for text in texts]
    if any(isinstance(value, str) for value in values) or not values:
        dates = pd.to_datetime(pd.Series(values, dtype=object), utc=True, format="ISO8601")
        return dates.dt.as_unit("ns")
    return pd.Series(values)


def _are_numbers(*frames: pd.DataFrame) -> bool:
    """Return whether the times of the first frame that has a row are numbers."""
    times = next(
        (frame["time"] for frame in frames if len(frame)), pd.Series(dtype="datetime64[ns]")
    )
    return pd.api.types.is_numeric_dtype(times)
