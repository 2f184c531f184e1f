"""A fitted model as an ONNX file: for servers without torch and without this package.

The file holds no code, only a graph of standard operations and the weights, which other versions,
languages and machines can read. ``interest_outputs`` is the twin of ``Interest.outputs``: what one
of them tells the MLP, the other must.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from torch import nn

from sklearn_din._whole_files import whole_file
from sklearn_din.features.schema import FIRST_KNOWN_ID, Behaviour
from sklearn_din.inspection.fitted import classifier_of, fitted_pipeline
from sklearn_din.module import DIN
from sklearn_din.neighbours.pairs import NeighbourPair
from sklearn_din.network.interest import DECAYS, N_COUNTED, Interest
from sklearn_din.network.layers import ActivationUnit, Dice, PReLU
from sklearn_din.serving.export_neighbours import neighbour_bytes, neighbour_numbers
from sklearn_din.serving.onnx_graph import HIDDEN, Graph, axes, signed_log
from sklearn_din.serving.recipe import mask_name, recipe_of

METADATA_KEY = "sklearn_din"
OUTPUTS = ("probability", "logit")
MOST_BYTES = 2**31 - 2**20  # protobuf's limit is 2 GiB per file


def export_onnx(estimator: BaseEstimator, path: str | os.PathLike) -> None:
    """Write a fitted model as an ONNX file, for serving without torch and without this package.

    The file takes any number of impressions and histories of any length. Its inputs are named
    as the keys of :class:`~sklearn_din.features.EncodedFeatures`: each field, (n,) or (n, T),
    and for each behaviour the mask (n, T) of its first history. Its outputs are ``probability``
    of the click and ``logit``, both (n,).

    Of a Pipeline the encoder's work is written too, as JSON in the file's metadata under
    "sklearn_din": how each input is made out of plain values (vocabularies in the order of their
    ids from 2, means, scales), ``max_length``, the separator, and the classes. With it
    :class:`~sklearn_din.serving.OnnxServer` answers plain dictionaries. Steps before the
    encoder are not written: the server has to do what they do. A value not seen at fit is
    unknown to the server (id 1), also where the encoder has ``unknown="error"``.

    Parameters
    ----------
    estimator : DINClassifier, Pipeline or search
        Fitted. A Pipeline has a HistorySequenceEncoder among its steps and ends in a
        DINClassifier.
    path : str or path-like
        File to write. One that is there is replaced when the new one is complete.

    Raises
    ------
    ImportError
        If onnx is not installed.
    TypeError
        If ``estimator`` is something else, the network has a layer that is not this package's,
        or ids are neither text nor integers nor booleans.
    ValueError
        If a field has the name of an output, or the file would be larger than 2 GiB.

    Examples
    --------
    >>> import numpy as np
    >>> import onnxruntime  # doctest: +SKIP
    >>> from sklearn_din import DINClassifier
    >>> X = np.random.RandomState(0).normal(size=(100, 1)).astype("float32")
    >>> classifier = DINClassifier(max_epochs=1, random_state=0).fit(X, X[:, 0] > 0)
    >>> export_onnx(classifier, "model.onnx")  # doctest: +SKIP
    >>> session = onnxruntime.InferenceSession("model.onnx")  # doctest: +SKIP
    >>> probability, logit = session.run(None, {"x0": X[:, 0]})  # doctest: +SKIP
    """
    onnx = _import_onnx()
    found = getattr(estimator, "best_estimator_", estimator)
    classifier = classifier_of(found, purpose="export_onnx")
    recipe, neighbours = "", tuple[NeighbourPair, ...]()
    if isinstance(found, Pipeline):
        pipeline = fitted_pipeline(found, purpose="export_onnx")
        recipe = json.dumps(recipe_of(pipeline))
        neighbours = pipeline.neighbours
    n_more_bytes = len(recipe.encode()) + sum(map(neighbour_bytes, neighbours))
    _check_exportable(classifier.module_, n_more_bytes)
    graph = Graph(onnx)
    _add_network(graph, classifier.module_, neighbours)
    model = graph.model()
    if recipe:
        onnx.helper.set_model_props(model, {METADATA_KEY: recipe})
    onnx.checker.check_model(model)
    with whole_file(path) as partial:
        onnx.save_model(model, str(partial))


def _import_onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "export_onnx needs the package onnx, which is not installed. "
            "Install it with: pip install 'sklearn-din[onnx]'"
        ) from error
    return onnx


def _check_exportable(module: DIN, n_more_bytes: int) -> None:
    names = [field.name for field in module.schema.fields]
    taken = sorted(set(names) & set(OUTPUTS))
    if taken:
        raise ValueError(
            f"fields {taken} have the names of the file's outputs. Rename those columns and fit "
            "again."
        )
    weights = [*module.parameters(), *module.buffers()]
    n_bytes = n_more_bytes + sum(tensor.numel() * tensor.element_size() for tensor in weights)
    if n_bytes > MOST_BYTES:
        raise ValueError(
            f"an ONNX file holds at most 2 GiB, and this model takes {n_bytes / 2**30:.1f} GiB. "
            "Fit with a smaller embedding_dim, or with max_ids or min_frequency in the encoder."
        )


def _add_network(graph: Graph, module: DIN, neighbours: Sequence[NeighbourPair]) -> None:
    """As ``DIN.forward``, on padded histories and masks instead of flat events.

    The numbers of item neighbours are computed in the graph, by ids and scores that it holds.
    """
    schema = module.schema
    computed = {name for pair in neighbours for name in pair.names}
    events = _add_inputs(graph, module, leave_out=computed)
    numbers = {name: name for name in schema.names("numeric")}
    for pair in neighbours:
        mask = events[mask_name(schema.behaviour_of(pair.history))]
        numbers |= neighbour_numbers(graph, pair, events[pair.history], mask)
    tables = {
        name: graph.constant(module.embeddings.weight(name)) for name in module.embeddings.sizes
    }
    embedded = {
        field.name: graph.add(
            "Gather", tables[field.vocabulary], events.get(field.name, field.name)
        )
        for field in schema.fields
        if field.has_ids
    }
    inputs = [graph.add("Unsqueeze", value, axes(1)) for value in numbers.values()]
    inputs += [embedded[name] for name in schema.names("categorical")]
    for interest in module.interest_modules:
        inputs += interest_outputs(graph, module, interest, embedded, events)
    joined = graph.add("Concat", *inputs, axis=1)
    logit = graph.add("Squeeze", _layers(graph, joined, [*module.mlp, module.output]), axes(1))
    graph.output("probability", graph.add("Sigmoid", logit))
    graph.output("logit", logit)


def _add_inputs(graph: Graph, module: DIN, *, leave_out: Collection[str]) -> dict[str, str]:
    """Declare the inputs; histories and masks get one empty position more, so none is of size 0."""
    schema, events = module.schema, {}
    one_more = np.array([0, 0, 0, 1], dtype=np.int64)
    for field in schema.fields:
        if field.name in leave_out:
            continue
        dims = ("n", _length_name(schema.behaviour_of(field.name))) if field.is_history else ("n",)
        name = graph.input(field.name, np.int32 if field.has_ids else np.float32, dims)
        if field.is_history:
            events[name] = graph.add("Pad", name, one_more)
    for behaviour in schema.behaviours:
        mask = graph.input(mask_name(behaviour), np.bool_, ("n", _length_name(behaviour)))
        as_numbers = graph.add("Cast", mask, to=graph.onnx.TensorProto.FLOAT)
        events[mask] = graph.add("Pad", as_numbers, one_more)
    return events


def interest_outputs(
    graph: Graph, module: DIN, interest: Interest, embedded: dict[str, str], events: dict[str, str]
) -> list[str]:
    """Twin of ``Interest.outputs``, in the same order: what the MLP gets of one behaviour."""
    behaviour = interest.behaviour
    keys = graph.add("Concat", *(embedded[n] for n in behaviour.histories), axis=2)  # (n, T, width)
    mask = events[mask_name(behaviour)]  # (n, T), float
    lengths = graph.add("ReduceSum", mask, axes(1))  # (n, 1)
    queries = None if behaviour.is_bag else _queries(graph, module, behaviour, embedded, lengths)
    weighed = _weighed(graph, interest, events) if interest.extended else []
    vector, weights = _pooled(graph, interest, queries, keys, weighed, events)
    if queries is None or not weighed:
        return [vector]
    counted = weighed[: N_COUNTED * interest.n_candidates]
    matches = [graph.add("ReduceSum", bits, axes(1)) for bits in counted]
    more = [signed_log(graph, count) for count in (lengths, *matches)]
    if interest.n_means:
        attributes = zip(behaviour.histories, behaviour.candidates, strict=True)
        columns = [embedded[name] for name, candidate in attributes if candidate is None]
        columns += [graph.add("Unsqueeze", events[name], axes(2)) for name in behaviour.numbers]
        more.append(_means(graph, columns, mask if weights is None else weights))
    if weights is None:
        return [graph.add("Mul", queries, vector), *more]
    mass = graph.add("ReduceSum", weights, axes(1))
    weighted = [graph.add("Mul", queries, vector), signed_log(graph, mass)]
    root = graph.add("Sqrt", graph.add("Max", lengths, np.float32(1)))
    unweighted = graph.add("Div", _weighted_sum(graph, mask, keys), root)
    return [*weighted, graph.add("Mul", queries, unweighted), *more]


def _means(graph: Graph, columns: Sequence[str], weights: str) -> str:
    """As ``Interest._means``: (n, n_means)."""
    total = _weighted_sum(graph, weights, graph.add("Concat", *columns, axis=2))
    mass = graph.add("ReduceSum", graph.add("Abs", weights), axes(1))
    return graph.add("Div", total, graph.add("Add", mass, np.float32(1)))


def _pooled(
    graph: Graph,
    interest: Interest,
    queries: str | None,
    keys: str,
    weighed: list[str],
    events: dict[str, str],
) -> tuple[str, str | None]:
    """As ``Interest.forward``: interest (n, width), and weights (n, T) or None."""
    behaviour = interest.behaviour
    mask = events[mask_name(behaviour)]
    if interest.pooling == "max":
        return _largest(graph, keys, mask), None
    weights = None
    if interest.pooling == "attention" and queries is not None:
        relations = [*weighed, *_common(graph, behaviour, events)] if interest.extended else []
        scores = _unit(graph, interest.unit, queries, keys, relations)
        weights = _normalised(graph, interest, scores, mask)
    lengths = graph.add("ReduceSum", mask, axes(1))
    total = _weighted_sum(graph, mask if weights is None else weights, keys)
    return _scaled(graph, interest, total, lengths), weights


def _weighted_sum(graph: Graph, weights: str, keys: str) -> str:
    """Weights (n, T) and keys (n, T, width) -> (n, width)."""
    row = graph.add("Unsqueeze", weights, axes(1))
    return graph.add("Squeeze", graph.add("MatMul", row, keys), axes(1))


def _queries(
    graph: Graph, module: DIN, behaviour: Behaviour, embedded: dict[str, str], lengths: str
) -> str:
    """Candidate's embedding by attribute, zeros where there is none: (n, width)."""
    attributes = []
    for history, candidate in zip(behaviour.histories, behaviour.candidates, strict=True):
        if candidate is not None:
            attributes.append(embedded[candidate])
            continue
        zeros = np.zeros((1, module.embeddings.width(history)), dtype=np.float32)
        attributes.append(graph.add("Mul", lengths, zeros))
    return graph.add("Concat", *attributes, axis=1)


