"""Opponents that know what goes together: EASE, item-kNN, and all that an analyst could have.

Written from the papers in plain numpy and scipy, slow and obvious, and independent of the package.
For each attribute, everybody's histories and clicked candidates are a user x id matrix of zeros and
ones. EASE (Steck 2019) is the full-rank linear model that gives each id of a user from the others;
item-kNN is the cosine of two columns, shrunk where few users have both. The events' scores with the
candidate are summed up in five columns; popularity and a flag "known" come beside them.

A training row must not be described by a matrix that holds its own label. Training rows come in
ordered blocks, of time or of users as the workload is split: each block's columns come from the
blocks before it, the first one's are zeros. Other rows' come from all training rows.
"""

import numpy as np
import scipy.linalg
import scipy.sparse
from sklearn.metrics import log_loss

from benchmarks import baselines
from benchmarks.workloads import PARTS, UNKNOWN, take

N_BLOCKS = 5
LARGEST_EXACT = 8_000  # ids in EASE's matrix: the most popular ones
STRENGTHS = (100.0, 300.0, 1000.0)  # of EASE's L2; validation rows choose one
SHRINKAGE = 10.0  # users added to those of both ids, in the cosine
DECAY = 0.8  # per rank, from the newest event


def ease(workload, *, seed=0):
    """Click probabilities of the test rows: EASE and popularity, logistic regression."""
    return baselines.linear(ease_columns(workload), workload, "test")


def item_knn(workload, *, seed=0):
    """Click probabilities of the test rows: shrunk cosines and popularity, logistic regression."""
    return baselines.linear(knn_columns(workload), workload, "test")


def popularity(workload, *, seed=0):
    """Click probabilities of the test rows: the item's popularity alone, logistic regression."""
    tables = {part: table[:, 5:7] for part, table in knn_columns(workload).items()}
    return baselines.linear(tables, workload, "test")


def stack(workload, *, seed=0):
    """Click probabilities of the test rows: both and the analyst's columns, boosted trees."""
    own, _ = baselines.features(workload, seed=seed)
    both = [ease_columns(workload), knn_columns(workload)]
    tables = {part: np.column_stack([own[part], *(c[part] for c in both)]) for part in PARTS}
    return baselines.boosted_trees(tables, workload, seed=seed)


def knn_columns(workload):
    """Columns of shrunk cosines, by part."""
    (tables,) = columns(workload, cosines)
    return tables


def ease_columns(workload):
    """EASE's columns by part, with the L2 whose logistic regression is best on validation rows."""
    if _last_ease.get("workload") is not workload:  # EASE and the stack ask one after the other
        tables = columns(workload, *(ease_of(strength) for strength in STRENGTHS))
        loss = [
            log_loss(workload["valid"]["label"], baselines.linear(table, workload, "valid"))
            for table in tables
        ]
        _last_ease.update(workload=workload, columns=tables[int(np.argmin(loss))])
    return _last_ease["columns"]


_last_ease = {}


def columns(workload, *similarities):
    """Return {part: (n_rows, 7 per attribute) float array} for each similarity.

    A similarity is a function of a user x id matrix that returns an id x id matrix: row the event's
    id, column the candidate's.
    """
    train, block = workload["train"], ordered_blocks(workload)
    blocks = [np.flatnonzero(block == b) for b in range(N_BLOCKS)]
    results = [{part: [] for part in PARTS} for _ in similarities]
    for name, n_ids in workload["attributes"].items():
        matrices = [user_matrix(take(train, block < b), name, n_ids) for b in range(N_BLOCKS)]
        matrices.append(user_matrix(train, name, n_ids))
        for tables, similarity in zip(results, similarities, strict=True):
            of_train = np.zeros((len(block), 7))
            for rows, matrix in zip(blocks[1:], matrices[1:], strict=False):
                of_train[rows] = describe(take(train, rows), name, matrix, similarity(matrix))
            tables["train"].append(of_train)
            scores = similarity(matrices[-1])
            for part in ("valid", "test"):
                tables[part].append(describe(workload[part], name, matrices[-1], scores))
    return [{part: np.column_stack(of[part]) for part in PARTS} for of in results]


