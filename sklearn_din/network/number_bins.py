"""Numbers as trees read them: ended where training's were, and beside each one its bins."""

from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_din.features.encoded import EncodedFeatures, find_missing_numbers
from sklearn_din.features.number_ends import ENDLESS, FEW, Ranges, find_ends, find_range
from sklearn_din.features.schema import Behaviour, Schema
from sklearn_din.utils.blas import one_thread_of_blas

N_BINS = 8
MOST_BINS = 256  # of all numbers together
OUTSIDE = 0.01  # of the rows lie before the first bin of a number, and as many behind its last one
LEAST_ROWS = 1_000
SAMPLED_ROWS, SAMPLED_EVENTS = 50_000, 200_000
HELD_USERS = 5  # every fifth one
ROWS_OF_ELAPSED = 3_000  # that a network needs to read how long ago a key's latest row was
UNREAD = 0.0, 0.0  # the range of a number of which nothing is read
LEAST_GAIN, LEAST_ERRORS = 0.0015, 1.5

Bins = Mapping[str, tuple[tuple[float, float, float], ...]]  # start, end and average, by number


class NumberBins(nn.Module):
    """Numbers, each followed by its bins (Gorishniy et al., NeurIPS 2022, section 3.1).

    A bin from b to c is 0 for numbers below, 1 for those above, and in between::

        bin(x) = (x - b) / (c - b)

    Unlike the paper: the bins' averages are subtracted, so that zero is the average of all inputs,
    and the number itself stays (benchmarks/quality-results.md, "Numbers in bins"), as far as
    ``features/number_ends.py`` says: what lies beyond is read as the end.

    Parameters
    ----------
    names : collection of str
        All numbers, in order.
    bins : dict of str to tuple
        Start, end and average of each bin, by number; none of numbers without bins.
    ends : dict of str to tuple
        Where numbers end on either side; all others have no end.

    Examples
    --------
    >>> bins = {"price": ((0.0, 1.0, 0.5), (1.0, 3.0, 0.25))}
    >>> numbers = NumberBins(["price", "age"], bins, {"price": (-3.0, 6.0)})
    >>> numbers(torch.tensor([[2.0, 7.0], [1e9, 0.0]]))
    tensor([[2.0000, 0.5000, 0.2500, 7.0000],
            [6.0000, 0.5000, 0.7500, 0.0000]])
    """

    columns: Tensor
    starts: Tensor
    slopes: Tensor
    averages: Tensor
    least: Tensor
    most: Tensor

    def __init__(self, names: Collection[str], bins: Bins, ends: Ranges) -> None:
        super().__init__()
        self.widths = {name: 1 + len(bins.get(name, ())) for name in names}
        rows = []
        for column, name in enumerate(names):
            rows.append((column, 0.0, 1.0, 0.0, *ends.get(name, ENDLESS)))
            for start, end, average in bins.get(name, ()):
                rows.append((column, start, 1 / (end - start), average, 0.0, 1.0))
        table = torch.from_numpy(np.array(rows).reshape(-1, 6))  # on "meta" it would be lost
        columns, *others = table.unbind(1)
        self.register_buffer("columns", columns.long(), persistent=False)
        for key, own in zip(("starts", "slopes", "averages", "least", "most"), others, strict=True):
            self.register_buffer(key, own.float(), persistent=False)

    def forward(self, numbers: Tensor) -> Tensor:
        """Numbers (n_rows, n_numbers) and their bins, (n_rows, n_numbers + n_bins)."""
        if len(self.columns) == len(self.widths):  # no bins
            return numbers.clamp(self.least, self.most)
        inputs = numbers.index_select(1, self.columns).sub_(self.starts).mul_(self.slopes)
        return inputs.clamp_(self.least, self.most).sub_(self.averages)


