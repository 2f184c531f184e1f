"""A file of ``export_onnx`` as a model that is used like the Pipeline. Torch is not imported."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, NoReturn, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.pipeline import Pipeline

from sklearn_din.features.encoded import EncodedFeatures, find_runs
from sklearn_din.features.event_table import check_weights, event_table
from sklearn_din.features.lists import IdLists
from sklearn_din.features.schema import FIRST_KNOWN_ID, Behaviour, Schema
from sklearn_din.logs.history_builder import HistoryBuilder
from sklearn_din.neighbours.item_scores import ItemScores
from sklearn_din.neighbours.learnt_numbers import LearntNumbers, free_name
from sklearn_din.neighbours.tables import NeighbourTables
from sklearn_din.training.reading import Calibration, Label, Reading, read_one, read_several
from sklearn_din.transformers import HistorySequenceEncoder
from sklearn_din.trees.rates import Rates
from sklearn_din.utils.digests import digest
from sklearn_din.utils.extras import import_package
from sklearn_din.utils.plain_values import check_type, from_json, to_json
from sklearn_din.utils.spans import Spans, pad_rows
from sklearn_din.utils.typed_fields import from_dict, to_dict
from sklearn_din.utils.whole_files import damaged_file

METADATA_KEY, DIGEST_KEY = "sklearn_din", "sklearn_din_digest"
VERSION = 6
ROWS_PER_RUN = 4_096  # of the layout "rows"
TABLE = ("rows", "ids", "scores")  # of item neighbours


@dataclass(frozen=True, eq=False)
class OnnxFacts:
    """What a file says beside the network: how its inputs are named and its outputs are read."""

    layout: Literal["rows", "ranking"]
    schema: Schema  # of encoded rows
    pooling: str  # "max" has no weights
    classes: tuple[np.ndarray, ...]  # both kinds of each label; none of numbers
    labels: tuple[str, ...]  # names of several
    spread: float  # of numbers, by which a ranking tells ties
    calibration: Calibration
    neighbours: tuple[tuple[str, ...], ...]  # history and candidate of those in the graph
    learnt: tuple[LearntNumbers, ...]  # of rows, as it is now, what the graph does not compute
    first_seen: Mapping[str, np.ndarray]  # by vocabulary, when each id came up: for a shortlist
    checks: Mapping[str, np.ndarray]  # of the training, by column
    memory: str  # the digest of the memory before the encoder, as memory_digest; "" without one
    user_rates: Rates | None  # rows and clicks of users in training, which trees read

    def check(self) -> None:
        """Raise ValueError where the parts do not belong together."""
        if len(self.labels) != (len(self.classes) if len(self.classes) > 1 else 0):
            raise ValueError("several labels need a name each.")
        if any(classes.shape != (2,) for classes in self.classes) or not self.spread > 0:
            raise ValueError("each label must be of two kinds, and a spread above 0.")
        sizes = self.schema.vocabulary_sizes
        for name, moments in self.first_seen.items():
            if moments.dtype != np.int64 or moments.shape != (sizes.get(name),):
                raise ValueError(f"first_seen[{name!r:.60}] must have a moment for each id.")
        for history, candidate in self.neighbours:
            if self.schema[history].vocabulary != self.schema[candidate].vocabulary:
                raise ValueError("item neighbours need a history and its candidate.")


def memory_digest(memory: HistoryBuilder | None) -> str:
    """Return the hash of what makes a memory's columns what they are, whatever it remembers."""
    if memory is None:
        return ""
    classes = memory.classes_ is not None and memory.classes_.tolist()
    return digest(repr(memory.get_params()), repr(classes), *memory.get_feature_names_out())


def write_metadata(facts: OnnxFacts, encoder: HistorySequenceEncoder) -> dict[str, str]:
    """Return what a file says beside the network, as text by key."""
    state = encoder.__getstate__()
    try:
        text = to_json({"version": VERSION, "facts": to_dict(facts), "encoder": state})
    except TypeError as error:
        raise TypeError(
            f"export_onnx writes the encoder as text, and {error} Export the classifier alone, "
            "pipeline[-1], or save the Pipeline."
        ) from error
    return {METADATA_KEY: text}


