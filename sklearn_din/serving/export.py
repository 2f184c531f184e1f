"""A fitted model as an ONNX file: for servers without torch and without this package.

The file holds no code, only a graph of standard operations and the weights, which other versions,
languages and machines can read.
"""

import copy
import functools
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from torch import nn

from sklearn_din.features.event_table import WITHOUT_WEIGHTS
from sklearn_din.features.schema import PADDING_ID, UNKNOWN_ID, Behaviour, Field
from sklearn_din.features.vectors import Vectors
from sklearn_din.inspection.fitted import classifier_of, find_memory, split_pipeline, unwrap
from sklearn_din.module import DIN
from sklearn_din.neighbours.item_scores import DECAY, N_OF_HISTORY
from sklearn_din.neighbours.pairs import NeighbourPair
from sklearn_din.network.interest import DECAYS, NO_ID, Events, Interest, signed_log
from sklearn_din.network.layers import ActivationUnit, Dice, LabelLogits, PReLU
from sklearn_din.serving.onnx_graph import HIDDEN, Graph, Value, join, rank_of_recency
from sklearn_din.serving.onnx_model import (
    TABLE,
    OnnxFacts,
    mask_name,
    memory_digest,
    neighbours_name,
    older_name,
    seal,
    weights_name,
    write_metadata,
)
from sklearn_din.serving.onnx_trees import TreeWriter
from sklearn_din.training.mixture import Mixture
from sklearn_din.training.reading import Calibration
from sklearn_din.training.target import Numbers, Target
from sklearn_din.utils.digests import digest
from sklearn_din.utils.extras import import_package
from sklearn_din.utils.validation import check_choice
from sklearn_din.utils.whole_files import whole_file

OUTPUTS = ("probability", "logit", "prediction")
LAYOUTS = ("rows", "ranking")
NO_NEIGHBOUR = -1  # equals no event's id
PAIRS_PER_BLOCK = 2_048  # of candidate and event: 64 scores each take 512 KB, in cache
ROW, ID, SCORE = np.dtype(np.int32), np.dtype(np.int32), np.dtype(np.float32)