def _same_ids(graph: Graph, behaviour: Behaviour, events: dict[str, str]) -> list[str]:
    """As ``Matches.same``: (n, T) each."""
    columns = []
    for history, candidate in zip(behaviour.histories, behaviour.candidates, strict=True):
        if candidate is not None:
            ids = events[history]
            same = graph.add("Equal", ids, graph.add("Unsqueeze", candidate, axes(1)))
            is_known = graph.add("GreaterOrEqual", ids, np.int32(FIRST_KNOWN_ID))
            both = graph.add("And", same, is_known)
            columns.append(graph.add("Cast", both, to=graph.onnx.TensorProto.FLOAT))
    return columns


def _weighed(graph: Graph, interest: Interest, events: dict[str, str]) -> list[str]:
    """As ``Matches.weighed``: (n, T) each."""
    same = _same_ids(graph, interest.behaviour, events)
    weighed = list(same)
    if same:
        ranks = _ranks(graph, events[mask_name(interest.behaviour)])
        for decay in DECAYS[1:]:
            factors = graph.add("Pow", np.float32(decay), ranks)
            weighed += [graph.add("Mul", bits, factors) for bits in same]
    return weighed


def _common(graph: Graph, behaviour: Behaviour, events: dict[str, str]) -> list[str]:
    """As ``Interest._common``: (n, T) each."""
    ranks = _ranks(graph, events[mask_name(behaviour)])
    recency = graph.add("Log", graph.add("Add", ranks, np.float32(1)))
    return [recency, *(events[name] for name in behaviour.numbers)]


