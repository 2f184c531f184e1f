"""Item neighbours of fixed candidates, looked up for one history after the other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.sparse import hstack

from sklearn_din._spans import Spans
from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.ragged import Ragged
from sklearn_din.neighbours.item_scores import N_OF_HISTORY, SUMMARIES, summarise
from sklearn_din.neighbours.pairs import NeighbourPair


class CandidateScores:
    """One pair's columns of numbers for the same candidates and any history.

    The scores are kept by event, those of the candidates alone: a history then reads the rows of
    its events, in place of those of all candidates. The numbers are those of
    ``NeighbourPair.look_up``.

    Attributes
    ----------
    names : tuple of str
        Columns that follow the history.
    constant : dict of str to ndarray of shape (n_candidates,)
        Columns of the candidates alone.
    """

    def __init__(self, pair: NeighbourPair, candidates: np.ndarray) -> None:
        ids, scores = ids_to_look_up(candidates), pair.scores
        both = [scores.ease[ids].T, scores.cosine[ids].T]
        self._by_event = hstack(both, format="csr")  # (n_ids, 2 * n_candidates)
        self._history, self.names = pair.history, pair.names[:N_OF_HISTORY]
        self._scale, scale = np.split(pair.scale, [N_OF_HISTORY])
        columns = (scores.of_candidates(ids) / scale).T
        self.constant = dict(zip(pair.names[N_OF_HISTORY:], columns, strict=True))

    def numbers(self, behaviours: Mapping[tuple[str, ...], Ragged]) -> np.ndarray:
        """Return the columns that follow the history of the one user: (n_columns, n_candidates)."""
        histories = next(names for names in behaviours if self._history in names)
        ragged, whole = behaviours[histories], behaviours[histories].whole
        events = ragged.columns[self._history][whole.starts[0] :][: whole.lengths[0]]
        events, ends = ids_to_look_up(events), self._by_event.indptr
        lengths = (ends[events + 1] - ends[events]).astype(np.int32)
        index = Spans(ends[events].astype(np.int64), lengths).index()
        whose, scores = self._by_event.indices[index], self._by_event.data[index]
        ranks = np.repeat(np.arange(len(events) - 1, -1, -1), lengths)
        n_scores = self._by_event.shape[1]
        sums = summarise(whose, ranks, scores, np.full(n_scores, len(events)))
        # All summaries of the one kind of scores, then all of the other
        sums = sums.reshape(len(SUMMARIES), 2, -1).swapaxes(0, 1).reshape(N_OF_HISTORY, -1)
        return sums / self._scale[:, None]