def export_onnx(estimator: BaseEstimator, path: str | os.PathLike, *, layout: str = "rows") -> None:
    """Write a fitted model as an ONNX file, for serving without torch and without this package.

    The file takes any number of impressions and histories of any length. Its inputs are named
    as the keys of :class:`~sklearn_din.features.EncodedFeatures`: each field, (n,) or (n, T),
    and for each behaviour the mask (n, T) of its first history. Where a candidate or an event has
    a list of ids, its input has one axis more, (n, V) or (n, T, V): the ids of each list, each
    once, then zeros. One more input may be left out,
    ``hist_item_older``: the ids of events older than attention reads, int32 (n, T) padded with 0,
    which item neighbours count; they are those of now, all that the model knows. Where the model
    knows users' levels, ``user_level``, float32 (n,), is an input too: 0 of an unknown user, and
    ``load_onnx`` looks it up. Where boosted trees know users' rates, ``user_rows`` and
    ``user_clicks``, float32 (n,), are inputs as well: how many rows and clicks the user had in
    training, 0 of an unknown user. The outputs are
    ``probability`` of the click and ``logit``, (n,) or (n, n_labels); of a regressor
    ``prediction``, (n,); and for each behaviour the weights of its events in the interest,
    ``hist_item_weights``, (n, T). A calibration stands at the end: ``probability`` is the
    calibrated one, ``logit`` that of the network, or of its mean with the boosted trees.

    Of a Pipeline the encoder is written too, as JSON in the file's metadata under "sklearn_din":
    :func:`load_onnx` makes of both a model that is used like the Pipeline. Other programs have to
    make ids of values themselves: known ones from 2 on, in the order of ``vocabularies_``, unknown
    ones 1, or the negative id of ``sklearn_din.features.identities.identify``, by which a new
    candidate is known again in its history. Steps before the encoder are not written: whoever asks
    does what they do.

    Parameters
    ----------
    estimator : DINClassifier, Pipeline, search or CalibratedClassifierCV
        Fitted. A Pipeline has a HistorySequenceEncoder among its steps and ends in a
        DINClassifier. A CalibratedClassifierCV holds one Pipeline, as with ``ensemble=False`` or
        ``FrozenEstimator``.
    path : str or path-like
        File to write. One that is there is replaced when the new one is complete.
    layout : {"rows", "ranking"}, default="rows"
        What one request holds. "rows": impressions, each with its own histories. "ranking": the
        histories of one user, (1, T), and n candidates, which are scored in a quarter of the time;
        bags, which have no candidate, are (1, T) or (n, T), of the user or of each candidate.

    Raises
    ------
    ImportError
        If onnx is not installed.
    TypeError
        If ``estimator`` is something else, the network has a layer that is not this package's,
        or the encoder holds what is neither number nor text nor date.
    ValueError
        If ``layout`` is another word, a field has the name of an output, or the file would be
        larger than 2 GiB.

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
    check_choice(layout, LAYOUTS, name="layout")
    onnx = import_package("onnx", purpose="export_onnx", extra="onnx")
    estimator, calibrated = unwrap(estimator, purpose="export_onnx")
    classifier = classifier_of(estimator, purpose="export_onnx")
    metadata, vectors = dict[str, str](), dict[str, Vectors]()
    calibration = calibrated.calibration
    if isinstance(estimator, Pipeline):
        pipeline = split_pipeline(estimator, purpose="export_onnx")
        encoder, classifier = pipeline.encoder, pipeline.classifier
        vectors = encoder._look_up_vectors()
        if vectors:
            encoder = copy.copy(encoder)
            frames = encoder.vectors.items()
            encoder.vectors = {name: frame.reset_index(drop=True) for name, frame in frames}
        if behind := pipeline.around_encoder()[1]:
            raise TypeError(
                "export_onnx writes the encoder and the classifier, got a "
                f"{type(behind[0]).__name__} between them. Leave it out of the Pipeline, or put "
                "it before the encoder."
            )
        facts = _facts_of(classifier, calibration, layout, memory_digest(find_memory(pipeline)))
        metadata = write_metadata(facts, encoder)
    elif classifier.module_.embeddings.projections:
        raise TypeError(
            "export_onnx needs the whole Pipeline where ids have fixed vectors, which are the "
            f"encoder's, got a {type(estimator).__name__}."
        )
    taken = sorted({field.name for field in classifier.module_.schema.fields} & {*OUTPUTS})
    if taken:
        raise ValueError(
            f"fields {taken} have the names of the file's outputs. Rename those columns and fit "
            "again."
        )
    graph = Graph(onnx, n_bytes=sum(map(len, metadata.values())))
    neighbours = classifier.net_.neighbours_.pairs
    writer = _NetworkWriter(graph, classifier.module_, neighbours, vectors, layout == "ranking")
    writer.write(classifier._target, calibration, classifier.net_.mixture_)
    model = graph.model()
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    with whole_file(path) as partial, open(partial, "wb") as file:
        file.write(content)
        file.write(seal(digest(content)))


class _NetworkWriter:
    """Adds ``DIN.forward`` to a graph, on padded histories and masks in place of flat events.

    The graph computes the numbers of ``neighbours`` by ids and scores that it holds, and looks up
    fixed ``vectors``, those of new values too. Where candidates share a history, what stands for it
    has one row, (1, T), and meets the candidates by broadcasting.
    """

    def __init__(
        self,
        graph: Graph,
        module: DIN,
        neighbours: Sequence[NeighbourPair],
        vectors: Mapping[str, Vectors],
        is_shared: bool,
    ) -> None:
        self.graph, self.module, self.schema = graph, module, module.schema
        self.is_shared = is_shared
        self.inputs: dict[str, Value] = {}  # by field or mask
        self.identities: dict[str, Value] = {}  # by field with ids, as compared: some are negative
        self.numbers: dict[str, Value] = {}  # columns by the first of their fields
        self._declare_inputs({name for pair in neighbours for name in pair.names})
        for pair in neighbours:
            self._add_neighbours(pair)
        tables = {n: graph.constant(module.embeddings.weight(n)) for n in module.embeddings.sizes}
        self.embedded = {
            field.name: self._embed(field, tables[field.vocabulary])
            for field in self.schema.fields
            if field.has_ids
        }
        self.vector_rows: dict[str, Value] = {}
        self.unit_vectors: dict[str, Value] = {}
        for vocabulary, known in vectors.items():
            self._add_vectors(vocabulary, known)

    def _embed(self, field: Field, table: Value) -> Value:
        """Embeddings of a field's ids, (n, width) or (n, T, width); of lists, their means."""
        ids = self.inputs[field.name]
        embedded = self.graph.add("Gather", table, ids)
        if not field.holds_lists:
            return embedded
        last = 2 if field.is_history else 1
        is_there = ids.as_bool().as_float()  # (n, T, V) or (n, V)
        total = (embedded * is_there.unsqueeze(last + 1)).sum(last)
        return total / is_there.sum(last, keepdims=True).clamp(1.0)

    def _add_vectors(self, vocabulary: str, known: Vectors) -> None:
        """Look up the vectors of ids, and add their projections to the embeddings."""
        table = torch.from_numpy(known.table)
        self.unit_vectors[vocabulary] = self.graph.constant(torch.nn.functional.normalize(table))
        projection = self.module.embeddings.projections[vocabulary].cpu()
        projected = self.graph.constant(table @ projection)
        for field in self.schema.fields:
            if field.n_dims and field.vocabulary == vocabulary:
                ids = self.inputs[field.name]
                rows = self.graph.add("Gather", known.rows.astype(np.int64), ids)
                if len(known.new_ids):
                    rows += self.identities[field.name].look_up(known.new_ids, known.new_rows)
                self.vector_rows[field.name] = rows
                self.embedded[field.name] += self.graph.add("Gather", projected, rows)

    def write(self, target: Target, calibration: Calibration, mixture: Mixture | None) -> None:
        """Add the network, trees, and the outputs: log-odds, what is made of them, or numbers."""
        numbers = [name for name in self.schema.names("numeric") if name in self.numbers]
        columns = [self.numbers[name] for name in numbers]
        if columns:
            bins = self.module.bins
            joined = self.graph.add("Gather", join(columns, axis=1), bins.columns, axis=1)
            scaled = ((joined - bins.starts) * bins.slopes).clamp(bins.least)
            columns = [self.graph.add("Min", scaled, bins.most) - bins.averages]
        columns += [self.embedded[name] for name in self.schema.names("categorical", "list")]
        weights: dict[str, Value] = {}
        for interest in self.module.interest_modules:
            is_history = self.is_shared and not interest.behaviour.is_bag
            events = (_PaddedHistory if is_history else _PaddedEvents)(self, interest)
            outputs = events.outputs()
            columns += [self.expand(output) for output in outputs] if self.is_shared else outputs
            if not interest.behaviour.is_bag and interest.pooling not in WITHOUT_WEIGHTS:
                weights[weights_name(interest.behaviour, self.schema)] = events.weights_of_events()
        joined, output = _layers(join(columns, axis=1), self.module.mlp), self.module.output
        if isinstance(output, LabelLogits):
            logit = _label_logits(joined, output)  # (n, n_labels)
        else:
            logit = _of_one_unit(joined, output).squeeze(0)
        if self.module.offset_column is not None:
            offset = self.numbers[self.schema.offset].squeeze(1)
            logit += offset * float(self.module.offset_scale)
        if mixture is not None:
            trees = TreeWriter(
                self.graph, mixture, self.schema, self.inputs, self.identities, self.expand
            )
            logit = trees.mix(logit)
        if isinstance(target, Numbers):
            self.graph.output("prediction", read_numbers(logit, target))
        else:
            self.graph.output("probability", calibrate(logit, calibration))
            self.graph.output("logit", logit)
        for name, of_events in weights.items():
            self.graph.output(name, of_events, dims=("n", name))

    def _declare_inputs(self, computed: Collection[str]) -> None:
        """Declare inputs; histories without events get an empty position: none is of size 0."""
        pads: dict[Behaviour, Value] = {}
        for field in self.schema.fields:
            if field.name in computed:
                continue
            dtype = np.int32 if field.has_ids else np.float32
            in_lists = (f"V_{field.name}",) if field.holds_lists else ()
            if field.is_history:
                behaviour = self.schema.behaviour_of(field.name)
                dims = (*self._dims(behaviour), *in_lists)
                values = self.graph.input(field.name, dtype, dims)
                if behaviour not in pads:
                    n_more = values.call("Shape", start=1, end=2).equals(np.array([0])).as_int64()
                    pads[behaviour] = join([self.graph.constant(np.array([0])), n_more], axis=0)
                values = self.graph.add("Pad", values, pads[behaviour], dtype(0), np.array([1]))
            else:
                values = self.graph.input(field.name, dtype, ("n", *in_lists))
            if field.kind == "numeric":
                self.numbers[field.name] = values.unsqueeze(1)
            if field.has_ids:
                self.identities[field.name] = values
                values = (values >= np.int32(0)).where(values, np.int32(UNKNOWN_ID))
            self.inputs[field.name] = values
        for behaviour in self.schema.behaviours:
            name = mask_name(behaviour)
            mask = self.graph.input(name, np.bool_, self._dims(behaviour))
            mask = self.graph.add("Pad", mask.as_float(), pads[behaviour], 0.0, np.array([1]))
            self.inputs[name] = mask

    def _add_neighbours(self, pair: NeighbourPair) -> None:
        """Compute a history's numbers; an input has the ids of its older events, padded with 0."""
        name = older_name(pair.history, self.schema)
        none = np.zeros((1, 0), dtype=np.int32)
        older = self.graph.input(name, np.int32, (f"n_{name}", f"T_{name}"), none)
        if not self.is_shared:
            older = self.expand(older)  # (n, 0) where they are left out
        older = (older >= np.int32(0)).where(older, np.int32(UNKNOWN_ID))
        events = join([older, self.inputs[pair.history]], axis=1)
        mask = self.inputs[mask_name(self.schema.behaviour_of(pair.history))]
        mask = join([older.as_bool().as_float(), mask], axis=1)
        shown, first = self.inputs[pair.candidate], pair.names[0]
        self.numbers[first] = neighbour_numbers(
            pair, shown, events, mask, are_shared=self.is_shared
        )

    def _dims(self, behaviour: Behaviour) -> tuple[str | int, str]:
        """Return the dimensions of a behaviour's inputs."""
        name = behaviour.histories[0]
        rows = f"n_{name}" if behaviour.is_bag else 1  # where they are shared
        return rows if self.is_shared else "n", f"T_{name}"

    def expand(self, value: Value) -> Value:
        """Return a value of one row for all rows: (n, m)."""
        given = [field for field in self.schema.fields if field.name in self.inputs]
        field = next(field for field in given if not field.is_history)
        of_rows = self.inputs[field.name]
        if field.holds_lists:  # (n, V)
            of_rows = of_rows.sum(1)
        return self.graph.add("Expand", value, of_rows.unsqueeze(1).call("Shape"))

    def queries(self, behaviour: Behaviour) -> Value:
        """Candidate's embedding by attribute, zeros where there is none: (n, width)."""
        attributes = []
        for history, candidate in behaviour.candidate_of.items():
            width = self.module.embeddings.width(history)
            zeros = self.expand(self.graph.constant(np.zeros((1, width), dtype=np.float32)))
            attributes.append(zeros if candidate is None else self.embedded[candidate])
        return join(attributes, axis=1)


