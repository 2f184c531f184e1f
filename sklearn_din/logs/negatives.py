"""Negative sampling: rows that the user did not choose, beside those that the user did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from narwhals.typing import IntoDataFrameT
from sklearn.utils import check_random_state

from sklearn_din._frames import CallerFrame
from sklearn_din._validation import check_frame, check_name, check_names, check_times
from sklearn_din.logs.other_items import (
    ItemVersions,
    NegativesRequest,
    OwnItems,
    number_as_they_come,
    number_ids,
)
from sklearn_din.logs.sampling_notices import time_ranks, warn_of_leaks
from sklearn_din.tables.scan import Scan


def sample_negatives(
    events: IntoDataFrameT,
    *,
    item: str,
    item_columns: str | Sequence[str] = (),
    n_negatives: int = 1,
    user: str | None = None,
    time: str | None = None,
    strategy: str = "uniform",
    random_state: int | np.random.RandomState | None = None,
) -> tuple[IntoDataFrameT, np.ndarray]:
    """Follow each event (1) with rows that show another item (0) in its place.

    A negative repeats its event's row with another item of the log. Each is drawn on its own:
    an event may get one item twice. The draw is exact, without rejection, so it takes as long
    for a user who has almost every item.

    Parameters
    ----------
    events : pandas, polars or Arrow frame, or scan, of shape (n_events, ...)
        What users chose. It is not changed. The result is of this kind. Of a scan
        (:func:`scan_parquet`) the impressions are written to a Parquet file in its ``cache_dir``,
        or in a temporary folder, that is removed with the result; DuckDB sorts the events
        (``pip install 'sklearn-din[large]'``). They follow the same rules as those of a frame, but
        the same seed draws other items.
    item : str
        Item column. The catalogue is the items that occur in it, with ``time`` those of which there
        is an event by then.
    item_columns : str or list of str, default=()
        Columns that describe the item, such as its category. A negative gets the values of its
        own item, as they are in the item's last row in ``events``, or with ``time`` as they were
        at the event's time. A column of the item that is not named here keeps the value of the
        clicked item, which gives the label away.
    n_negatives : int, default=1
        Number of negatives per event.
    user : str or None, default=None
        User column. Where given, a negative is never an item that the same user has among the
        events: right where nobody takes an item twice. None only rules out the event's own item.
    time : str or None, default=None
        Time column: integers, floats or datetimes. Name it wherever there is one. A negative is
        then an item of which there is an event by that time (where the user has all of those, the
        next one that comes up), with the values that it had in its newest row up to that time.
        Without it, items are shown before they exist, which tells the negatives, and so does the
        latest value of a column that changes in time, such as a price.
    strategy : {"uniform", "popularity"}, default="uniform"
        How negatives are drawn: "uniform" gives each item of the catalogue the same chance,
        "popularity" a chance in proportion to its events, which makes harder negatives.
    random_state : int, RandomState instance or None, default=None
        Seed of the draw. An int gives the same negatives at each call.

    Returns
    -------
    impressions : DataFrame, Table or ParquetScan of shape (n_events * (1 + n_negatives), ...)
        Each event followed by its negatives, with all columns and dtypes of ``events``; in pandas
        with a fresh RangeIndex.
    y : ndarray of int64, of int8 for a scan
        1 for an event, 0 for a negative.

    Warns
    -----
    UserWarning
        If a column is explained by the item and is not named in ``item_columns``, or is named there
        and has one value for each user; if a tenth of the negatives would show an item before
        its first event; if a tenth of the events repeat a pair of ``user`` and item. All need
        enough rows to be no accident.

    Examples
    --------
    >>> import pandas as pd
    >>> clicks = pd.DataFrame({"user": [1, 1, 2], "item": ["hat", "sock", "tie"]})
    >>> impressions, y = sample_negatives(clicks, item="item", user="user", random_state=0)
    >>> impressions.assign(y=y)
       user  item  y
    0     1   hat  1
    1     1   tie  0
    2     1  sock  1
    3     1   tie  0
    4     2   tie  1
    5     2  sock  0
    """
    check_name(item, name="item")
    check_name(user, name="user")
    check_name(time, name="time")
    following = check_names(item_columns, name="item_columns")
    request = NegativesRequest(item, following, n_negatives, user, time, strategy)
    if isinstance(events, Scan):
        from sklearn_din.logs.sql_negatives import sample_negatives_by_sql

        request.check_options()
        return sample_negatives_by_sql(events, request, random_state)
    log = CallerFrame(events, name="events")
    frame = log.pandas
    check_frame(frame, [*request.following, *request.keys, *request.timed], name="events")
    request.check_options()
    if len(frame) == 0:
        raise ValueError("events must have at least one row, got none.")
    items, catalogue = number_ids(frame, item)
    ranks = n_up = None
    if time is not None:
        check_times(frame[time], name=f"events[{time!r}]")
        ranks = time_ranks(frame[time])
        items, order, n_up = number_as_they_come(items, ranks)
        catalogue = catalogue[order]
    owners, owner_names = (items, catalogue) if user is None else number_ids(frame, user)
    weights = np.bincount(items) if strategy == "popularity" else np.ones(len(catalogue), np.int64)
    own = OwnItems(owners, items, weights)
    nothing_left = np.flatnonzero(own.free == 0)
    if len(nothing_left):
        raise request.nothing_to_draw(owner_names[nothing_left[:1]].tolist()[0])
    warn_of_leaks(frame, request, items, None if user is None else owners)
    drawn = own.draw_others(owners, n_negatives, check_random_state(random_state), n_up)

    positions = np.arange(len(frame))
    if ranks is None:  # as in the item's last row
        last_row = np.empty(len(catalogue), dtype=np.int64)
        last_row[items] = positions  # of repeated indices numpy keeps the last
        source = last_row[drawn]
    else:
        source = ItemVersions(items, ranks).find(drawn, ranks)
    sources = np.column_stack([positions, source]).ravel()
    rows = np.repeat(positions, 1 + n_negatives)
    impressions = log.take(rows, instead=dict.fromkeys(request.following, sources))
    y = np.zeros((len(frame), 1 + n_negatives), dtype=np.int64)
    y[:, 0] = 1
    return impressions, y.ravel()
