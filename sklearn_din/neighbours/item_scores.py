"""Scores between items that the same users had: EASE, shrunk cosine, popularity."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, diags_array, eye_array, vstack

from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.native.pairs import score_pairs, select_pairs
from sklearn_din.neighbours.cooccurrence import check_numbers, count_pairs, narrow_csr, sort_indices
from sklearn_din.utils.blas import invert
from sklearn_din.utils.spans import Spans

MOST_WHOLE = 3_000  # items of an exact EASE of all: 36 MB, and half a second to invert
MOST_EXACT = 1_500  # of more items, so many: 9 MB, and a tenth of a second
MOST_NEIGHBOURS = 200
LEAST_NEIGHBOURS = 20
MOST_COSINES = 20_000_000  # per table: 160 MB; beyond, each item keeps fewer than 200 neighbours
EASE_L2 = 200.0
LEAST_WEIGHT = 1e-6  # smaller ones are rounding: one user in common is 1 / (200 + users)
SHRINKAGE = np.float32(4.0)
DECAY = 0.8
EVENTS_PER_CHUNK = 1 << 20
ROWS_PER_COPY = 256  # of a square matrix, so that its columns fit in the cache
FEW_EVENTS = 512  # up to this number, events are searched one by one
ZEROS_PER_EVENT = 32  # maximum to write if scores are read from a dense table

SUMMARIES = ("sum", "mean", "max", "newest", "decayed")
N_OF_HISTORY = 2 * len(SUMMARIES)  # columns of the history, before those of the candidate alone
N_NUMBERS = N_OF_HISTORY + 4


@dataclass(frozen=True)
class ItemScores:
    """Scores of past items for each candidate, those of its best neighbours alone.

    ease : csr_array of shape (n_ids, n_ids), float32. Row: candidate, column: event. Weights of
        EASE, the linear autoencoder without a diagonal (Steck, "Embarrassingly Shallow
        Autoencoders for Sparse Data", WWW 2019).
    cosine : csr_array of shape (n_ids, n_ids), float32. Users that had both, over the root of the
        product of their numbers and a constant.
    popularity : (n_ids,), float32. ``log1p`` of the item's users over the average of all known
        items; 0 where unknown.
    click_rate : (n_ids,), float32. Log-odds of a click on the item where it was shown, less those
        of all items; shrunk towards 0, which it is where the item was never shown, by as much as
        the items' rates are alike.
    evidence : (n_ids,), float32. Share of its own rows in the item's rate of clicks, from 0, of an
        item never shown, to 1.
    """

    ease: csr_array
    cosine: csr_array
    popularity: np.ndarray
    click_rate: np.ndarray
    evidence: np.ndarray

    def check(self) -> None:
        """Raise ValueError if the sizes of the arrays do not match."""
        n_ids = self.ease.shape[0]
        if self.cosine.shape[0] != n_ids:
            raise ValueError("the scores of item neighbours must have as many ids.")
        for name in ("popularity", "click_rate", "evidence"):
            check_numbers(getattr(self, name), (n_ids,), what=name)

    @classmethod
    def of_counts(
        cls,
        left: csr_array,
        right: csr_array,
        n_users: np.ndarray,
        shown: np.ndarray,
        clicked: np.ndarray,
        prior: float,
    ) -> "ItemScores":
        """Compute the scores from counts: ``left @ right``, whose first values are 1.

        ``n_users`` had each item; it was ``shown`` as a candidate so often, and ``clicked`` as one:
        (n_ids,), float32 each. To these rows come ``prior`` at the average rate.
        """
        popular = most_popular(n_users)
        gram, cosine = _score_pairs(left, right, n_users, popular)
        known = n_users > 0
        popularity = np.log1p(n_users / n_users[known].mean() if known.any() else n_users)
        return cls(
            _ease(gram, popular, len(n_users)),
            cosine,
            popularity.astype(np.float32),
            _click_rate(shown, clicked, prior),
            (shown / (shown + prior)).astype(np.float32),
        )

    def choose_counts(self, had: csr_array, n_users: np.ndarray, *, all_pairs: bool) -> csr_array:
        """Count how many users ``had`` both of two items, for later counts: the upper triangle.

        All pairs, or those of two popular items, and of an item and one of its best neighbours.
        """
        popular, n_ids, near = most_popular(n_users), len(n_users), None
        if not all_pairs and len(popular) < np.count_nonzero(n_users):
            near = csr_array(self.cosine + self.cosine.T + eye_array(n_ids, dtype=np.float32))
            near.data[:] = 1
        left = csr_array(had.T.tocsr())
        rows = select_pairs(left, had, popular, near)
        if rows is not None:
            return narrow_csr(*rows, (n_ids, n_ids))
        return _select_pairs(left, had, popular, near)

    def widen(self, n_ids: int) -> "ItemScores":
        """Return the scores with more ids, which have no neighbours and no popularity."""
        n_new = n_ids - len(self.popularity)
        return ItemScores(
            with_empty_rows(self.ease, n_ids),
            with_empty_rows(self.cosine, n_ids),
            np.pad(self.popularity, (0, n_new)),
            np.pad(self.click_rate, (0, n_new)),
            np.pad(self.evidence, (0, n_new)),
        )

    def numbers(self, candidates: np.ndarray, spans: Spans, items: np.ndarray) -> np.ndarray:
        """Summarise the scores between each row's candidate and its events: (n_rows, 14).

        With L(x) for ``sign(x) log(1 + abs(x))``: L of the sum, mean, maximum, newest and decayed
        sum (0.8 per rank) of EASE, the same of the cosine, the popularity, the rate of clicks, 1
        where the candidate is known, and how much its rate rests on. ``spans`` say which of the
        events, whose ids are ``items``, each row holds.
        """
        numbers = np.zeros((len(candidates), N_NUMBERS), dtype=np.float32)
        candidates = ids_to_look_up(candidates)
        chunk = np.cumsum(spans.lengths, dtype=np.int64) // EVENTS_PER_CHUNK
        begins = np.flatnonzero(np.diff(chunk, prepend=-1)).tolist()
        for rows in map(slice, begins, [*begins[1:], len(spans)]):
            part = spans.take(rows)
            if not part.lengths.any():
                continue
            of_both = _scores_of_pairs((self.ease, self.cosine), candidates[rows], part, items)
            whose = np.repeat(np.arange(len(part.lengths)), part.lengths)
            ranks = np.cumsum(part.lengths, dtype=np.int64)[whose] - 1 - np.arange(len(whose))
            for first, of_events in zip((0, len(SUMMARIES)), of_both, strict=True):
                at = np.flatnonzero(of_events)
                summaries = summarise(whose[at], ranks[at], of_events[at], part.lengths)
                numbers[rows, first : first + len(SUMMARIES)] = summaries.T
        numbers[:, N_OF_HISTORY:] = self.of_candidates(candidates)
        return numbers

    def of_candidates(self, ids: np.ndarray | slice) -> np.ndarray:
        """Popularity, rate of clicks, known or not, evidence, of candidates alone: (n, 4)."""
        popularity, rate, evidence = self.popularity[ids], self.click_rate[ids], self.evidence[ids]
        return np.stack([popularity, rate, popularity > 0, evidence], axis=1)


def with_empty_rows(matrix: csr_array, n_ids: int) -> csr_array:
    """Return the same square matrix for more ids; the memory of its values is shared."""
    ends = np.pad(matrix.indptr, (0, n_ids - matrix.shape[0]), mode="edge")
    return csr_array((matrix.data, matrix.indices, ends), shape=(n_ids, n_ids))


def _scores_of_pairs(
    matrices: Sequence[csr_array], candidates: np.ndarray, spans: Spans, items: np.ndarray
) -> list[np.ndarray]:
    """Scores of each matrix between each row's candidate and its events: (n_events,).

    They are read from a dense table, or searched for where most of it would not be read.
    """
    events = ids_to_look_up(items[spans.index()])
    is_held = np.zeros(matrices[0].shape[1], dtype=bool)
    is_held[events] = True
    held, (shown, code) = np.flatnonzero(is_held), np.unique(candidates, return_inverse=True)
    n_scores = len(shown) * len(held)
    if len(events) <= FEW_EVENTS or n_scores > ZEROS_PER_EVENT * len(events):
        rows = np.repeat(candidates, spans.lengths)
        return [np.asarray(m[rows, events], dtype=np.float32).ravel() for m in matrices]
    at = np.repeat(code * len(held), spans.lengths) + (np.cumsum(is_held) - 1)[events]
    return [m[shown][:, held].toarray().take(at) for m in matrices]


def summarise(
    whose: np.ndarray, ranks: np.ndarray, scores: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Summarise each row's scores: signed logs of sum, mean, maximum, newest and decayed sum.

    whose, ranks, scores : (n_scores,), the row of each score, how many of its events have come
        since, and the score; those of zero may be left out
    lengths : (n_rows,), how many events each row has
    summaries : (5, n_rows), zeros without an event
    """
    n_rows, sums = len(lengths), np.empty((len(SUMMARIES), len(lengths)), dtype=np.float32)
    decays = np.float32(DECAY) ** np.arange(ranks.max(initial=0) + 1, dtype=np.float32)
    total, mean, most, newest, decayed = sums
    total[:] = np.bincount(whose, scores, n_rows)
    mean[:] = total / np.maximum(lengths, 1)
    # An event that is no neighbour scores zero
    has_zero = (np.bincount(whose, minlength=n_rows) < lengths) | (lengths == 0)
    most[:] = np.where(has_zero, 0, -np.inf)
    np.maximum.at(most, whose, scores)
    newest[:], is_newest = 0, ranks == 0
    newest[whose[is_newest]] = scores[is_newest]
    decayed[:] = np.bincount(whose, scores * decays[ranks], n_rows)
    sizes = np.abs(sums)
    np.log1p(sizes, out=sizes, where=sizes > 0)  # most are zero
    return np.copysign(sizes, sums)


def _score_pairs(
    left: csr_array, right: csr_array, n_users: np.ndarray, popular: np.ndarray
) -> tuple[np.ndarray, csr_array]:
    """Return the counts of popular items, and the largest cosines of each item."""
    n_ids, n_known = len(n_users), max(int(np.count_nonzero(n_users)), 1)
    n_best = min(MOST_NEIGHBOURS, max(LEAST_NEIGHBOURS, MOST_COSINES // n_known))
    roots = np.sqrt(n_users)
    natively = score_pairs(left, right, roots, popular, shrinkage=SHRINKAGE, n_best=n_best)
    if natively is not None:
        return natively[0], narrow_csr(*natively[1], (n_ids, n_ids))
    gram = np.zeros((len(popular), len(popular)), dtype=np.float32, order="F")
    cosines = []
    for first, counts in count_pairs(left, right):
        begin, end = np.searchsorted(popular, [first, first + counts.shape[0]])
        own = counts[popular[begin:end] - first][:, popular].toarray()
        gram[:, begin:end] = own.T  # it is symmetric, and its columns are contiguous
        numbers = np.arange(first, first + counts.shape[0], dtype=np.int32)
        rows = np.repeat(numbers, np.diff(counts.indptr))
        values = counts.data / (roots[rows] * roots[counts.indices] + SHRINKAGE)
        values[rows == counts.indices] = 0  # an item is no neighbour of itself
        of_part = csr_array((values, counts.indices, counts.indptr), shape=counts.shape)
        cosines.append(sort_indices(keep_largest(of_part, n_best)))
    return gram, csr_array(vstack(cosines, format="csr"))


def _select_pairs(
    left: csr_array, right: csr_array, popular: np.ndarray, near: csr_array | None
) -> csr_array:
    """Return the upper triangle of counts: of two popular items, and where ``near`` has ones."""
    n_ids, chunks = left.shape[0], []
    is_popular = np.isin(np.arange(n_ids), popular).astype(np.float32)
    only = diags_array(is_popular, format="csr")
    for first, counts in count_pairs(left, right):
        rows = slice(first, first + counts.shape[0])
        own = np.repeat(np.arange(first, rows.stop), np.diff(counts.indptr))
        counts = _select(counts, counts.indices >= own)  # scipy's triu sorts all of them
        if near is not None:
            of_popular = only[rows, rows] @ counts @ only
            counts = of_popular.maximum(counts.multiply(near[rows]))
        chunks.append(counts)
    return sort_indices(vstack(chunks, format="csr"))


def _ease(gram: np.ndarray, ids: np.ndarray, n_ids: int) -> csr_array:
    """Exact weights among the most popular items: by the inverse of the regularised counts."""
    if not len(ids):
        return csr_array((n_ids, n_ids), dtype=np.float32)
    inverse = np.asfortranarray(gram, dtype=np.float32)
    inverse[np.diag_indices_from(inverse)] += EASE_L2
    if not invert(inverse):  # the diagonal is large: only overflow can fail
        return csr_array((n_ids, n_ids), dtype=np.float32)
    for first in range(0, len(ids), ROWS_PER_COPY):  # LAPACK fills only the upper triangle
        rows = slice(first, first + ROWS_PER_COPY)
        inverse[rows, :first] = inverse[:first, rows].T
        own = inverse[rows, rows]
        own[:] = np.triu(own) + np.triu(own, 1).T
    weights = inverse.T / -inverse.diagonal()[:, None]  # symmetric: makes rows contiguous
    weights[np.diag_indices_from(weights)] = 0
    return _sparse(weights, ids, n_ids)


def _click_rate(shown: np.ndarray, clicked: np.ndarray, prior: float) -> np.ndarray:
    n_shown, n_clicked = shown.sum(dtype=np.float64), clicked.sum(dtype=np.float64)
    if not 0 < n_clicked < n_shown:
        return np.zeros(len(shown), dtype=np.float32)
    average = n_clicked / n_shown
    likes, others = clicked / (prior * average), (shown - clicked) / (prior * (1 - average))
    return (np.log1p(likes) - np.log1p(others)).astype(np.float32)


def most_popular(n_users: np.ndarray) -> np.ndarray:
    """Ids of the items among which EASE is exact, in ascending order."""
    is_whole = np.count_nonzero(n_users) <= MOST_WHOLE
    order = np.argsort(-n_users, kind="stable")[: MOST_WHOLE if is_whole else MOST_EXACT]
    return np.sort(order[n_users[order] > 0]).astype(np.int32)


def _sparse(weights: np.ndarray, ids: np.ndarray, n_ids: int) -> csr_array:
    """Return the largest weights of each row by size; those below LEAST_WEIGHT are zeros."""
    n_best, sizes = min(MOST_NEIGHBOURS, len(ids)), np.abs(weights)
    is_best = sizes >= np.partition(sizes, -n_best, axis=1)[:, -n_best, None]
    is_best &= sizes >= LEAST_WEIGHT
    n_chosen = np.count_nonzero(is_best, axis=1)
    for row in np.flatnonzero(n_chosen > n_best):
        is_least = sizes[row] == sizes[row, is_best[row]].min()
        is_best[row, np.flatnonzero(is_least)[n_best - n_chosen[row] :]] = False
    lengths = np.zeros(n_ids + 1, dtype=np.int64)
    lengths[ids + 1] = np.count_nonzero(is_best, axis=1)
    chosen = np.flatnonzero(is_best)  # a fifth of the time that the matrix of bools takes
    values, columns = weights.take(chosen), ids[chosen % len(ids)]
    return narrow_csr(values, columns, np.cumsum(lengths), (n_ids, n_ids))


def keep_largest(matrix: csr_array, n_best: int) -> csr_array:
    """Return the largest values above 0 of each row, of equal ones those of the first columns."""
    is_best, ends = matrix.data > 0, matrix.indptr
    for row in np.flatnonzero(np.diff(ends) > n_best):
        own = slice(ends[row], ends[row + 1])
        is_best[own] = _largest(matrix.data[own], matrix.indices[own], n_best)
    return _select(matrix, is_best)


def _select(matrix: csr_array, chosen: np.ndarray) -> csr_array:
    """Return a matrix of some of the values; ``chosen`` has a bool for each."""
    n_before = np.zeros(len(chosen) + 1, dtype=matrix.indptr.dtype)  # narrow: there are many
    np.cumsum(chosen, out=n_before[1:])
    ends = n_before[matrix.indptr]
    del n_before
    return narrow_csr(matrix.data[chosen], matrix.indices[chosen], ends, matrix.shape)


def _largest(values: np.ndarray, columns: np.ndarray, n_best: int) -> np.ndarray:
    """Return a mask of the largest values above 0, of equal ones those of the first columns."""
    least = np.partition(values, -n_best)[-n_best]
    chosen = values > least
    n_more = n_best - np.count_nonzero(chosen)
    if least > 0 and n_more:
        equal = np.flatnonzero(values == least)
        last = np.partition(columns[equal], n_more - 1)[n_more - 1]
        chosen[equal[columns[equal] <= last]] = True
    return chosen
