"""Item neighbours of fixed candidates, looked up for one history after the other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.sparse import csr_array, hstack

from sklearn_din._spans import Spans
from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.ragged import Ragged
from sklearn_din.neighbours.item_scores import DECAY, N_OF_HISTORY, SUMMARIES
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
        events = ids_to_look_up(events)
        sums = _summarise(self._by_event, events)
        # All summaries of the one kind of scores, then all of the other
        sums = sums.reshape(len(SUMMARIES), 2, -1).swapaxes(0, 1).reshape(N_OF_HISTORY, -1)
        sizes = np.abs(sums)
        np.log1p(sizes, out=sizes, where=sizes > 0)  # most are zero
        return np.copysign(sizes, sums) / self._scale[:, None]


def _summarise(by_event: csr_array, events: np.ndarray) -> np.ndarray:
    """Return sum, mean, maximum, newest and decayed sum of each candidate's scores.

    Most scores are zero, and are not looked at.

    by_event : (n_ids, n_candidates)
    events : (n_events,), oldest first
    summaries : (5, n_candidates), zeros without an event
    """
    n_events, n_candidates = len(events), by_event.shape[1]
    sums = np.zeros((len(SUMMARIES), n_candidates), dtype=np.float32)
    if not n_events:
        return sums
    total, mean, most, newest, decayed = sums
    starts = by_event.indptr[events].astype(np.int64)
    lengths = by_event.indptr[events + 1] - starts
    index = Spans(starts, lengths.astype(np.int32)).index()
    whose, scores = by_event.indices[index], by_event.data[index]
    decays = np.float32(DECAY) ** np.arange(n_events - 1, -1, -1, dtype=np.float32)
    total[:] = np.bincount(whose, scores, n_candidates)
    decayed[:] = np.bincount(whose, scores * np.repeat(decays, lengths), n_candidates)
    # An event that is no neighbour scores zero
    most[:] = np.where(np.bincount(whose, minlength=n_candidates) < n_events, 0, -np.inf)
    np.maximum.at(most, whose, scores)
    of_newest = slice(len(whose) - lengths[-1], None)
    newest[whose[of_newest]] = scores[of_newest]
    mean[:] = total / np.float32(n_events)
    return sums