class _PaddedEvents(Events):
    """Events of impressions with padding, (n, T, ...), and their mask, 1.0 on real ones."""

    def __init__(self, writer: _NetworkWriter, interest: Interest) -> None:
        self.writer, self.graph, behaviour = writer, writer.graph, interest.behaviour
        self.mask = writer.inputs[mask_name(behaviour)]  # (n, T)
        self.ends = interest.ends
        self.numbers = [self._end(_fill(writer.inputs[name]), name) for name in behaviour.numbers]
        self.factors_of = [self._split(name) for name in interest.compared_numbers]
        self.differences = [
            shown * is_there - is_shown * of_events
            for shown, is_shown, of_events, is_there in self.factors_of
        ]
        queries = None if behaviour.is_bag else writer.queries(behaviour)
        keys = self.join([writer.embedded[name] for name in behaviour.histories])
        super().__init__(interest, queries, keys, self.mask.sum(1, keepdims=True))
        if interest.extended:
            same = [self._compare(*names) for *names, _ in interest.compared]
            for (_, is_shown, _, is_there), values in zip(
                self.factors_of, self.differences, strict=True
            ):
                same.append((is_shown * is_there - values.abs()).clamp(0.0))
            self._relate(rank_of_recency(self.mask), self.mask, same)

    def _compare(self, history: str, candidate: str) -> Value:
        """Return which events have the candidate's id, or how like their lists are: (n, T)."""
        identities = self.writer.identities
        events, shown = identities[history], identities[candidate].unsqueeze(1)
        if not self.writer.schema[candidate].holds_lists:
            return events.equals(_without_missing(shown)).as_float()
        among = _without_missing(events).unsqueeze(3)  # (n, T, V, 1)
        common = among.equals(shown.unsqueeze(2)).as_float().sum(3).sum(2)
        n_events, n_shown = (ids.as_bool().as_float().sum(2) for ids in (events, shown))
        return common / (n_events * n_shown).clamp(1.0).call("Sqrt")

    def _split(self, name: str) -> tuple[Value, ...]:
        """Return a number of candidates and of events, and where they are; 0 elsewhere."""
        numbers, candidate = self.writer.numbers, self.writer.schema[name].candidate
        missing = numbers.get(self.writer.schema.indicator_of(candidate), numbers[candidate] * 0.0)
        is_shown = self.graph.add("Greater", missing, 0.0).where(0.0, 1.0)
        events = self.writer.inputs[name]
        is_there = events.call("IsNaN").where(0.0, self.mask)
        shown, of_events = self._end(numbers[candidate], candidate), self._end(_fill(events), name)
        return shown * is_shown, is_shown, of_events * is_there, is_there

    def _end(self, numbers: Value, name: str) -> Value:
        """Return numbers as far as their ends."""
        if name not in self.ends:
            return numbers
        return self.graph.add("Clip", numbers, *map(np.float32, self.ends[name]))

    def join(self, columns: Sequence[Value]) -> Value:
        return join([*columns], axis=2)

    def sum(self, values: Value, weights: Value | None = None) -> Value:
        weights = self.mask if weights is None else weights
        return (weights.unsqueeze(1) @ values).squeeze(1)

    def total(self, weights: Value) -> Value:
        return weights.sum(1, keepdims=True)

    def sum_matching(self, values: Value) -> Value:
        return join([bits.unsqueeze(1) for bits in self.same], axis=1) @ values

    def cosines(self, history: str, candidate: str, vocabulary: str) -> Value:
        units, rows = self.writer.unit_vectors[vocabulary], self.writer.vector_rows
        queries = self.graph.add("Gather", units, rows[candidate]).unsqueeze(2)
        return (self.graph.add("Gather", units, rows[history]) @ queries).squeeze(2) * self.mask

    def maximum(self) -> Value:
        mask = self.mask.unsqueeze(2)
        return mask.as_bool().where(self.keys, HIDDEN).max(1) * mask.max(1)

    def attend(self) -> tuple[Value, Value]:
        scores = self.scores(self.interest.unit)
        if self.interest.normalization == "softmax":
            scores = self.mask.as_bool().where(scores, HIDDEN).call("Softmax", axis=1)
        weights = scores * self.mask
        return self.sum(self.keys, weights), weights

    def weights_of_events(self) -> Value:
        """Return the factor of each event in the interest: (n, T), or (1, T) where it is shared."""
        factor, weights = self.factor(), self.mask if self.weights is None else self.weights
        weights = weights if factor is None else weights * factor
        return self.writer.expand(weights) if self.writer.is_shared else weights

    def scores(self, unit: ActivationUnit) -> Value:
        """Return the unit's scores of events: (n, T)."""
        relations = self.relations() if self.interest.extended else []
        relations = [relation.unsqueeze(2) for relation in relations]
        shape = self.keys.call("Shape", end=2)
        scores = _score_pairs(unit, self.queries.unsqueeze(1), self.keys, relations)
        return self.graph.add("Reshape", scores, shape, allowzero=1)