def choose_bins(
    X: EncodedFeatures, y: np.ndarray, rows: np.ndarray | None, leave_out: Collection[str] = ()
) -> Bins:
    """Return bins where numbers alone predict labels of other users better with them.

    A ridge regression of the label on all numbers, with bins and without, is fitted on four users
    of five and judged on the fifth. Bins stay where they take at least ``LEAST_GAIN`` off the
    squared errors, by more than ``LEAST_ERRORS`` standard errors over users
    (benchmarks/quality-results.md, "Numbers in bins").

    Parameters
    ----------
    y : ndarray of shape (n_rows,) or (n_rows, n_labels)
        The labels of ``rows``, the training rows; of several labels the first decides.
    rows : ndarray of shape (n_rows,) or None
        Which of the impressions these are; None: all.
    leave_out : collection of str
        Numbers without bins.
    """
    from sklearn_din.utils.validation import spread  # and pandas

    bins = find_bins(X, leave_out)
    if not bins:
        return {}
    y = spread(np.asarray(y, dtype=np.float64).reshape(len(y), -1)[:, 0], SAMPLED_ROWS)
    rows = spread(np.arange(len(y)) if rows is None else rows, SAMPLED_ROWS)
    is_known = np.isfinite(y)
    rows, y = rows[is_known], y[is_known]
    users = rows.astype(np.uint64) if X.users is None else X.user_keys.hashes[rows]
    held = users % HELD_USERS == 0
    if held.all() or not held.any():
        return {}
    names = list(bins)
    ends = find_ends({name: find_range(_sample(X, name)) for name in names}, ())
    numbers = torch.from_numpy(np.stack([X.columns[name][rows] for name in names], axis=1))
    inputs = [NumberBins(names, own, ends)(numbers).numpy() for own in ({}, bins)]
    squares = [_squared_errors(own, y, held) for own in inputs]
    gains = np.bincount(np.unique(users[held], return_inverse=True)[1], squares[0] - squares[1])
    is_clear = gains.sum() > LEAST_ERRORS * np.sqrt((gains**2).sum())
    return bins if is_clear and gains.sum() > LEAST_GAIN * squares[0].sum() else {}


