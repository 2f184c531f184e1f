"""All candidates of a catalogue scored for one user: they are read once, each user once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.neighbours.candidate_scores import CandidateScores
from sklearn_din.neighbours.item_scores import N_OF_HISTORY
from sklearn_din.neighbours.tables import has_numbers
from sklearn_din.network.batch import Batch
from sklearn_din.network.candidates import HistoryReader, SharedHistory, Shown
from sklearn_din.network.interest import Interest
from sklearn_din.network.shared import cut
from sklearn_din.training.threads import map_in_threads

CANDIDATES_PER_PART = 4096  # of a request that threads share
LEAST_RUN = 256  # candidates of one id that are worth a product of their own


class AllCandidates:
    """Candidates as a network sees them, with what it computes of them alone.

    Parameters
    ----------
    net : Net
        The fitted network. It must not change.
    X : EncodedFeatures
        The candidates: their columns, and those bags that are theirs.
    """

    def __init__(self, net: Any, X: EncodedFeatures) -> None:
        self._net, module = net, net.module_
        self._readers: dict[tuple[str, ...], HistoryReader] = module.history_readers()
        self._order, runs = find_runs(X, module.interest_modules)
        if self._order is not None:
            X = X[self._order]
        self._shown = replace(self._read(X)[0], runs=runs)
        for histories, reader in self._readers.items():
            if {*reader.interest.behaviour.candidates} - {None} <= X.columns.keys():
                self._shown.joined[histories] = reader.join(self._shown)
        n_in_runs = 0 if runs is None else runs[1][-1]
        self._parts = [*parts_of(0, n_in_runs), *parts_of(n_in_runs, len(X))]
        pairs = [] if has_numbers(X.schema) else net.neighbours_.pairs
        self._scores = [CandidateScores(pair, X.columns[pair.candidate]) for pair in pairs]
        self._set_numbers(module.of_numbers, X)

    def _set_numbers(self, names: list[str], X: EncodedFeatures) -> None:
        """Keep the numbers that are the same for all users, and where the others stand."""
        constant = {name: X.columns[name] for name in names if name in X.columns}
        for scores in self._scores:
            constant |= scores.constant
        places = {name: place for place, name in enumerate(names)}
        self._numbers = np.zeros((len(X), len(names)), dtype=np.float32)
        for name, numbers in constant.items():
            self._numbers[:, places[name]] = numbers
        firsts = [places[scores.names[0]] for scores in self._scores]
        self._of_scores = [slice(first, first + N_OF_HISTORY) for first in firsts]
        computed = {*constant, *(name for scores in self._scores for name in scores.names)}
        self._of_user = {name: at for name, at in places.items() if name not in computed}

    def score(self, user: EncodedFeatures) -> np.ndarray:
        """Return the network's outputs of all candidates for a user, who is one row.

        outputs : (n_candidates,) or (n_candidates, n_labels)
        """
        self._net._set_training(False)
        own, histories = self._read(user)
        numbers = self._numbers.copy()
        for name, place in self._of_user.items():
            numbers[:, place] = user.columns[name]
        for scores, columns in zip(self._scores, self._of_scores, strict=True):
            numbers[:, columns] = scores.numbers(user.behaviours).T
        module, device = self._net.module_, own.numbers.device
        shown = self._shown.beside(own, torch.from_numpy(numbers).to(device))
        parts = [shown.take(rows) for rows in self._parts] if len(self._parts) > 1 else [shown]
        logits = map_in_threads(lambda part: module.score_candidates(part, histories), parts)
        outputs = torch.cat(logits).float().cpu().numpy()
        if self._order is None:
            return outputs
        in_order = np.empty_like(outputs)
        in_order[self._order] = outputs
        return in_order

    def _read(self, X: EncodedFeatures) -> tuple[Shown, dict[tuple[str, ...], SharedHistory]]:
        batch = self._net._on_device(Batch(X, shared=True))
        return self._net.module_.read_sides(batch, self._readers)


def parts_of(start: int, stop: int) -> list[slice]:
    """Return parts of some candidates, of like sizes; an even number, for pairs of threads.

    Examples
    --------
    >>> [(rows.start, rows.stop) for rows in parts_of(0, 9000)]
    [(0, 2250), (2250, 4500), (4500, 6750), (6750, 9000)]
    """
    n_parts = -(-(stop - start) // CANDIDATES_PER_PART)
    n_parts += n_parts % 2 if n_parts > 1 else 0
    return [rows for rows, _ in cut([start, stop], -(-(stop - start) // max(n_parts, 1)) or 1)]


def find_runs(
    X: EncodedFeatures, interests: Iterable[Interest]
) -> tuple[np.ndarray | None, tuple[str, list[int]] | None]:
    """Find the field that has the most candidates in long runs, of those attention compares.

    Returns: the order in which they are in runs, and ``Shown.runs``; None without runs
    """
    compared: set[str | None] = set()
    for interest in interests:
        if interest.extended and interest.pooling == "attention":
            compared |= {*interest.behaviour.candidates}
    best, runs = None, None
    for name in X.schema.names("categorical"):  # no lists
        if name in compared:
            order, bounds = order_in_runs(X.columns[name])
            if bounds[-1] > (0 if runs is None else runs[1][-1]):
                best, runs = order, (name, bounds)
    return best, runs


def order_in_runs(ids: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Return an order in which those ids come first that are in long runs, and the runs' bounds.

    Examples
    --------
    >>> order, bounds = order_in_runs(np.repeat([7, 3, 5], [1, 300, 256]))
    >>> bounds, order[[0, 300, 556]].tolist()
    ([0, 300, 556], [1, 301, 0])
    """
    _, which, counts = np.unique(ids, return_inverse=True, return_counts=True)
    is_long = counts >= LEAST_RUN
    order = np.lexsort((which, ~is_long[which]))
    return order, [0, *np.cumsum(counts[is_long]).tolist()]
