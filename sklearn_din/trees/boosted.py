"""Boosted trees on columns of encoded rows: fitted by scikit-learn, kept as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from threadpoolctl import threadpool_limits

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.trees.columns import TreeColumns
from sklearn_din.utils.compat import add_trees, make_trees, read_trees
from sklearn_din.utils.estimator_state import check_array, check_keys

# More leaves, or until the newest rows say stop, was worse on six of eight logs.
SIZE = {
    "max_iter": 150,
    "learning_rate": 0.05,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 50,
    "l2_regularization": 1.0,
    "early_stopping": False,
    "random_state": 0,
}
NODE = {
    "feature_idx": np.int64,
    "num_threshold": np.float64,
    "missing_go_to_left": np.uint8,
    "left": np.uint32,
    "right": np.uint32,
    "value": np.float64,
    "is_leaf": np.uint8,
}  # what a node says, and its dtype in scikit-learn


@dataclass(frozen=True, eq=False)
class BoostedTrees:
    """Trees whose sum is the log-odds of a click.

    Parameters
    ----------
    columns : TreeColumns
        What they read.
    nodes : dict of str to ndarray of shape (n_nodes,)
        The nodes of all trees, by the names of scikit-learn; children by their number within the
        tree, whose first node is its root.
    sizes : ndarray of shape (n_trees,), int64
        Number of nodes of each tree.
    baseline : float
        Log-odds before the first tree.
    n_columns : int
        Number of columns.
    """

    columns: TreeColumns
    nodes: Mapping[str, np.ndarray]
    sizes: np.ndarray
    baseline: float
    n_columns: int

    @classmethod
    def fit(
        cls, columns: TreeColumns, matrix: np.ndarray, y: np.ndarray, weights: np.ndarray | None
    ) -> Self:
        """Fit trees by one thread: several wait by spinning, ten times as long beside other work.

        matrix : (n_rows, n_columns), from :meth:`TreeColumns.learn`
        """
        from sklearn.ensemble import HistGradientBoostingClassifier  # slow to import

        matrix = np.where(np.isnan(matrix).all(axis=0), 0.0, matrix)  # it raises for such columns
        with threadpool_limits(limits=1, user_api="openmp"):
            boosted = HistGradientBoostingClassifier(**SIZE).fit(matrix, y, weights)
        trees, baseline = read_trees(boosted)
        nodes = {name: np.concatenate([tree[name] for tree in trees]) for name in NODE}
        nodes["num_threshold"] = np.nan_to_num(nodes["num_threshold"])  # infinite: NaN or not
        sizes = np.array([len(tree) for tree in trees], dtype=np.int64)
        return cls(columns, nodes, sizes, baseline, matrix.shape[1])

    def score(self, X: EncodedFeatures) -> np.ndarray:
        """Return the log-odds of rows, (n_rows,), float64."""
        outputs, matrix = np.full(len(X), self.baseline), self.columns.read(X)
        if matrix.shape[1] != self.n_columns:
            raise ValueError(f"trees read {self.n_columns} columns, got {matrix.shape[1]}.")
        add_trees(self._trees, matrix, outputs)
        return outputs

    @cached_property
    def _trees(self) -> list[Any]:
        return make_trees(self.nodes, self.sizes)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_trees"}

    def check(self) -> None:
        """Raise ValueError where a walk from a root might end elsewhere than in a leaf."""
        check_keys(self.nodes, {*NODE}, what="the nodes of trees")
        sizes = self.sizes
        check_array(sizes, dtype=np.int64, shape=(np.size(sizes),), what="sizes of trees", least=1)
        n_nodes, first = int(sizes.sum()), np.cumsum(sizes) - sizes
        for name, dtype in NODE.items():
            what = f"{name} of nodes of trees"
            check_array(self.nodes[name], dtype=dtype, shape=(n_nodes,), what=what)
        features, most = self.nodes["feature_idx"], self.n_columns - 1
        check_array(
            features, dtype=np.int64, shape=(n_nodes,), what="columns of trees", least=0, most=most
        )
        numbers = np.arange(n_nodes) - np.repeat(first, sizes)
        ends = np.repeat(sizes, sizes)
        for child in (self.nodes["left"], self.nodes["right"]):
            if not ((self.nodes["is_leaf"] == 1) | ((child > numbers) & (child < ends))).all():
                raise ValueError("children of nodes of trees must come behind them.")