def seal(checksum: str) -> bytes:
    """Return what ends a file: the digest of all before it, one more entry of the metadata."""
    key, value = DIGEST_KEY.encode(), checksum.encode()
    entry = b"\x0a%c%b\x12%c%b" % (len(key), key, len(value), value)
    return b"\x72%c%b" % (len(entry), entry)


def _check_seal(path: str) -> None:
    """Raise ValueError unless a file ends with the digest of its bytes."""
    content = np.fromfile(path, np.uint8)  # no map: it ends the process if the file is cut
    n_before = max(0, len(content) - len(seal(digest())))
    if content[n_before:].tobytes() != seal(digest(content[:n_before])):
        raise ValueError("its last bytes are not the digest of those before them")


def load_onnx(path: str | os.PathLike[str], memory: HistoryBuilder | None = None) -> Pipeline:
    """Load a file of :func:`export_onnx` as a model that is used like the Pipeline, without torch.

    What comes back is a Pipeline of the encoder, which needs no torch, and of the network, which
    onnxruntime computes: ``predict_proba``, ``predict``, :func:`explain`, :func:`rank_candidates`,
    :class:`Ranker` and the server take it like the Pipeline that was exported. The answers are the
    same up to about 1e-6, and for now: item neighbours tell all that they know, whatever time
    stands with a row. It cannot be fitted, updated or pickled.

    A process that encodes and answers needs some 200 MB, a quarter of what it needs with torch
    (``benchmarks/README.md``). One thread works on one request. Newer releases of onnxruntime
    send usage data to Microsoft: this function turns that off, if it is the first to import
    onnxruntime and the environment variable ``ORT_DISABLE_TELEMETRY`` is not set.

    The layout "ranking" is best for rankings; rows of ``predict_proba`` are then answered history
    by history. The layout "rows" is best for ``predict_proba`` of many rows.

    Parameters
    ----------
    path : str or path
        The file, exported from a whole Pipeline.
    memory : HistoryBuilder, default=None
        The fitted memory that the exported Pipeline began with, or one that has remembered more
        since: the file holds none. ``save(pipeline[0], "memory.din")`` keeps it, ``load`` reads it,
        and :func:`remember` takes the loaded model like a Pipeline. Without it, rows must have the
        columns that it makes.

    Returns
    -------
    Pipeline
        The memory if there is one, the encoder, and "network".

    Raises
    ------
    ImportError
        If onnxruntime is not installed.
    ModelFileError
        If the file was not written by :func:`export_onnx` from a Pipeline, is damaged, was changed,
        or needs another version of this package. It is a ValueError.
    ValueError
        If the memory has other parameters, labels or columns than the one that was exported.

    Warns
    -----
    UserWarning
        If sklearn_din, scikit-learn or numpy are of another release than those that exported.

    See Also
    --------
    export_onnx, load

    Examples
    --------
    >>> from sklearn_din import load_onnx
    >>> model = load_onnx("model.onnx")  # doctest: +SKIP
    >>> model.predict_proba(impressions)  # doctest: +SKIP
    """
    if memory is not None and not isinstance(memory, HistoryBuilder):
        raise TypeError(
            f"memory must be a fitted HistoryBuilder, got {memory!r:.60}. Of a file, pass "
            "load('memory.din')."
        )
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    runtime = import_package("onnxruntime", purpose="load_onnx", extra="onnx")
    path = os.fspath(path)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # it warns of an input that may be left out
    os.stat(path)  # an absent file is no damaged one
    try:
        _check_seal(path)
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        facts, encoder = _read_metadata(session.get_modelmeta().custom_metadata_map)
        network = OnnxNetwork(session, facts, path)
    except MemoryError:
        raise
    except Exception as error:  # of onnxruntime, json, numpy, and of what was learnt
        raise damaged_file(path, error, writer="export_onnx") from error
    if memory is not None and memory_digest(memory) != facts.memory:
        raise ValueError(
            "memory must be the HistoryBuilder that the exported Pipeline began with, or one that "
            "remembered more, got one of other parameters, labels or columns"
            f"{'' if facts.memory else ': the Pipeline began with none'}. Save it beside the file: "
            "save(pipeline[0], 'memory.din')."
        )
    kind = OnnxClassifier if facts.classes else OnnxRegressor
    steps = [("encode", encoder), ("network", kind._of(network))]
    return Pipeline(steps if memory is None else [("memory", memory), *steps])


