"""Shortlist: candidates from a large catalogue to be ranked by the network."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.schema import FIRST_KNOWN_ID
from sklearn_din.features.vectors import Vectors
from sklearn_din.neighbours.cooccurrence import narrow_csr
from sklearn_din.neighbours.item_scores import ItemScores, keep_largest

MOST_PER_EVENT = 1_000  # candidates per event
MOST_PER_VALUE = 200  # candidates per value of an attribute
# Fractions of a shortlist reserved for candidates other than the best neighbours
POPULAR, NEWEST, ALIKE, NEAR = 0.2, 0.1, 0.2, 0.2
NOBODY = np.empty(0, dtype=np.int64)


class Shortlist:
    """Candidates of a catalogue that go with a user's events, the popular and the newest.

    A candidate's score is the sum of its EASE weights and cosines over the events, where their sum
    is above zero; each event brings in its best 1,000 candidates at most. A fifth of the list is
    the popular, a tenth the newest, a fifth the popular that have other attributes of the events,
    such as a category, and a fifth those near by fixed vectors, where these are known. The best
    neighbours have the rest, and the popular what is left over.

    scores : sequence of ItemScores. Of each history that is compared with the candidates, all of
        one vocabulary.
    candidates : (n_candidates,). Their ids.
    attributes : sequence of ((n_candidates,), int). Ids of other attributes of the candidates, and
        how many ids there are.
    newest : (n_new,), default=nobody. Positions of those that came up last, the newest first.
    vectors : Vectors or None. Fixed vectors of the ids.

    >>> cosine = csr_array(([0.5, 0.3], ([3, 4], [2, 2])), shape=(6, 6))  # of ids 3 and 4 with 2
    >>> popularity = np.array([0, 0, 1.0, 0, 0, 2.0])
    >>> scores = ItemScores(csr_array((6, 6)), cosine, *[popularity] * 3)
    >>> shortlist = Shortlist([scores], np.arange(2, 6))
    >>> shortlist.choose([np.array([2])], 3)  # by position: two neighbours, and the most popular
    array([1, 2, 3])
    """

    def __init__(
        self,
        scores: Sequence[ItemScores],
        candidates: np.ndarray,
        *,
        attributes: Sequence[tuple[np.ndarray, int]] = (),
        newest: np.ndarray = NOBODY,
        vectors: Vectors | None = None,
    ) -> None:
        ids = ids_to_look_up(candidates)
        self._by_event = [_by_event(of_history, ids) for of_history in scores]
        popularity = scores[0].popularity[ids]
        self._popular = np.argsort(-popularity, kind="stable")
        self._by_attribute = list[csr_array]()  # popularity by the value that candidates have
        for values, n_ids in attributes:
            known = np.flatnonzero(values >= FIRST_KNOWN_ID)
            pairs = popularity[known], (values[known], known)
            of_values = csr_array(pairs, shape=(n_ids, len(values)))
            self._by_attribute.append(keep_largest(of_values, MOST_PER_VALUE))
        self._newest, self._vectors = newest, vectors
        if vectors is not None:
            self._rows = vectors.rows_of(candidates)
            self._norms = np.maximum(np.linalg.norm(vectors.table, axis=1), 1e-12)

    def choose(
        self,
        histories: Sequence[np.ndarray],
        n: int,
        excluded: np.ndarray = NOBODY,
        *,
        of_attributes: Sequence[np.ndarray] = (),
    ) -> np.ndarray:
        """Return the positions of n candidates for a user, in ascending order.

        histories, of_attributes : (n_events,) each, ids of the user's events, and their attributes
        excluded : positions of candidates that are left out
        """
        most, ranked = n + len(excluded), self.rank(histories, n, excluded)[0]
        alike = _sum_rows(of_attributes, self._by_attribute, len(self._popular))
        chosen = [
            self._popular[:most],
            self._newest[:most],
            alike.indices[largest_first(alike.data, most)],
            self._find_near(histories, most),
        ]
        others = [
            positions[~np.isin(positions, excluded)][: int(fraction * n)]
            for fraction, positions in zip((POPULAR, NEWEST, ALIKE, NEAR), chosen, strict=True)
        ]
        order = np.concatenate([ranked[: n - sum(map(len, others))], *others, ranked])
        _, first = np.unique(order, return_index=True)
        return np.sort(order[np.sort(first)[:n]])

    def rank(
        self, histories: Sequence[np.ndarray], n: int, excluded: np.ndarray = NOBODY
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return positions of n candidates by score, and scores; then the popular, at 0."""
        most, total = n + len(excluded), _sum_rows(histories, self._by_event, len(self._popular))
        best = largest_first(total.data, most)
        neighbours, popular = total.indices[best], self._popular[:most]
        order = np.concatenate([neighbours, popular[~np.isin(popular, neighbours)]])
        scores = np.append(total.data[best], np.zeros(len(order) - len(best), dtype=np.float32))
        chosen = np.flatnonzero(~np.isin(order, excluded))[:n]
        return order[chosen], scores[chosen]

    def _find_near(self, histories: Sequence[np.ndarray], n: int) -> np.ndarray:
        """Return the positions of candidates with vectors closest to those of the events."""
        if self._vectors is None:
            return NOBODY
        events = self._vectors.rows_of(np.concatenate(histories))
        table = self._vectors.table
        total = (table[events] / self._norms[events, None]).sum(axis=0)
        # No product of BLAS, whose threads wait for each other where processors are busy
        likeness = (np.einsum("ij,j->i", table, total) / self._norms)[self._rows]
        best = largest_first(likeness, n)
        return best[likeness[best] > 0]


def largest_first(scores: np.ndarray, n: int) -> np.ndarray:
    """Return the positions of the n largest scores, equal ones in order; missing ones last."""
    if n < len(scores):
        least = -np.partition(-scores, n - 1)[n - 1]
        if not np.isnan(least):
            chosen = np.flatnonzero(scores >= least)
            return chosen[np.argsort(-scores[chosen], kind="stable")][:n]
    return np.argsort(-scores, kind="stable")[:n]


def _by_event(scores: ItemScores, candidates: np.ndarray) -> csr_array:
    """Return scores of events, by row, and candidates by their positions: those above zero."""
    by_event = csr_array(scores.cosine[candidates].T) + csr_array(scores.ease[candidates].T)
    return keep_largest(by_event, MOST_PER_EVENT)


def _sum_rows(
    histories: Sequence[np.ndarray], matrices: Sequence[csr_array], n_candidates: int
) -> csr_array:
    """Return sums over each history's rows of its matrix: (1, n_candidates), sorted."""
    total = csr_array((1, n_candidates), dtype=np.float32)
    for ids, matrix in zip(histories, matrices, strict=True):
        ones, ends = np.ones(len(ids), dtype=np.float32), np.array([0, len(ids)])
        shape = (1, matrix.shape[0])
        total = total + narrow_csr(ones, ids_to_look_up(ids), ends, shape) @ matrix
    total.sort_indices()
    return total
