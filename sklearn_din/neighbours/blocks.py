"""Training rows in ordered blocks: a row's numbers come from the rows in earlier blocks alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sklearn_din._validation import key_codes
from sklearn_din.features.encoded import EncodedFeatures

N_BLOCKS = 5


@dataclass(frozen=True)
class OrderedRows:
    """Facts about the training rows beside their features, arrays of shape (n_rows,).

    ``users`` are codes from 0, ``blocks`` int8 from 0, ``clicked`` says whether the candidate was.
    """

    users: np.ndarray
    blocks: np.ndarray
    clicked: np.ndarray

    @property
    def n_users(self) -> int:
        """Number of users."""
        return int(self.users.max(initial=-1)) + 1

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return int(self.blocks.max(initial=0)) + 1


def order_rows(X: EncodedFeatures, clicked: np.ndarray, *, order: str) -> OrderedRows:
    """Put the training rows in blocks: of time, or of users in an arbitrary, fixed order.

    Rows without users are each a user of its own; without times, blocks are made of users.
    """
    users = number_users(X)
    if order == "time" and X.times is not None:
        return OrderedRows(users, _blocks_of_time(X.times), clicked)
    n_users = int(users.max(initial=-1)) + 1
    block_of_user = np.random.RandomState(0).permutation(n_users) * N_BLOCKS // max(n_users, 1)
    return OrderedRows(users, block_of_user.astype(np.int8)[users], clicked)


def number_users(X: EncodedFeatures) -> np.ndarray:
    """Users as numbers from 0, in an order that does not follow the rows' where they can be sorted.

    Rows without a user are each of a user of their own.
    """
    if X.users is None:
        return np.arange(len(X))
    try:
        codes, names = pd.factorize(X.users, sort=True)
    except TypeError:
        codes, names = key_codes(X.users, name="the column of users")
    missing = np.flatnonzero(codes < 0)
    codes = codes.astype(np.int64)
    codes[missing] = len(names) + np.arange(len(missing))
    return codes if codes.max(initial=0) >= 2**31 else codes.astype(np.int32)


def find_clicks(y: ArrayLike | None, n_rows: int) -> np.ndarray:
    """Say which rows have the larger of two labels; none where there are not two labels."""
    labels = np.zeros(n_rows) if y is None else np.asarray(y)
    distinct = pd.unique(labels) if labels.ndim == 1 else ()
    return labels == max(distinct) if len(distinct) == 2 else np.zeros(n_rows, dtype=bool)


def _blocks_of_time(times: np.ndarray) -> np.ndarray:
    """Blocks of about as many rows each. Rows of one time stay together, missing ones come last.

    A row's block is ``rank * N_BLOCKS // n_rows``, with its rank the number of earlier rows.
    """
    firsts = [math.ceil(block * len(times) / N_BLOCKS) for block in range(1, N_BLOCKS)]
    ranks = np.maximum(np.array(firsts) - 1, 0)  # rank >= first: this one is earlier
    cuts = np.partition(times, ranks)[ranks]
    blocks = np.zeros(len(times), dtype=np.int8)
    for cut in cuts:
        blocks += times > cut
    is_missing = pd.isna(times)
    blocks[is_missing] = np.count_nonzero(~is_missing) * N_BLOCKS // max(len(times), 1)
    return blocks