def _read_metadata(metadata: Mapping[str, str]) -> tuple[OnnxFacts, HistorySequenceEncoder]:
    """Read what :func:`write_metadata` wrote; each part checks itself."""
    text = metadata.get(METADATA_KEY)
    if text is None:
        raise ValueError(
            "it has no encoder, as the file of a classifier alone. Export the whole Pipeline: "
            "export_onnx(pipeline, path)"
        )
    values = check_type(from_json(text), dict)
    if values.get("version") != VERSION:
        raise ValueError(
            f"its metadata are of version {values.get('version')!r:.60}, and this sklearn_din "
            f"reads version {VERSION}: use the version that exported it, or export it again"
        )
    facts = from_dict(OnnxFacts, values["facts"])
    encoder = object.__new__(HistorySequenceEncoder)
    encoder.__setstate__(values["encoder"])
    if difference := encoder.schema_.difference(facts.schema):
        raise ValueError(f"the encoder is not that of the network: {difference}")
    return facts, encoder


class OnnxNetwork:
    """The network of a file: encoded rows in, its outputs out."""

    def __init__(self, session: Any, facts: OnnxFacts, path: str) -> None:
        self._session, self.facts, self._path = session, facts, path
        self._output = "logit" if facts.classes else "prediction"
        self._shared = [b.histories for b in facts.schema.behaviours if not b.is_bag]
        self._shared *= facts.layout == "ranking"
        # What a shortlist asks of a network
        self.novelty_ = self.neighbours_ = self
        self.first_seen, learnt = facts.first_seen, NeighbourTables(facts.learnt)
        self.reads_users, self.parts = learnt.reads_users, learnt.parts
        given = [*session.get_inputs(), *session.get_overridable_initializers()]
        names = {field.name for field in facts.schema.fields}
        names |= {mask_name(behaviour) for behaviour in facts.schema.behaviours}
        names |= {older_name(history, facts.schema) for history, _ in facts.neighbours}
        names |= {*learnt.names}
        self.mixture_ = None if facts.user_rates is None else self  # whose users the server asks
        if facts.user_rates is not None:
            self.reads_users = True
            names |= {*user_counts_names(facts.schema)}
        if {value.name for value in given} != names:
            raise ValueError("the network's inputs are not those of its schema")

    @property
    def users(self) -> np.ndarray:
        """Hashes of the users whose rates the trees read."""
        rates = self.facts.user_rates
        return np.empty(0, np.uint64) if rates is None else rates.keys

    def score(self, X: EncodedFeatures) -> np.ndarray:
        """Return log-odds (n,) or (n, n_labels), or numbers (n,)."""
        parts = [self._session.run([self._output], feed)[0] for _, feed in self._feeds(X)]
        return np.concatenate(parts)

    def weights(self, X: EncodedFeatures, behaviour: Behaviour) -> np.ndarray:
        """Return the weight of each event of a behaviour, one row after the other."""
        name, parts = weights_name(behaviour, self.facts.schema), []
        for rows, feed in self._feeds(X):
            weights = self._session.run([name], feed)[0]
            lengths = X.behaviours[behaviour.histories].spans.lengths[rows]
            parts.append(weights[np.arange(weights.shape[1]) < lengths[:, None]])
        return np.concatenate(parts)

    def _feeds(self, X: EncodedFeatures) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """Return rows that one run takes and their inputs: some, or those of one history."""
        ends = [*range(0, max(len(X), 1), ROWS_PER_RUN), len(X)]
        if self.facts.layout == "ranking":
            ends = find_runs(X).tolist()
        for start, end in pairwise(ends):
            yield slice(start, end), self._inputs(X[start:end])

    def _inputs(self, X: EncodedFeatures) -> dict[str, np.ndarray]:
        """Return the network's inputs for some rows, of which histories are padded."""
        schema, inputs = self.facts.schema, dict[str, np.ndarray]()
        for name, values in X.columns.items():
            inputs[name] = _pad(*values.flatten()) if isinstance(values, IdLists) else values
        now = X._replace(times=None)
        for part in self.facts.learnt:
            numbers = part.look_up(now, np.zeros(len(X), dtype=int))
            inputs |= zip(part.names, numbers.T, strict=True)
        if self.facts.user_rates is not None:
            counts = self.facts.user_rates.counts(now).T.astype(np.float32)
            inputs |= zip(user_counts_names(schema), counts, strict=True)
        for behaviour in schema.behaviours:
            ragged = X.behaviours[behaviour.histories]
            if behaviour.histories in self._shared:
                ragged = ragged.take(slice(0, 1))
            lengths = ragged.spans.lengths
            for name in behaviour.columns:
                inputs[name] = _pad(ragged.flat(name), lengths)
            inputs[mask_name(behaviour)] = _pad(np.ones(lengths.sum(), dtype=bool), lengths)
            for history, _ in self.facts.neighbours:
                if history in behaviour.histories and ragged.n_older is not None:
                    older = Spans(ragged.spans.starts - ragged.n_older, ragged.n_older)
                    ids = ragged.columns[history][older.index()]
                    inputs[older_name(history, schema)] = _pad(ids, older.lengths)
        return inputs

    def without_users(self, users: np.ndarray) -> "OnnxNetwork":
        """Return a copy without the rates of some users, given by their hashes."""
        rates, learnt = self.facts.user_rates, NeighbourTables(self.facts.learnt)
        facts = replace(
            self.facts,
            learnt=learnt.without_users(users).parts,
            user_rates=None if rates is None else rates.without(users),
        )
        return OnnxNetwork(self._session, facts, self._path)

    def widen(self, schema: Schema) -> Self:
        """Return the same: the encoder of a file does not grow."""
        return self

    @cached_property
    def pairs(self) -> list["OnnxPair"]:
        """Item neighbours out of the graph's constants, read once by the package onnx."""
        onnx = import_package("onnx", purpose="shortlist", extra="onnx")
        try:
            arrays = {
                constant.name: onnx.numpy_helper.to_array(constant)
                for constant in onnx.load(self._path).graph.initializer
                if constant.name.startswith(neighbours_name(""))
            }
            return [
                OnnxPair(history, candidate, _read_scores(arrays, history))
                for history, candidate in self.facts.neighbours
            ]
        except (LookupError, TypeError, ValueError) as error:
            raise damaged_file(self._path, error, writer="export_onnx") from error