def _ranks(graph: Graph, mask: str) -> str:
    """As ``Matches.ranks``, 0 behind the last event: (n, T)."""
    from_newest = graph.add("CumSum", mask, np.int64(1), reverse=1)
    return graph.add("Sub", graph.add("Max", from_newest, np.float32(1)), np.float32(1))


def _unit(graph: Graph, unit: ActivationUnit, queries: str, keys: str, relations: list[str]) -> str:
    """As ``ActivationUnit.forward``: (n, T)."""
    weight_query, weight_event = unit.split_first_layer()
    query_part = graph.add("Add", graph.add("MatMul", queries, weight_query), unit.first.bias)
    pairs = graph.add("Mul", graph.add("Unsqueeze", queries, axes(1)), keys)
    columns = [graph.add("Unsqueeze", relation, axes(2)) for relation in relations]
    inputs = graph.add("Concat", keys, pairs, *columns, axis=2)
    event_part = graph.add("MatMul", inputs, weight_event)
    scores = graph.add("Add", event_part, graph.add("Unsqueeze", query_part, axes(1)))
    hidden = _layers(graph, scores, [unit.first_activation, *unit.rest, unit.last])
    return graph.add("Squeeze", hidden, axes(2))


def _normalised(graph: Graph, interest: Interest, scores: str, mask: str) -> str:
    """Scores as weights: zero where there is no event."""
    is_event = graph.add("Cast", mask, to=graph.onnx.TensorProto.BOOL)
    if interest.normalization == "softmax":
        scores = graph.add("Softmax", graph.add("Where", is_event, scores, HIDDEN), axis=1)
    return graph.add("Where", is_event, scores, np.float32(0))


