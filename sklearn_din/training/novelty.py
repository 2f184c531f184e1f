"""New items: how many of the candidates' ids are new over time, and training prepared for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import FIRST_KNOWN_ID, UNKNOWN_ID, Schema
from sklearn_din.training.occurrences import count_ids
from sklearn_din.training.validation import can_order, late_times, row_numbers

LEAST_SHARE = 0.01  # below, nothing is hidden: rare ids of a still catalogue are new by chance
MOST_BLOCKS = 5  # of late rows; with a tenth of the rows each, they are the newer half


@dataclass(frozen=True, eq=False)
class Novelty:
    """Rates at which candidates' ids are new, and training rows that are made to look new.

    An item that comes up after training has the unknown id. Without preparation, the network
    meets that id for the first time when it is used. So each training step hides the candidates'
    ids of some rows, of as many as have new ids over time.

    Parameters
    ----------
    shares : dict of str to float
        By candidate column, the share of late rows whose id no earlier row has.
    known : dict of str to ndarray of shape (n_ids,), bool
        Which ids the rows before the last block have, by column whose ids are hidden.
    patterns : ndarray of shape (n_patterns, n_columns), bool
        Which of those columns are new in the same row, in the order of ``known``: a new item may
        be in a known category.
    frequencies : ndarray of shape (n_patterns,)
        Share of the late rows with each pattern.
    """

    shares: Mapping[str, float]
    known: Mapping[str, np.ndarray]
    patterns: np.ndarray
    frequencies: np.ndarray

    @property
    def hidden(self) -> dict[str, float]:
        """By column whose ids are hidden, the share of the training rows. Empty: none are."""
        return {column: self.shares[column] for column in self.known}

    def without_ids(self) -> Novelty:
        """Return what ``hide`` needs: columns, patterns and how frequent they are."""
        return replace(self, known=dict.fromkeys(self.known, np.zeros(0, dtype=bool)))

    def hide(
        self, X: EncodedFeatures, random: np.random.RandomState
    ) -> tuple[EncodedFeatures, np.ndarray, np.ndarray]:
        """Add copies of some rows of a training step, whose ids are hidden.

        Each row draws the pattern of one of the late rows; where something is new in it, a copy of
        the row hides that. All rows stay, so that known items are learnt from all their rows, with
        the weight that known items have among the late rows: their loss has the share of late rows
        without anything new as its factor, that of the copies 1. Returned are all of them, the row
        that each one is, and these factors.
        """
        drawn = random.choice(len(self.patterns), size=len(X), p=self.frequencies)
        is_new = self.patterns[drawn]
        copied = np.flatnonzero(is_new.any(axis=1))
        rows = np.concatenate([np.arange(len(X)), copied])
        hidden = np.concatenate([np.zeros_like(is_new), is_new[copied]])
        as_known = self.frequencies[~self.patterns.any(axis=1)].sum()
        factors = np.ones(len(rows), dtype=np.float32)
        factors[: len(X)] = as_known
        shown = _with_unknown(X[rows], dict(zip(self.known, hidden.T, strict=True)))
        return shown, rows, factors

    def hide_new(self, X: EncodedFeatures) -> EncodedFeatures:
        """Hide the ids that no row before the last block has: nothing is trained on them yet."""
        return _with_unknown(X, {name: ~known[X[name]] for name, known in self.known.items()})


STILL = Novelty({}, {}, np.zeros((1, 0), dtype=bool), np.ones(1))


def measure_novelty(X: EncodedFeatures, *, share: float) -> Novelty:
    """Compare late rows' candidates with all ids of the rows before them.

    The newer half of the rows is cut by time into blocks, each with this share of the rows, of
    which the last one is that of ``validation="last"``. An id is new where it would be unknown to
    an encoder fitted on the rows before its block: none of them has it as a candidate, in a history
    or in another column of its vocabulary. Several blocks, because one may lie between two arrivals
    of new items: with new items at midnight, the last tenth of a week is an evening. There are no
    shares where the rows' times do not tell earlier from later.

    Columns that are no behaviour's candidate are left alone: an hour or a weekday may be new in
    late rows, and comes back tomorrow.
    """
    columns = candidate_columns(X.schema)
    if not columns or X.times is None or not can_order(X.times):
        return STILL
    n_block = max(1, round(share * len(X)))
    n_blocks = min(MOST_BLOCKS, max(1, len(X) // (2 * n_block)))
    cuts = late_times(X.times, n_wanted=n_block, n_times=n_blocks)
    block_of = np.zeros(len(X), dtype=np.uint8)
    for cut in cuts:
        block_of += X.times >= cut
    known = {name: np.arange(n) < FIRST_KNOWN_ID for name, n in X.schema.vocabulary_sizes.items()}
    is_new = []
    for block in range(1, len(cuts) + 1):
        for name, counts in count_ids(X, row_numbers(block_of == block - 1)).items():
            known[name] |= counts > 0
        rows = block_of == block
        of_column = [known[X.schema[name].vocabulary][X[name][rows]] for name in columns]
        is_new.append(~np.stack(of_column, axis=1))
    by_column = {name: known[X.schema[name].vocabulary] for name in columns}
    return _summary(np.concatenate(is_new), by_column)


def candidate_columns(schema: Schema) -> list[str]:
    """Names of the columns that some behaviour's history is compared with, in order."""
    used = {name for behaviour in schema.behaviours for name in behaviour.candidates}
    return [name for name in schema.names("categorical") if name in used]


def _summary(is_new: np.ndarray, known: Mapping[str, np.ndarray]) -> Novelty:
    """Shares and patterns of (n_rows, n_columns) bits; still columns are never hidden."""
    shares = dict(zip(known, is_new.mean(axis=0).tolist(), strict=True))
    turning = np.array([share >= LEAST_SHARE for share in shares.values()])
    if not turning.any():
        return replace(STILL, shares=shares)
    patterns, n_rows = np.unique(is_new[:, turning], axis=0, return_counts=True)
    hidden = {name: ids for name, ids in known.items() if shares[name] >= LEAST_SHARE}
    return Novelty(shares, hidden, patterns, n_rows / n_rows.sum())


def _with_unknown(X: EncodedFeatures, hidden: Mapping[str, np.ndarray]) -> EncodedFeatures:
    """Put the unknown id in place of ids, and zero in place of the numbers looked up by them.

    hidden : by column, (n_rows,), True where its id is hidden
    """
    columns = dict(X.columns)
    for field in X.schema.fields:
        if field.name in hidden:
            columns[field.name] = columns[field.name].copy()
            columns[field.name][hidden[field.name]] = UNKNOWN_ID
        elif field.kind == "numeric" and field.candidate and field.candidate in hidden:
            columns[field.name] = columns[field.name].copy()
            columns[field.name][hidden[field.candidate]] = 0
    return EncodedFeatures._without_checks(X.schema, columns, X.behaviours, X.users, X.times)