@dataclass(frozen=True)
class OnnxPair:
    """One history and its candidate: how their items go together."""

    history: str
    candidate: str
    scores: ItemScores


def _read_scores(arrays: Mapping[str, np.ndarray], history: str) -> ItemScores:
    """Return the scores whose tables a graph holds; its popularity is on the scale of the graph."""
    matrices = {}
    for kind in ("ease", "cosine"):
        rows, ids, scores = (arrays[neighbours_name(history, kind, what)] for what in TABLE)
        ids, scores = ids[rows], scores.reshape(ids.shape)[rows]
        is_there = ids >= FIRST_KNOWN_ID
        lengths = is_there.sum(axis=1).astype(np.int32)
        matrices[kind] = {"values": scores[is_there], "columns": ids[is_there], "lengths": lengths}
    plain = np.ascontiguousarray(arrays[neighbours_name(history, "plain")].T)
    numbers = {"popularity": plain[0], "click_rate": plain[1], "evidence": plain[3]}
    return from_dict(ItemScores, matrices | numbers)


class _OnnxEstimator(BaseEstimator):
    """The last step of what :func:`load_onnx` gives: a network that onnxruntime computes."""

    net_: OnnxNetwork
    schema_: Schema

    @classmethod
    def _of(cls, network: OnnxNetwork) -> Self:
        estimator, facts = cls(), network.facts
        estimator.net_, estimator.schema_ = network, facts.schema
        estimator.calibration_ = facts.calibration
        estimator.history_ = pd.DataFrame(dict(facts.checks))
        if facts.labels:
            estimator.label_names_ = list(facts.labels)
        if facts.classes:
            estimator.classes_ = [*facts.classes] if facts.labels else facts.classes[0]
        return estimator

    def fit(self, X: object, y: object = None) -> NoReturn:
        """Raise: a file answers, it does not learn."""
        raise TypeError(
            "a model of load_onnx cannot be fitted. Fit or update the Pipeline, and export it "
            "again."
        )

    def attention_weights(self, X: EncodedFeatures) -> pd.DataFrame:
        """Weight of every past event, as :meth:`DINClassifier.attention_weights`."""
        behaviours = check_weights(self._prepare_rows(X), pooling=self.net_.facts.pooling)
        return event_table(X, {b.histories: self.net_.weights(X, b) for b in behaviours}, "weight")

    def _prepare_rows(self, X: EncodedFeatures) -> EncodedFeatures:
        if not isinstance(X, EncodedFeatures):
            raise TypeError(f"the network needs the output of its encoder, got {type(X).__name__}.")
        if X.schema is not self.schema_ and (other := self.schema_.difference(X.schema)):
            raise ValueError(f"the network needs the output of its own encoder, and {other}.")
        return X