class _PaddedHistory(_PaddedEvents):
    """One history, (1, T, ...), that n candidates share."""

    def sum(self, values: Value, weights: Value | None = None) -> Value:
        return (self.mask if weights is None else weights) @ values.squeeze(0)

    def sum_matching(self, values: Value) -> Value:
        return super().sum_matching(values.squeeze(0))

    def scores(self, unit: ActivationUnit) -> Value:
        """Return the scores of events, (n, T): the few pairs of equal ids by themselves."""
        graph, queries, events = self.graph, self.queries, self.keys.squeeze(0)  # (T, width)
        relations = self.relations() if self.interest.extended else []
        n_weighed = len(self.same) * len(DECAYS) if relations else 0
        n_others = len(relations) - len(self.differences)
        scores = self._score_unequal(unit, events, relations[n_weighed:n_others])
        if not n_weighed:
            return scores
        any_same = functools.reduce(Value.clamp, self.same).reshape(-1)
        pairs = any_same.as_bool().call("NonZero").squeeze(0)
        n_events = graph.add("Shape", events, end=1)
        row, event = graph.add("Div", pairs, n_events), graph.add("Mod", pairs, n_events)
        at = [event if n_weighed <= i < n_others else pairs for i in range(len(relations))]
        own = [
            graph.add("Gather", relation.reshape(-1), chosen).unsqueeze(1)
            for relation, chosen in zip(relations, at, strict=True)
        ]
        shown, keys = graph.add("Gather", queries, row), graph.add("Gather", events, event)
        equal = _score_pairs(unit, shown, keys, own).squeeze(0)
        shape = scores.call("Shape")
        scores = graph.add("ScatterND", scores.reshape(-1), pairs.unsqueeze(1), equal)
        return graph.add("Reshape", scores, shape, allowzero=1)

    def _score_unequal(self, unit: ActivationUnit, events: Value, common: list[Value]) -> Value:
        """Return scores of pairs without an equal id, (n, T): each event as a matrix for queries.

        ``Wq q + Wp (q * k)`` is ``(Wq + Wp diag(k)) q``. Some events at a time, so that the first
        layer's scores stay in the processor's cache.

        events : (T, width)
        common : (1, T) each, relations that all candidates have
        """
        graph, queries = self.graph, self.queries
        n_rows, n_events = (graph.add("Shape", value, end=1) for value in (queries, events))
        weight_query, weight_event = unit.split_first_layer()
        n_others = len(weight_event) - len(self.differences)
        weight_key, weight_pair, _, weight_common, weight_differences = weight_event.tensor_split(
            [unit.width, 2 * unit.width, n_others - len(common), n_others]
        )
        constant = join([events, *(relation.transpose(1, 0) for relation in common)], axis=1)
        weight_constant = torch.cat([weight_key, weight_common])
        constant = graph.add("Gemm", constant, weight_constant, unit.first.bias)  # (T, n_units)
        rows, blocks = [], []  # a difference is a product of two numbers of each side
        for weight, (shown, is_shown, of_events, is_there) in zip(
            weight_differences, self.factors_of, strict=True
        ):
            queries = join([queries, shown, is_shown], axis=1)
            for factor, sign in ((is_there, 1.0), (of_events, -1.0)):
                rows.append(sign * weight)
                blocks.append(factor.transpose(1, 0).unsqueeze(2))  # (T, 1, 1)
        with_ones = graph.add("Pad", queries, np.array([0, 0, 0, 1]), 1.0)

        def weigh(keys: Value, constant: Value, *factors: Value) -> Value:
            """Events (m, width, 1) and their constant scores (m, 1, n_units) -> (1, m * n)."""
            own = [factor * weight for factor, weight in zip(factors, rows, strict=True)]
            matrices = join([keys * weight_pair + weight_query, *own, constant], axis=1)
            return _upper_layers(unit, with_ones @ matrices)

        one = np.array([1])
        most = graph.add("Div", np.array([PAIRS_PER_BLOCK]), n_rows + one) + one
        each = [events.unsqueeze(2), constant.unsqueeze(1), *blocks]
        scores = graph.scan(each, most, weigh)
        return graph.add("Slice", scores, np.array([0]), n_events).transpose(1, 0)