@one_thread_of_blas()
def _squared_errors(inputs: np.ndarray, y: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Return the squared errors of a ridge regression on the rows that are held out."""
    inputs = np.column_stack([np.ones(len(inputs)), inputs.astype(np.float64)])
    own = inputs[~held]
    weights = np.linalg.solve(own.T @ own + np.eye(own.shape[1]), own.T @ y[~held])
    return (y[held] - inputs[held] @ weights) ** 2


def find_bins(X: EncodedFeatures, leave_out: Collection[str] = ()) -> Bins:
    """Return the bins of training rows' numbers, each with as many of the rows.

    Quantiles that are equal bound one bin. Numbers of two values have none, nor those to
    ``leave_out``, which were learnt of rows, nor running rates, means and counts: they move on
    after training. Fewer than ``LEAST_ROWS`` rows have no bins.

    >>> from sklearn_din.features import Field, Schema
    >>> schema = Schema((Field("price", "numeric"), Field("is_new", "numeric")))
    >>> prices = np.arange(2_000, dtype=np.float32)
    >>> bins = find_bins(EncodedFeatures(schema, {"price": prices, "is_new": prices % 2}))
    >>> list(bins), bins["price"][0][:2]
    (['price'], (19.0, 264.0))
    """
    numbers = [field for field in X.schema.fields if field.kind == "numeric"]
    names = [f.name for f in numbers if not f.follows_labels and f.what != "running"]
    names = [name for name in names if name not in leave_out]
    n_bins = min(N_BINS, MOST_BINS // max(len(names), 1))
    if len(X) < LEAST_ROWS or n_bins < 2:
        return {}
    bins: dict[str, tuple[tuple[float, float, float], ...]] = {}
    shares = np.linspace(OUTSIDE, 1 - OUTSIDE, n_bins + 1)
    for name in names:
        values = _sample(X, name)
        quantiles = np.quantile(values, shares, method="lower") if len(values) else values
        edges = np.unique(quantiles).tolist()
        if len(edges) > 2:
            bins[name] = tuple(
                (start, end, float(np.clip((values - start) / (end - start), 0, 1).mean()))
                for start, end in pairwise(edges)
            )
    return bins


def find_ranges(
    X: EncodedFeatures, before: Ranges | None = None, *, reads_all: bool = False
) -> Ranges:
    """Return the range of each number in the training rows, joined with the range ``before``.

    With fewer than ``ROWS_OF_ELAPSED`` training rows, elapsed times of a memory get the range 0 to
    0, also in later calls, so that the network ignores them: in small logs they cost more than they
    gain (benchmarks/quality-results.md, "Answers of a memory that is told"). ``reads_all`` keeps
    them, for the published network.
    """
    ranges, least = dict(before or {}), FEW if before else 0
    levels = [f for f in X.schema.fields if f.level and f.level.form == "elapsed"]
    at_first = UNREAD if len(X) < ROWS_OF_ELAPSED and not reads_all else ()
    unread = {f.name for f in levels if ranges.get(f.name, at_first) == UNREAD}
    ranges |= dict.fromkeys(unread, UNREAD)
    samples = {n: _sample(X, n) for n in X.schema.names("numeric") if n not in unread}
    of_events = {n: own for b in X.schema.behaviours for n, own in _of_events(X, b)}
    zero = dict.fromkeys(of_events, (0.0, 0.0))  # what is read where an event has no number
    for name, values in (samples | of_events).items():
        if len(values) >= max(least, 1):
            own = *find_range(values, least=least), *ranges.get(name, zero.get(name, ()))
            ranges[name] = min(own), max(own)
    return ranges


def _of_events(X: EncodedFeatures, behaviour: Behaviour) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the numbers of events of some rows, without those that are missing or infinite."""
    from sklearn_din.utils.validation import spread  # and pandas

    if not behaviour.numbers:
        return
    ragged = X.behaviours[behaviour.histories]
    n_rows = 1 + len(ragged) * SAMPLED_EVENTS // max(int(ragged.spans.lengths.sum()), 1)
    some = ragged.take(spread(np.arange(len(ragged)), n_rows))
    for name in behaviour.numbers:
        values = some.flat(name)
        yield name, values[np.isfinite(values)]


def _sample(X: EncodedFeatures, name: str) -> np.ndarray:
    """Return some rows' numbers, without those that are missing or infinite."""
    from sklearn_din.utils.validation import spread  # and pandas

    values = np.asarray(spread(X.columns[name], SAMPLED_ROWS), dtype=np.float32)
    return values[~spread(find_missing_numbers(X, name), SAMPLED_ROWS) & np.isfinite(values)]


def check_bins(bins: Any, ranges: Any, schema: Schema) -> None:
    """Raise ValueError where these cannot be bins and ranges of the schema's numbers."""
    names, of_events = schema.names("numeric"), schema.names("numeric_history")
    has_bins = type(bins) is dict and bins.keys() <= {*names}
    has_bins = has_bins and all(type(own) is tuple and own for own in bins.values())
    rows: list[Any] = [row for own in bins.values() for row in own] if has_bins else [()]
    if not all(_are_floats(row, 3) and row[0] < row[1] for row in rows):
        raise ValueError(f"bins of numbers must have a start, end and average, got {bins!r:.60}.")
    has_ranges = type(ranges) is dict and ranges.keys() <= {*names, *of_events}
    pairs: list[Any] = [*ranges.values()] if has_ranges else [()]
    if not all(_are_floats(pair, 2) and pair[0] <= pair[1] for pair in pairs):
        raise ValueError(f"ranges of numbers must have a start and an end, got {ranges!r:.60}.")


def _are_floats(row: Any, n: int) -> bool:
    are_floats = type(row) is tuple and [type(number) for number in row] == [float] * n
    return are_floats and bool(np.isfinite(row).all())
