"""Boosted trees and their columns in an ONNX graph, on padded histories and masks."""

from collections.abc import Callable, Mapping

import numpy as np

from sklearn_din.features.identities import LEAST_ID, N_IDENTITIES
from sklearn_din.features.schema import FIRST_KNOWN_ID, Behaviour, Schema
from sklearn_din.serving.onnx_graph import LOOK_UPS, Graph, Value, join, rank_of_recency
from sklearn_din.serving.onnx_model import mask_name, user_counts_names
from sklearn_din.training.mixture import Mixture
from sklearn_din.trees.boosted import BoostedTrees
from sklearn_din.trees.columns import N_RECENT
from sklearn_din.trees.rates import OF_USERS, PRIOR_ROWS, Rates

FARTHEST = np.float32(np.finfo(np.float32).max)  # an event later than any other's
NO_NUMBER = np.array(np.nan)  # a double: Python's numbers become float32


class TreeWriter:
    """Adds trees to a graph: their columns as ``TreeColumns.read``, float64, then their sum.

    Parameters
    ----------
    mixture : Mixture
        With trees.
    schema : Schema
        Of the rows, which may have numbers of item neighbours that trees do not read.
    inputs : dict of str to Value
        Fields, (n,) or (n, T), unknown ids as 1, and masks, 1.0 on real events.
    identities : dict of str to Value
        Fields with ids as they are compared: unknown ones are negative.
    expand : callable
        Gives a value of one row, (1, m), for all rows, (n, m).
    """

    def __init__(
        self,
        graph: Graph,
        mixture: Mixture,
        schema: Schema,
        inputs: Mapping[str, Value],
        identities: Mapping[str, Value],
        expand: Callable[[Value], Value],
    ) -> None:
        self.graph, self.mixture, self.schema = graph, mixture, schema
        self.inputs, self.identities, self.expand = inputs, identities, expand

    def mix(self, logit: Value) -> Value:
        """Return the mean of the network's logits (n,) and the trees', as ``Mixture.mix``."""
        trees, weight, scale = self.mixture.trees, self.mixture.weight, self.mixture.scale
        if trees is None:
            return logit
        columns = [*self._numbers(trees)]
        for behaviour in self.schema.behaviours:
            columns += map(self.expand, self._columns_of_history(trees, behaviour))
        for rates in trees.columns.rates:
            columns += self._rates(rates)
        above = add_trees(trees, join(columns, axis=1))
        return logit * (1 - weight) + (above * scale + trees.baseline) * weight

    def _numbers(self, trees: BoostedTrees) -> list[Value]:
        """Return the numbers of rows, NaN where one is missing: (n, 1) each."""
        columns = []
        for name in trees.columns.numbers:
            numbers = self.inputs[name].as_double()
            if missing := self.schema.indicator_of(name):
                is_missing = self.graph.add("Greater", self.inputs[missing], 0.0)
                numbers = is_missing.where(NO_NUMBER, numbers)
            columns.append(numbers.unsqueeze(1))
        return columns

    def _columns_of_history(self, trees: BoostedTrees, behaviour: Behaviour) -> list[Value]:
        """Return the columns of one behaviour: (n, m) each, or (1, m) where rows share events."""
        mask, columns = self.inputs[mask_name(behaviour)], list[Value]()
        n_later = rank_of_recency(mask)
        is_recent = self.graph.add("Less", n_later, float(N_RECENT)).as_float() * mask
        chosen = [mask, is_recent, n_later.equals(np.float32(0)).as_float() * mask]
        single = {*self.schema.names("categorical")}
        for history, candidate in behaviour.candidate_of.items():
            if candidate not in single or self.schema[history].kind != "history":
                continue
            is_same = self._find_same(history, candidate) * mask
            chosen.append(is_same)
            distances = is_same.as_bool().where(n_later, FARTHEST)
            least = self.graph.add("ReduceMin", distances, np.array([1]), keepdims=1)
            least = least.equals(FARTHEST).where(NO_NUMBER, least.as_double())
            columns += [is_same.sum(1, keepdims=True).as_double(), least]
        values = [self.inputs[name].as_double() for name in behaviour.numbers]
        for name in behaviour.histories:
            for number in range(trees.columns.n_answers.get(name, 0)):
                answer = np.int32(FIRST_KNOWN_ID + number)
                values.append(self.inputs[name].equals(answer).as_double())
        if values:
            stacked = join([value.unsqueeze(2) for value in values], axis=2)  # (n, T, n_values)
            for of_events in chosen:
                weights = of_events.as_double()
                totals = (weights.unsqueeze(1) @ stacked).squeeze(1)
                columns.append(totals / weights.sum(1, keepdims=True))  # 0 / 0 is NaN
        return columns

    def _find_same(self, history: str, candidate: str) -> Value:
        """Return 1.0 where events have the id of the candidate, which is no unknown one: (n, T)."""
        events, shown = self.identities[history], self.identities[candidate].unsqueeze(1)
        is_identity = self.graph.add("Less", shown, np.int32(LEAST_ID + N_IDENTITIES))
        is_known = self.graph.add("Or", is_identity, shown >= np.int32(FIRST_KNOWN_ID))
        return (events.equals(shown) & is_known).as_float()

    def _rates(self, rates: Rates) -> list[Value]:
        """Return the rate and log1p of the rows of each row's key, as ``Rates``: (n, 1) each."""
        if rates.column == OF_USERS:
            counts = [
                self.graph.input(n, np.float32, ("n",)) for n in user_counts_names(self.schema)
            ]
        else:
            table = np.zeros((2, self.schema[rates.column].n_ids), dtype=np.int32)
            table[:, rates.keys.astype(np.int64)] = rates.sums.T
            counts = [self.graph.add("Gather", of, self.inputs[rates.column]) for of in table]
        n_rows, n_clicks = (count.as_double().unsqueeze(1) for count in counts)
        rate = (n_clicks + np.array(PRIOR_ROWS * rates.base)) / (n_rows + np.array(PRIOR_ROWS))
        rate = n_rows.as_bool().where(rate, NO_NUMBER)
        return [rate, (n_rows + np.array(1.0)).call("Log")]