def ordered_blocks(workload):
    """Block of each training row: equal parts of the rows by time, or of the users by chance."""
    train = workload["train"]
    if workload["split"] == "time":
        edges = np.quantile(train["time"], np.arange(1, N_BLOCKS) / N_BLOCKS)
        return np.searchsorted(edges, train["time"], side="left")
    users, user = np.unique(train["group"], return_inverse=True)
    return (np.random.RandomState(0).permutation(len(users)) * N_BLOCKS // len(users))[user]


def user_matrix(rows, name, n_ids):
    """Return who has which id among past events and clicked candidates: 0 or 1."""
    event_row = np.repeat(np.arange(len(rows["label"])), np.diff(rows["hist_offsets"]))
    clicked = rows["label"] == 1
    user = np.concatenate([rows["group"][event_row], rows["group"][clicked]])
    ids = np.concatenate([rows[f"hist_{name}"], rows[name][clicked]])
    known = ids > UNKNOWN
    users, user = np.unique(user[known], return_inverse=True)
    ones = np.ones(len(user), dtype=np.float32)
    matrix = scipy.sparse.csr_matrix((ones, (user, ids[known])), shape=(len(users), n_ids))
    matrix.data[:] = 1
    return matrix


def cosines(matrix):
    """Users of both ids / (root of users of the one times users of the other + shrinkage)."""
    both = (matrix.T @ matrix).tocoo()
    n_users = np.asarray(matrix.sum(0)).ravel()
    cosine = both.data / (np.sqrt(n_users[both.row] * n_users[both.col]) + SHRINKAGE)
    cosine[both.row == both.col] = 0
    return scipy.sparse.csr_matrix((cosine, (both.row, both.col)), shape=both.shape)


def ease_of(strength):
    """EASE with one strength of its L2, as a function of a user x id matrix."""

    def weights(matrix):
        """EASE: B = I - P / diag(P) with P = inverse(X'X + L2 I); zero on the diagonal."""
        n_users = np.asarray(matrix.sum(0)).ravel()
        ids = np.sort(np.argsort(-n_users, kind="stable")[:LARGEST_EXACT])
        ids = ids[n_users[ids] > 0]
        gram = (matrix[:, ids].T @ matrix[:, ids]).toarray()
        gram[np.diag_indices_from(gram)] += strength
        inverse = _inverse(gram)
        coefficients = -inverse / np.diag(inverse)
        np.fill_diagonal(coefficients, 0)
        return coefficients, ids

    return weights


def _inverse(gram):
    """Inverse of a symmetric positive definite matrix by Cholesky, which takes half the time."""
    factor, _ = scipy.linalg.lapack.spotrf(gram.astype(np.float32), lower=True)
    inverse, _ = scipy.linalg.lapack.spotri(factor, lower=True)
    return np.tril(inverse) + np.tril(inverse, -1).T


def describe(rows, name, matrix, similarity):
    """Sum, mean, maximum, newest and decayed sum of the scores; popularity; whether known."""
    offsets, candidate = rows["hist_offsets"], rows[name]
    length, n_rows = np.diff(offsets), len(candidate)
    row = np.repeat(np.arange(n_rows), length)
    score = _scores(similarity, rows[f"hist_{name}"], candidate[row])
    rank = offsets[1:][row] - 1 - np.arange(len(row))  # 0 is the newest event
    total = np.bincount(row, score, minlength=n_rows)
    largest = np.full(n_rows, -np.inf)
    np.maximum.at(largest, row, score)
    newest = np.bincount(row, np.where(rank == 0, score, 0), minlength=n_rows)
    decayed = np.bincount(row, score * DECAY**rank, minlength=n_rows)
    n_users = np.asarray(matrix.sum(0)).ravel()
    mean = n_users[n_users > 0].mean()  # blocks hold unequally many users
    sums = [total, total / np.maximum(length, 1), np.where(length > 0, largest, 0), newest, decayed]
    sums = [np.sign(values) * np.log1p(np.abs(values)) for values in sums]
    return np.column_stack([*sums, np.log1p(n_users / mean)[candidate], n_users[candidate] > 0])


def _scores(similarity, events, candidates):
    if scipy.sparse.issparse(similarity):
        return np.asarray(similarity[events, candidates]).ravel()
    weights, ids = similarity
    place = np.full(1 + max(events.max(initial=0), candidates.max(), ids.max()), -1)
    place[ids] = np.arange(len(ids))
    event, candidate = place[events], place[candidates]
    return np.where((event < 0) | (candidate < 0), 0.0, weights[event, candidate])
