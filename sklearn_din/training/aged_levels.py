"""Training rows shown with the levels of a memory that ended some time before them."""

from __future__ import annotations

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures, find_missing_numbers
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import UNKNOWN_ID
from sklearn_din.neighbours.blocks import number_users
from sklearn_din.training.novelty import N_BLOCKS_AHEAD, moments_of
from sklearn_din.utils.spans import Spans, log_elapsed

AGED_SHARE = 0.1  # of the training rows; with .3, live rows lose .002 (benchmarks/known_now.py)


def age_levels(X: EncodedFeatures, *, share: float) -> EncodedFeatures:
    """Return training rows, some with what a memory of earlier rows alone has of them.

    A memory that is not told what happens ends with training. So ``AGED_SHARE`` of the rows are
    shown as by a memory of the rows before ``t - d``, where a row is at moment t, in rows, and d is
    drawn evenly from 0 to twice the validation rows (``share``). Between t - d and
    the key's next row nothing was told of it, so that the levels of that row are those of then;
    only the time elapsed is longer. Rows without a time, and keys that are no columns of ids, stay.
    So does the rate of the latest rows: where rates drift, live rows would lose by an old one
    (.007, benchmarks/known_now.py). Histories that say when outcomes were known end there, too.
    """
    codes = _codes_of_keys(X)
    ages = {f.name: f.elapsed_scale for f in X.schema.fields if f.what == "age"}
    if X.times is None or not (codes or ages):
        return X
    columns, second = dict(X.columns), np.timedelta64(1, "s") if X.times.dtype.kind == "M" else 1
    ahead, chance = np.random.RandomState(0).random_sample((2, len(X)))
    moments, aged = moments_of(X).astype(np.int64), np.flatnonzero(chance < AGED_SHARE)
    until = moments[aged] - np.ceil(ahead[aged] * N_BLOCKS_AHEAD * share * len(X)).astype(np.int64)
    until = np.maximum(until, 0)
    for key, own in codes.items():
        first = _first_since(own, moments, aged, until)
        is_there = own[aged] >= 0
        rows, first = aged[is_there], first[is_there]
        waited = (X.times[rows] - X.times[first]) / second
        for field in (f for f in X.schema.fields if f.level and f.of == key):
            known = X.columns[field.name][first]
            if field.level and field.level.form == "elapsed":
                longer = np.log1p(np.expm1(known.astype(np.float64)) + waited / field.elapsed_scale)
                known = np.where(find_missing_numbers(X, field.name)[first], known, longer)
            columns[field.name] = np.array(columns[field.name])
            columns[field.name][rows] = known
            if missing := X.schema.indicator_of(field.name):
                columns[missing] = np.array(columns[missing])
                columns[missing][rows] = X.columns[missing][first]
    behaviours, waited = dict(X.behaviours), (X.times[aged] - np.sort(X.times)[until]) / second
    for behaviour in X.schema.behaviours:
        for name in ages.keys() & {*behaviour.numbers}:
            ragged = X.behaviours[behaviour.histories]
            behaviours[behaviour.histories] = _end_before(ragged, name, aged, waited / ages[name])
    return X._replace(columns=columns, behaviours=behaviours)


def _end_before(ragged: Ragged, name: str, rows: np.ndarray, waited: np.ndarray) -> Ragged:
    """Return histories of which those of some rows end before so long ago.

    name : the column of the events' ages, whose unit ``waited`` has: (n_rows,)
    """
    own = ragged.take(rows)
    whole = own.over(own.columns, own.whole)
    is_later = whole.flat(name) <= np.repeat(log_elapsed(waited), whole.spans.lengths)
    of_row = np.repeat(np.arange(len(rows)), whole.spans.lengths)
    left = whole.spans.lengths - np.bincount(of_row[is_later], minlength=len(rows))
    newest = Spans(whole.spans.starts, left.astype(np.int32)).newest(own.spans.lengths)
    starts, lengths = ragged.spans.starts.copy(), ragged.spans.lengths.copy()
    starts[rows], lengths[rows] = newest.starts, newest.lengths
    n_older = None if ragged.n_older is None else ragged.n_older.copy()
    if n_older is not None:
        n_older[rows] = left - newest.lengths
    return ragged.over(ragged.columns, Spans(starts, lengths), n_older)


def _first_since(
    codes: np.ndarray, moments: np.ndarray, rows: np.ndarray, until: np.ndarray
) -> np.ndarray:
    """Return for some rows the first row with the same code at a moment or later.

    >>> _first_since(np.array([7, 5, 7]), np.array([0, 1, 2]), np.array([2, 1]), np.array([0, 1]))
    array([0, 1])
    """
    stride = int(moments.max(initial=0)) + 1
    places = codes.astype(np.int64) * stride + moments
    order = np.argsort(places, kind="stable")
    return order[np.searchsorted(places[order], codes[rows].astype(np.int64) * stride + until)]


def _codes_of_keys(X: EncodedFeatures) -> dict[tuple[str, ...], np.ndarray]:
    """Return the value of each row by key, as a number; negative where there is none."""
    keys = {field.of for field in X.schema.fields if field.level and field.of}
    ids, codes = dict[str, np.ndarray](), dict[tuple[str, ...], np.ndarray]()
    if keys and X.users is not None and X.schema.user:
        ids[X.schema.user] = number_users(X).astype(np.int64)  # nobody's rows: each of its own
    for name in X.schema.names("categorical") if keys else ():
        values, numbers = np.unique(X.columns[name], return_inverse=True)  # negative: unknown ones
        ids[name] = np.where(values[numbers] == UNKNOWN_ID, -1, numbers)
    for key in keys:
        if ids.keys() >= {*key}:
            codes[key] = ids[key[0]]
            for other in (ids[name] for name in key[1:]):
                pair = codes[key] * (other.max(initial=0) + 1) + other
                codes[key] = np.where((codes[key] < 0) | (other < 0), -1, pair)
    return codes