def add_trees(trees: BoostedTrees, matrix: Value) -> Value:
    """Return the sum of all trees for rows of columns (n, n_columns), float64: (n,), float32."""
    graph, nodes = matrix.graph, trees.nodes
    numbers = np.arange(len(nodes["left"])) - np.repeat(
        np.cumsum(trees.sizes) - trees.sizes, trees.sizes
    )
    is_leaf, of_tree = nodes["is_leaf"] == 1, np.repeat(np.arange(len(trees.sizes)), trees.sizes)
    is_alone = np.repeat(trees.sizes == 1, trees.sizes)  # a leaf without a branch: a constant
    constant = float(nodes["value"][is_alone].sum())
    if is_alone.all():
        return (matrix.sum(1) * np.array(0.0)).as_float() + constant
    kept, leaves = ~is_alone, is_leaf & ~is_alone
    modes = np.where(is_leaf, "LEAF", "BRANCH_LEQ")[kept]
    tensor = graph.onnx.numpy_helper.from_array
    goes_left = np.where(is_leaf, 0, nodes["missing_go_to_left"])
    total = matrix.call(
        "TreeEnsembleRegressor",
        domain=LOOK_UPS,
        n_targets=1,
        nodes_treeids=of_tree[kept].tolist(),
        nodes_nodeids=numbers[kept].tolist(),
        nodes_featureids=nodes["feature_idx"][kept].tolist(),
        nodes_modes=modes.tolist(),
        nodes_values_as_tensor=tensor(nodes["num_threshold"][kept], "thresholds"),
        nodes_truenodeids=np.where(is_leaf, 0, nodes["left"])[kept].tolist(),
        nodes_falsenodeids=np.where(is_leaf, 0, nodes["right"])[kept].tolist(),
        nodes_missing_value_tracks_true=goes_left[kept].tolist(),
        target_treeids=of_tree[leaves].tolist(),
        target_nodeids=numbers[leaves].tolist(),
        target_ids=[0] * int(leaves.sum()),
        target_weights_as_tensor=tensor(nodes["value"][leaves], "outputs"),
    )
    return total.squeeze(1) + constant