def calibrate(logit: Value, calibration: Calibration) -> Value:
    """Return the probability (n,) out of the log-odds, as ``Calibration``."""
    x, y = (a.astype(np.float32) for a in (calibration.logits, calibration.probabilities))
    if not len(x):
        return (logit * calibration.slope + calibration.intercept).sigmoid()
    # Isotonic: a line from each threshold to the next, constant before the first and after the last
    slopes = np.append(np.diff(y) / np.diff(x), np.float32(0))
    graph, inside = logit.graph, logit.clamp(x[0]).unsqueeze(1)  # (n, 1)
    n_below = (inside >= x).as_float().sum(1).as_int64()
    line = graph.add("Sub", n_below, np.int64(1))
    start, slope = graph.add("Gather", x, line), graph.add("Gather", slopes, line)
    return graph.add("Gather", y, line) + (inside.squeeze(1) - start) * slope


def read_numbers(output: Value, target: Numbers) -> Value:
    """Return numbers (n,) out of the network's outputs, as ``Numbers.value_of``."""
    scale = output * target.spread + target.mean
    return (scale.call("Exp") - 1.0).clamp(0.0) if target.of_what == "log1p" else scale


def _score_pairs(
    unit: ActivationUnit, queries: Value, keys: Value, relations: list[Value]
) -> Value:
    """Return scores of pairs, as ``ActivationUnit.forward``: (1, n_pairs)."""
    weight_query, weight_event = unit.split_first_layer()
    inputs = join([keys, queries * keys, *relations], axis=-1)
    scores = inputs @ weight_event + (queries @ weight_query + unit.first.bias)
    return _upper_layers(unit, scores)


