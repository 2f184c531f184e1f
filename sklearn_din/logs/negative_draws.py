"""Which rows of items negatives show, of frames and of scans: one law for both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.utils import check_random_state

from sklearn_din._frames import CallerFrame
from sklearn_din._validation import check_frame, check_times
from sklearn_din.logs.other_items import (
    Arrivals,
    ItemVersions,
    NegativesRequest,
    OwnItems,
    number_ids,
)
from sklearn_din.logs.sampling_notices import (
    choose_pools,
    warn_of_items_of_one_user,
    warn_of_later_values,
)
from sklearn_din.tables.scan import Scan


class NegativeDraws:
    """Draws for some owners after others, and at the end the warnings about all of them.

    ``name_owner`` gives the owner's name by the row of an event.
    """

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

    def draw(
        self, owners: np.ndarray, rows: np.ndarray, items: np.ndarray, times: np.ndarray
    ) -> np.ndarray:
        """Return versions of items of shape (n_events, n_negatives), for all events of owners."""
        own = OwnItems(owners, items, self._weights)
        nothing_left = np.flatnonzero(own.free == 0)
        if len(nothing_left):
            row = int(rows[np.argmax(owners == nothing_left[0])])
            raise self._request.nothing_to_draw(self._name_owner(row))
        pools = self._arrivals.find_pools(items, times, self._pools)
        drawn = own.draw_others(owners, self._request.n_negatives, self._rng, pools)
        shown, is_later = self._versions.find(drawn, times)
        self._n_owners += own.count_owners()
        self._n_later, self._n_drawn = self._n_later + is_later.sum(), self._n_drawn + drawn.size
        return shown

    def warn(self, read_events: Callable[[], pd.DataFrame]) -> None:
        """Warn of what tells these negatives from clicks; ``read_events`` gives some events."""
        request, n_events = self._request, self._arrivals.n_events
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
    """Make the error for a catalogue whose values cannot be those of the events."""
    return ValueError(
        f"catalogue[{name!r}] must be of the kind of events[{name!r}] and have some of its ids, "
        f"got {listed!r} beside {own!r}."
    )