def _largest(graph: Graph, keys: str, mask: str) -> str:
    """As ``max_events``: (n, width)."""
    columns = graph.add("Unsqueeze", mask, axes(2))
    is_event = graph.add("Cast", columns, to=graph.onnx.TensorProto.BOOL)
    shown = graph.add("Where", is_event, keys, HIDDEN)
    largest = graph.add("ReduceMax", shown, axes=[1], keepdims=0)
    any_event = graph.add("ReduceMax", columns, axes=[1], keepdims=0)  # (n, 1)
    return graph.add("Mul", any_event, largest)


def _scaled(graph: Graph, interest: Interest, total: str, lengths: str) -> str:
    """As ``Interest._scale``."""
    divisor = graph.add("Max", lengths, np.float32(1))
    if interest.pooling == "mean":
        return graph.add("Div", total, divisor)
    if interest.normalization == "sqrt":
        return graph.add("Div", total, graph.add("Sqrt", divisor))
    return total


def _layers(graph: Graph, value: str, layers: Iterable[nn.Module]) -> str:
    """Layers one after the other, on the last axis; dropout does nothing at prediction."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            value = graph.add("Add", graph.add("MatMul", value, layer.weight.t()), layer.bias)
        elif isinstance(layer, PReLU):
            value = graph.add("PRelu", value, layer.slope.reshape(1))
        elif isinstance(layer, Dice):
            value = _dice(graph, value, layer)
        elif isinstance(layer, nn.ReLU):
            value = graph.add("Relu", value)
        elif isinstance(layer, nn.Sigmoid):
            value = graph.add("Sigmoid", value)
        elif not isinstance(layer, nn.Dropout):
            raise TypeError(
                f"export_onnx cannot write a layer of type {type(layer).__name__}; it can write "
                "Linear, PReLU, Dice, ReLU, Sigmoid and Dropout."
            )
    return value


def _dice(graph: Graph, scores: str, dice: Dice) -> str:
    """``s * (slope + gate * (1 - slope))`` with the running averages."""
    scale = (dice.running_var + dice.eps).rsqrt()
    normed = graph.add("Add", graph.add("Mul", scores, scale), -dice.running_mean * scale)
    gate = graph.add("Mul", graph.add("Sigmoid", normed), 1 - dice.slope)
    return graph.add("Mul", scores, graph.add("Add", gate, dice.slope))


def _length_name(behaviour: Behaviour) -> str:
    """Name of the dimension of a behaviour's events."""
    return f"T_{behaviour.histories[0]}"