def _upper_layers(unit: ActivationUnit, scores: Value) -> Value:
    """Scores of events (1, a * b) from those of the unit's first layer, (a, b, n_units)."""
    scores = scores.reshape(-1, unit.first.out_features)
    return _of_one_unit(_layers(scores, unit.above), unit.last)


def _fill(numbers: Value) -> Value:
    """Return numbers with 0 in place of missing ones."""
    return numbers.call("IsNaN").where(0.0, numbers)


def _without_missing(shown: Value) -> Value:
    """Return ids with NO_ID in place of missing ones, as ``find_same``."""
    at_most = shown.graph.add("LessOrEqual", shown, np.int32(UNKNOWN_ID))
    return ((shown >= np.int32(PADDING_ID)) & at_most).where(np.int32(NO_ID), shown)


def _layers(value: Value, layers: Iterable[nn.Module]) -> Value:
    """Layers one after the other on (n, m); dropout does nothing at prediction."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            value = value.graph.add("Gemm", value, layer.weight.t(), layer.bias)
        elif isinstance(layer, PReLU):
            value = value.call("LeakyRelu", alpha=layer.slope.item())
        elif isinstance(layer, Dice):
            scale = (layer.running_var + layer.eps).rsqrt()
            value = layer.rectify(value, (value - layer.running_mean) * scale)
        elif isinstance(layer, nn.ReLU):
            value = value.call("Relu")
        elif isinstance(layer, nn.Sigmoid):
            value = value.sigmoid()
        elif not isinstance(layer, nn.Dropout):
            raise TypeError(
                f"export_onnx cannot write a layer of type {type(layer).__name__}; it can write "
                "Linear, PReLU, Dice, ReLU, Sigmoid and Dropout."
            )
    return value


def _of_one_unit(value: Value, layer: nn.Linear) -> Value:
    """Output (1, n) of a layer of one unit, whose weight comes first: three times as fast."""
    return value.graph.add("Gemm", layer.weight, value, layer.bias, transB=1)


def _label_logits(hidden: Value, layer: LabelLogits) -> Value:
    """Log-odds of several labels (n, n_labels), as ``LabelLogits.forward``."""
    rows = zip(layer.weight, layer.bias, strict=True)
    logits = [hidden.graph.add("Gemm", hidden, w.unsqueeze(1), b.unsqueeze(0)) for w, b in rows]
    for label, earlier in layer.later:
        a, z = logits[earlier] * -1.0, logits[label] * -1.0
        three = join([a, z, a + z], axis=1)
        logits[label] = hidden.graph.add("ReduceLogSumExp", three, np.array([1])) * -1.0
    return join(logits, axis=1)


# Item neighbours, as ``ItemScores.numbers``


def neighbour_numbers(
    pair: NeighbourPair, candidates: Value, events: Value, mask: Value, *, are_shared: bool = False
) -> Value:
    """Add one history's numbers for its candidate: (n, 14), in the order of their columns.

    Candidates are (n,) ids, events (n, T) ids with T at least 1, the mask is 1.0 on real events.
    Where all candidates share a history, events and mask are (1, T).
    """
    graph = candidates.graph
    by_item = [
        _tables(graph, scores, (pair.history, kind), are_shared=are_shared)
        for kind, scores in (("ease", pair.scores.ease), ("cosine", pair.scores.cosine))
    ]
    plain = np.pad(pair.scores.of_candidates(slice(None)), ((0, 0), (N_OF_HISTORY, 0)))
    plain = pair.rescale(plain)[:, N_OF_HISTORY:]
    of_candidates = graph.constant(plain, neighbours_name(pair.history, "plain"))
    if are_shared:
        scores, counts = _scores_by_place(by_item, pair.n_ids, candidates, events, mask)
    else:
        each = [_look_up(table, candidates, events).unsqueeze(1) for table in by_item]
        mask = mask.unsqueeze(1)
        scores, counts = mask.as_bool().where(join(each, axis=1), HIDDEN), _counts(mask)
    most = scores.max(-1, keepdims=True) * mask.max(-1, keepdims=True)
    order = np.array([0, 1, 4, 2, 3])  # the maximum is third
    summaries = graph.add("Gather", join([scores @ counts, most], axis=-1), order, axis=-1)
    numbers = signed_log(summaries.reshape(-1, N_OF_HISTORY)) / pair.scale[:N_OF_HISTORY]
    numbers = graph.add("Clip", numbers, np.float32(-pair.largest), np.float32(pair.largest))
    return join([numbers, graph.add("Gather", of_candidates, candidates)], axis=1)


class _Table(NamedTuple):
    """Scores in a graph: each id's row, and the neighbours' ids and scores in each row.

    Ids without neighbours share row 0. Constants have names by which a shortlist finds them.
    """

    rows: Value
    ids: Value
    scores: Value
    n_neighbours: int


def _tables(graph: Graph, scores: csr_array, names: tuple[str, str], *, are_shared: bool) -> _Table:
    """Write scores as constants, those of a ranking flat."""
    lengths = np.diff(scores.indptr)
    n_rows, most = 1 + np.count_nonzero(lengths), max(1, lengths.max(initial=0))
    rows = np.zeros(len(lengths), dtype=ROW)
    rows[lengths > 0] = np.arange(1, n_rows)
    is_neighbour = np.zeros((n_rows, most), dtype=bool)
    is_neighbour[1:] = np.arange(most) < lengths[lengths > 0, None]
    # Of a ranking, padding stands for no neighbour: it has no place
    none = PADDING_ID if are_shared else NO_NEIGHBOUR
    ids = np.full(is_neighbour.shape, none, dtype=ID)
    values = np.zeros(is_neighbour.shape, dtype=SCORE)
    ids[is_neighbour], values[is_neighbour] = scores.indices, scores.data
    arrays = (rows, ids, values.reshape(-1) if are_shared else values)
    constants = {
        what: graph.constant(array, neighbours_name(*names, what))
        for array, what in zip(arrays, TABLE, strict=True)
    }
    return _Table(**constants, n_neighbours=int(most))


def _look_up(table: _Table, candidates: Value, events: Value) -> Value:
    """Return the score of each event for its row's candidate: (n, T)."""
    graph = candidates.graph
    row = graph.add("Gather", table.rows, candidates)
    neighbours = graph.add("Gather", table.ids, row).unsqueeze(1)  # (n, 1, K)
    same = events.unsqueeze(2).equals(neighbours).as_float()  # (n, T, K)
    column = graph.add("Gather", table.scores, row).unsqueeze(2)  # (n, K, 1)
    return (same @ column).squeeze(2)


