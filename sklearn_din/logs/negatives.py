"""Negative sampling: rows with items that the user did not choose."""

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import pyarrow as pa
from narwhals.typing import IntoDataFrameT
from sklearn.utils import check_random_state

from sklearn_din.logs.distinct import note_labels, row_codes
from sklearn_din.logs.other_items import (
    Arrivals,
    ItemVersions,
    NegativesRequest,
    OwnItems,
    number_as_they_come,
    number_ids,
)
from sklearn_din.logs.sampling_notices import (
    choose_pools,
    time_ranks,
    warn_of_items_of_one_user,
    warn_of_later_values,
    warn_of_leaks,
)
from sklearn_din.utils.frames import CallerFrame
from sklearn_din.utils.scan import Scan
from sklearn_din.utils.validation import check_frame, check_name, check_names, check_times
from sklearn_din.utils.warnings import log_once


def sample_negatives(
    events: IntoDataFrameT,
    *,
    item: str,
    item_columns: str | Sequence[str] = (),
    n_negatives: int = 1,
    user: str | None = None,
    time: str | None = None,
    strategy: str = "uniform",
    launched: bool | str = "auto",
    catalogue: IntoDataFrameT | Scan | None = None,
    catalogue_time: str | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[IntoDataFrameT, np.ndarray]:
    """Add after each event (1) rows that show another item (0) in its place.

    A negative repeats the row of its event with another item of the log. Draws are independent,
    so an event may get the same item twice. They are exact, without rejection, and take no longer
    for a user who has almost every item.

    Parameters
    ----------
    events : pandas, polars or Arrow frame, or scan, of shape (n_events, ...)
        What users chose. The frame is not changed, and the result is of the same kind. For a scan
        (:func:`scan_parquet`) the impressions are written to a Parquet file in its ``cache_dir``,
        or in a temporary folder, and deleted with the result; DuckDB sorts the events (``pip
        install 'sklearn-din[large]'``). The rules are those for a frame, but the same seed draws
        other items.
    item : str
        Item column. Negatives are drawn from the items in it and those of ``catalogue``.
    item_columns : str or list of str, default=()
        Columns that describe the item, such as its category. A negative gets the values of its
        own item: those of the item's last row in ``events``, or with ``time`` those at the time
        of the event. An item column that is not named here keeps the value of the clicked item,
        which reveals the label.
    n_negatives : int, default=1
        Number of negatives per event.
    user : str or None, default=None
        User column. If given, a negative is never an item that the same user has among the
        events: right if nobody takes an item twice. None only excludes the event's own item.
    time : str or None, default=None
        Time column: integers, floats or datetimes. Name it if there is one. A negative then has
        the values of its item's newest row up to the time of the event, or of its first row if
        there is none yet. Without it, items are shown before they exist, and columns that change
        over time, such as a price, have their latest value; both reveal the negatives.
    strategy : {"uniform", "popularity"}, default="uniform"
        How to draw negatives: "uniform" gives each item of the catalogue the same chance,
        "popularity" a chance proportional to its number of events, which makes harder negatives.
    launched : {"auto", True, False}, default="auto"
        Whether items were launched over time. False draws from all items. True draws, for an
        event whose item had an earlier event, from the items that had one; for an item's first
        event, from all items that appear then or later: no count of the past reveals negatives.
        "auto" decides from the log, and logs the decision (logger "sklearn_din"): for items that
        always existed, the first of m events is expected near 1 / (m + 1) of the log. If most
        items have only one event, the log cannot tell, and "auto" acts like True.
    catalogue : frame or scan of shape (n_items, ...) or None, default=None
        Items that could be chosen, whether or not anybody did: ``item`` and ``item_columns``.
        Pass it if many items have no event. "auto" for ``launched`` then depends on whether there
        is a ``catalogue_time``.
    catalogue_time : str or None, default=None
        Column of ``catalogue`` with the time from which an item exists and may be drawn. An item
        that changes may have several rows, each valid from its time on.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws. An int gives the same negatives in each call.

    Returns
    -------
    impressions : DataFrame, Table or ParquetScan of shape (n * (1 + n_negatives), ...)
        Each event followed by its negatives, with all columns and dtypes of ``events``; in pandas
        with a fresh RangeIndex. An event at whose time no other item was there is left out.
    y : ndarray of int64, of int8 for a scan
        1 for an event, 0 for a negative.

    Warns
    -----
    UserWarning
        If a column depends on the item but is not in ``item_columns``, or is in it but has one
        value per user; if negatives can be told from clicks by whether their item had an event
        before, or has one of another user (an AUC of .6 beyond what first events and chance
        explain); if a tenth of the negatives have values from a later time; if a tenth of the
        events repeat a pair of ``user`` and item. All need enough rows to be significant.

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
    basics = (item, following, n_negatives, user, time, strategy)
    request = NegativesRequest(*basics, launched, catalogue is not None, catalogue_time)
    return follow_by_negatives.dispatch(type(events))(events, request, random_state, catalogue)


@singledispatch
def follow_by_negatives(
    events: Any,
    request: NegativesRequest,
    random_state: int | np.random.RandomState | None,
    catalogue: Any,
) -> tuple[Any, np.ndarray]:
    """Follow each event of a frame with negatives; scans register a function of their own."""
    item, user, time, n_negatives = request.item, request.user, request.time, request.n_negatives
    log = CallerFrame(events, name="events")
    frame = log.pandas
    check_frame(frame, [], name="events")
    request.check(frame.columns, len(frame))
    if time is not None:
        check_times(frame[time], name=f"events[{time!r}]")
    if labels := note_labels(frame, [*filter(None, [item, user, time]), *request.following]):
        log_once(labels)
    ranks = np.ones(len(frame), np.int64) if time is None else time_ranks(frame[time])
    both = log
    if catalogue is not None:
        listed = read_catalogue(catalogue, request)
        both = _put_on_top(listed, log, request.following)
        if request.catalogue_time is None:
            ranks = np.append(np.zeros(len(listed), np.int64), ranks)
        else:
            ranks = time_ranks(join_times(listed, frame[time], request))
    sources = _draw(both.pandas, ranks, frame, request, random_state)
    is_drawn = np.asarray(sources[:, 1] >= 0)
    sources = sources[is_drawn]
    rows = np.repeat(np.flatnonzero(is_drawn), 1 + n_negatives)
    shown = log.take(rows, instead=dict.fromkeys(request.following, sources.ravel()), of=both)
    y = np.zeros(sources.shape, dtype=np.int64)
    y[:, 0] = 1
    return shown, y.ravel()


def _draw(
    both: pd.DataFrame,
    ranks: np.ndarray,
    events: pd.DataFrame,
    request: NegativesRequest,
    random_state: int | np.random.RandomState | None,
) -> np.ndarray:
    """Return items to show, the event's own first: (n_events, 1 + n_negatives)."""
    n_listed, user, item = len(both) - len(events), request.user, request.item
    codes, names = number_ids(both, item)
    if n_listed and len(np.intersect1d(codes[:n_listed], codes[n_listed:])) == 0:
        raise other_kind(item, *names[codes[[0, n_listed]]].tolist())
    is_known = request.catalogue_time is not None
    arrivals, codes = number_as_they_come(codes, ranks, n_listed, is_known=is_known)
    items, times, rows = codes[n_listed:], ranks[n_listed:], np.arange(len(events))
    owners = items if user is None else number_ids(events, user)[0]
    warn_of_leaks(events, request, items, None if user is None else owners)
    draws = NegativeDraws(
        request,
        arrivals,
        ItemVersions(codes, ranks),
        random_state,
        lambda row: events[user or item].iloc[[row]].tolist()[0],
    )
    drawn = draws.draw(owners, rows, items, times)
    draws.warn(lambda: events)
    return np.column_stack([n_listed + rows, drawn])


def _put_on_top(listed: pd.DataFrame, log: CallerFrame[Any], names: list[str]) -> CallerFrame[Any]:
    """Return some columns of both, the catalogue's rows first, in the log's kind."""
    if isinstance(log.native, pd.DataFrame):
        both = pd.concat([listed[names], log.native[names]], ignore_index=True)
        categories = log.native[names].select_dtypes("category").columns
        return CallerFrame(both.astype(dict.fromkeys(categories, "category")), name="events")
    own = nw.from_native(log.select(names)).to_arrow()
    table = pa.concat_tables([cast_items(listed, own.schema), own])
    backend = nw.get_native_namespace(log.native)
    return CallerFrame(nw.from_arrow(table, backend=backend).to_native(), name="events")


class NegativeDraws:
    """Draws for some owners after others, and at the end the warnings about all of them."""

    def __init__(
        self,
        request: NegativesRequest,
        arrivals: Arrivals,
        versions: ItemVersions,
        random_state: int | np.random.RandomState | None,
        name_owner: Callable[[int], object],
    ) -> None:
        n_events = arrivals.n_events
        self._request, self._arrivals, self._versions = request, arrivals, versions
        self._rng, self._name_owner = check_random_state(random_state), name_owner
        self._weights = n_events if request.strategy == "popularity" else np.ones_like(n_events)
        self._pools = "all" if request.time is None else choose_pools(request, arrivals)
        self._n_owners, self._n_later, self._n_drawn = np.zeros_like(n_events), 0, 0
        self._n_left_out = 0

    def draw(
        self, owners: np.ndarray, rows: np.ndarray, items: np.ndarray, times: np.ndarray
    ) -> np.ndarray:
        """Return versions of items, (n_events, n_negatives), -1 where there is none to draw."""
        own = OwnItems(owners, items, self._weights)
        nothing_left = np.flatnonzero(own.free == 0)
        if len(nothing_left):
            row = int(rows[np.argmax(owners == nothing_left[0])])
            raise self._request.nothing_to_draw(self._name_owner(row))
        pools = self._arrivals.find_pools(items, times, self._pools)
        drawn = own.draw_others(owners, self._request.n_negatives, self._rng, pools)
        is_drawn = drawn[:, 0] >= 0
        shown, is_later = self._versions.find(np.maximum(drawn, 0), times)
        self._n_owners += own.n_owners
        self._n_left_out += int((~is_drawn).sum())
        self._n_later += int(is_later[is_drawn].sum())
        self._n_drawn += drawn[is_drawn].size
        return np.where(is_drawn[:, None], shown, -1)

    def warn(self, read_events: Callable[[], pd.DataFrame]) -> None:
        """Warn of what reveals these negatives; ``read_events`` returns some events."""
        request, n_events = self._request, self._arrivals.n_events
        if not self._n_drawn:
            raise request.nothing_to_draw(self._name_owner(0))
        if self._n_left_out:
            log_once(
                f"sample_negatives: {self._n_left_out} of {n_events.sum()} events are left out: at "
                "their time there was no other item that could be sampled."
            )
        warn_of_items_of_one_user(request, n_events, self._n_owners, self._weights)
        warn_of_later_values(request, read_events, self._n_later / self._n_drawn)


def read_catalogue(catalogue: Any, request: NegativesRequest) -> pd.DataFrame:
    """Return a frame or a scan of items as a pandas frame, checked."""
    if isinstance(catalogue, Scan):
        parts = [part for _, part in catalogue.parts(request.described)]
        catalogue = pd.concat(parts, ignore_index=True)
    listed = CallerFrame(catalogue, name="catalogue").pandas
    check_frame(listed, request.described, name="catalogue")
    number_ids(listed, request.item, name="catalogue")
    keys = [request.item, *filter(None, [request.catalogue_time])]
    distinct = listed.iloc[np.unique(row_codes(listed, request.described), return_index=True)[1]]
    codes = row_codes(distinct, keys)
    if len(twice := np.flatnonzero(pd.Series(codes).duplicated(keep=False))):
        item = distinct[request.item].tolist()[twice[0]]
        rows = distinct.iloc[np.flatnonzero(codes == codes[twice[0]])[:2]]
        name = next(n for n in request.following if len(set(map(repr, rows[n]))) > 1)
        values = " and ".join(map(repr, rows[name].tolist()))
        advice = "name the column of their times in catalogue_time"
        if request.catalogue_time is not None:
            advice = f"give each a {request.catalogue_time!r} of its own"
        raise ValueError(
            f"catalogue must have one row per item, got {name!r} {values} for {item!r}, by which "
            f"negatives can be told from clicks. Drop one of the rows, or {advice}."
        )
    return listed


def join_times(listed: pd.DataFrame, times: pd.Series, request: NegativesRequest) -> pd.Series:
    """Return the launches of a catalogue and the times of events below them, of one kind."""
    launch = request.catalogue_time
    both = pd.concat([listed[launch], times], ignore_index=True)
    check_times(both, name=f"catalogue[{launch!r}] and events[{request.time!r}] together")
    return both


def cast_items(listed: pd.DataFrame, own: pa.Schema) -> pa.Table:
    """Return items of a catalogue as a table with the types of the events."""
    table = pa.table({name: pa.chunked_array(pa.array(listed[name].array)) for name in own.names})
    try:
        return table.cast(own)
    except pa.ArrowException as error:
        raise other_kind(own.names, table.schema.types, own.types) from error


def other_kind(name: object, listed: object, own: object) -> ValueError:
    """Return the error for a catalogue whose values cannot match those of the events."""
    return ValueError(
        f"catalogue[{name!r}] must be of the kind of events[{name!r}] and have some of its ids, "
        f"got {listed!r} beside {own!r}."
    )