class OnnxClassifier(ClassifierMixin, _OnnxEstimator):
    """A classifier that onnxruntime computes: it predicts as :class:`DINClassifier` does."""

    def decision_function(self, X: EncodedFeatures) -> np.ndarray:
        """Log-odds of the click, (n,) or (n, n_labels), float32, before a calibration."""
        return self.net_.score(self._prepare_rows(X))

    def predict_proba(self, X: EncodedFeatures) -> np.ndarray | list[np.ndarray]:
        """Probability of both classes: (n, 2); of several labels an array for each."""
        click = self.calibration_(self.decision_function(X))
        pairs = [np.stack([1 - column, column], axis=1) for column in np.atleast_2d(click.T)]
        return pairs if click.ndim == 2 else pairs[0]

    def predict(self, X: EncodedFeatures) -> np.ndarray:
        """Label that is more probable: (n,), or (n, n_labels)."""
        is_click = (self.calibration_(self.decision_function(X)) > 0.5).astype(int)
        if is_click.ndim == 1:
            return self.classes_[is_click]
        pairs = zip(self.classes_, is_click.T, strict=True)
        return np.column_stack([classes[kinds] for classes, kinds in pairs])

    def _read(self, label: Label | None) -> Reading:
        labels = self.net_.facts.labels
        if labels:
            return read_several(labels, Calibration(), label)
        return read_one("probability", Calibration(), label)


class OnnxRegressor(RegressorMixin, _OnnxEstimator):
    """A regressor that onnxruntime computes: it predicts as :class:`DINRegressor` does."""

    def predict(self, X: EncodedFeatures) -> np.ndarray:
        """Number of each row: (n,), float32."""
        return self.net_.score(self._prepare_rows(X))

    def _read(self, label: Label | None) -> Reading:
        spread = np.float32(self.net_.facts.spread)
        reading = read_one("prediction", lambda score: score * spread, label)
        return reading._replace(score=lambda numbers: numbers / spread)


# Names in a graph


def mask_name(behaviour: Behaviour) -> str:
    """Name of the input that says which positions of a behaviour hold events."""
    return f"{behaviour.histories[0]}_mask"


def older_name(history: str, schema: Schema) -> str:
    """Name of the input with the events that item neighbours alone count."""
    return free_name(f"{history}_older", [field.name for field in schema.fields])


def user_counts_names(schema: Schema) -> tuple[str, ...]:
    """Names of the inputs with the rows and the clicks of each row's user, which trees read."""
    taken = [field.name for field in schema.fields]
    return tuple(free_name(name, taken) for name in ("user_rows", "user_clicks"))


def weights_name(behaviour: Behaviour, schema: Schema) -> str:
    """Name of the output with the weights of a behaviour's events."""
    return free_name(f"{behaviour.histories[0]}_weights", [field.name for field in schema.fields])


def neighbours_name(*parts: str) -> str:
    """Name of a constant of item neighbours, by history, kind of scores and part of its table."""
    return "/".join(("/neighbours", *parts))


def _pad(values: Any, lengths: np.ndarray) -> np.ndarray:
    """Return values of rows one after the other as (n_rows, longest, ...), zeros behind them."""
    if isinstance(values, IdLists):
        values = _pad(*values.flatten())
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    return pad_rows(values, lengths)