def _counts(mask: Value) -> Value:
    """Return what each event of a mask (n, 1, T) counts in each of the four sums: (n, T, 4)."""
    ranks = rank_of_recency(mask)
    counts = [mask, mask / mask.sum(2, keepdims=True).clamp(1.0)]
    counts += [ranks.equals(np.float32(0)).as_float() * mask]
    counts += [DECAY**ranks * mask]
    return join(counts, axis=1).mT


def _scores_by_place(
    by_item: Sequence[_Table], n_ids: int, candidates: Value, events: Value, mask: Value
) -> tuple[Value, Value]:
    """Return scores of candidates (n,) and one history (1, T), of each kind one below the other.

    Each candidate's neighbours are looked for among the events; few of them are found. The places
    of events count from the newest, which is 1; 0 is that of ids without events.

    Returns: scores (2 * n, n_places), and what places count in the sums (n_places, 4)
    """
    graph, ids = candidates.graph, events.transpose(1, 0).as_int64()  # (T, 1)
    place = (rank_of_recency(mask) + 1.0) * mask
    places = graph.add("Expand", np.int32(0), np.array([n_ids]))
    of_events = place.squeeze(0).as_int32()
    places = graph.add("ScatterND", places, ids, of_events, reduction="max")  # one of equal ids
    n_places, n_scores = graph.add("Shape", ids, end=1) + np.array([1]), np.array([len(by_item)])
    counts = graph.add("Expand", 0.0, join([n_places, graph.constant(np.array([4]))], axis=0))
    at = graph.add("Gather", places, ids).as_int64()
    counts = graph.add(
        "ScatterND", counts, at, _counts(mask.unsqueeze(1)).squeeze(0), reduction="add"
    )
    pairs = [_find_neighbours(table, candidates, places) for table in by_item]
    rows = [row * n_scores + np.int64(number) for number, (row, _, _) in enumerate(pairs)]
    columns = join([place for _, place, _ in pairs], axis=0).as_int64()
    at = join([join(rows, axis=0).unsqueeze(1), columns.unsqueeze(1)], axis=1)  # (n_pairs, 2)
    none = graph.add("Gather", counts, np.int64(0), axis=1).as_bool().where(0.0, HIDDEN)
    shape = join([candidates.call("Shape") * n_scores, n_places], axis=0)
    scores = graph.add("Expand", none, shape)
    scores = graph.add("ScatterND", scores, at, join([value for _, _, value in pairs], axis=0))
    return scores, counts


def _find_neighbours(table: _Table, candidates: Value, places: Value) -> tuple[Value, Value, Value]:
    """Return which candidates have neighbours among the events, their places and their scores."""
    graph = candidates.graph
    row = graph.add("Gather", table.rows, candidates)
    neighbours = graph.add("Gather", table.ids, row).reshape(-1)  # (n * K,)
    place = graph.add("GatherElements", places, neighbours)
    pairs = place.call("NonZero").squeeze(0)
    n_neighbours = np.int64(table.n_neighbours)
    whose = graph.add("Div", pairs, n_neighbours)
    at = graph.add("Gather", row, whose).as_int64() * n_neighbours
    at += graph.add("Mod", pairs, n_neighbours)
    value = graph.add("Gather", table.scores, at)
    return whose, graph.add("Gather", place, pairs), value


# What the file says beside the network


def _facts_of(classifier: Any, calibration: Calibration, layout: Any, memory: str) -> OnnxFacts:
    """Return how the file's inputs are named, and its outputs read."""
    net, classes = classifier.net_, getattr(classifier, "classes_", [])
    tables = net.neighbours_
    classes = [classes] if isinstance(classes, np.ndarray) else classes
    sizes, novelty = classifier.schema_.vocabulary_sizes, net.novelty_.widen(classifier.schema_)
    return OnnxFacts(
        layout=layout,
        schema=classifier.schema_,
        pooling=classifier.pooling,
        classes=tuple(classes),
        labels=tuple(getattr(classifier, "label_names_", [])),
        spread=float(getattr(classifier._target, "spread", 1.0)),
        calibration=calibration,
        neighbours=tuple((pair.history, pair.candidate) for pair in tables.pairs),
        learnt=tuple(part.latest() for part in tables.parts if part not in tables.pairs),
        first_seen={name: novelty.first_seen[name] for name in novelty.first_seen if name in sizes},
        checks={name: classifier.history_[name].to_numpy() for name in classifier.history_},
        memory=memory,
        user_rates=None if net.mixture_ is None else net.mixture_.user_rates,
    )
