"""A server of an exported model: numpy and onnxruntime, neither torch nor scikit-learn.

This file imports nothing of the package, so that it can be copied to a machine without it.
"""

import difflib
import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence, Set
from numbers import Integral
from typing import Any
from zlib import crc32

import numpy as np

METADATA_KEY = "sklearn_din"
RECIPE_VERSION = 1
UNKNOWN_ID, FIRST_KNOWN_ID = 1, 2
N_IDENTITIES, LEAST_ID = 2**30, -(2**31)  # of unknown values, as in features/identities.py
MERGED_FLOATS = 2**53  # neighbouring integers are one float from here on
LARGEST = float(np.finfo(np.float32).max)
LINEAR = 5.0  # as in encoding/scaling.py
PER_ROW = ("categorical", "list", "numeric", "missing")  # kinds of inputs with one value per row
KINDS = {str: "text", int: "integers"}
OTHER_KIND: dict[Any, type] = {str: int, int: str}
MISSING_TYPES = ("NAType", "NaTType")  # of pandas, which is not imported here

ListsByName = dict[str, list[Any]]


class OnnxServer:
    """Probability of a click from plain values, by a file that ``export_onnx`` wrote.

    The file holds the network and how the encoder makes its inputs, so this class needs
    onnxruntime and numpy alone: neither torch nor scikit-learn nor pandas is imported. The
    answers are those of ``predict_proba`` of the exported Pipeline, up to about 1e-6.

    Values are encoded as the HistorySequenceEncoder does it. A value not seen at fit is
    unknown, also where the encoder has ``unknown="error"``; None and NaN are missing: an id that
    is missing is unknown, a missing number gets the mean, a missing history is empty. Times
    elapsed are given as numbers in the unit of ``fit``. Steps of the Pipeline before the encoder
    are not in the file: do what they do before ``predict``.

    Parameters
    ----------
    path : str or path-like
        The file, exported from a Pipeline (a classifier alone has no encoder to read values).
    intra_op_num_threads : int, default=1
        Threads that work on one request. One is best for a server that answers many requests at
        once; more shorten a single large request.

    Attributes
    ----------
    classes_ : list
        The two labels. ``predict`` gives the probability of the second. Of several labels a pair
        for each, of a regressor nothing.
    labels_ : list of str
        Names of several labels, in the order of the probabilities' columns.
    columns_ : list of str
        The columns that every row needs.
    n_known_ : dict of str to int
        Number of ids that the file knows, by column of single ids.

    Raises
    ------
    ImportError
        If onnxruntime is not installed.
    ValueError
        If the file was not written by ``export_onnx`` from a Pipeline, or by a version of it that
        this class does not know.

    Examples
    --------
    >>> from sklearn_din.serving import OnnxServer
    >>> server = OnnxServer("model.onnx")  # doctest: +SKIP
    >>> server.predict([{"item": 3, "hist_item": [17, 3, 5]}])  # doctest: +SKIP
    array([0.61], dtype=float32)
    """

    def __init__(self, path: str | os.PathLike, *, intra_op_num_threads: int = 1) -> None:
        n_threads = _read_count(intra_op_num_threads, "intra_op_num_threads")
        self._session = _open(path, n_threads)
        recipe = _read_recipe(self._session, path)
        self.classes_: list[Any] = recipe["classes"]
        self.labels_: list[str] = recipe.get("labels", [])
        self._output = self._session.get_outputs()[0].name  # "probability", or "prediction"
        self._inputs: list[dict[str, Any]] = recipe["inputs"]
        self.columns_ = list(dict.fromkeys(spec["column"] for spec in self._inputs))
        self._max_length: int = recipe["max_length"]
        self._separator: str | None = recipe["separator"]
        self._layout: str = recipe["layout"]
        self._known = {name: _Known(known) for name, known in recipe["vocabularies"].items()}
        self.n_known_ = {
            spec["column"]: len(recipe["vocabularies"][spec["vocabulary"]])
            for spec in self._inputs
            if spec["kind"] == "categorical"
        }
        self._behaviours = _behaviours(self._session, self._inputs)
        columns = {spec["name"]: spec["column"] for spec in self._inputs}
        one_row = [spec.name for spec in self._session.get_inputs() if spec.shape[0] == 1]
        self._compared = list(dict.fromkeys(columns[name] for name in one_row))

    def predict(self, rows: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Any]]) -> Any:
        """Return the probability of a click for each impression.

        Parameters
        ----------
        rows : list of dict, or dict of column to list
            Each of ``columns_`` must be there, None where it is missing; others are not used. A
            history is a list, oldest to newest, or text where the encoder has a separator.
            Histories of the same events have one length.

        Returns
        -------
        ndarray of shape (n_rows,), or (n_rows, n_labels), float32
            Probability of ``classes_[1]``; the number of a regressor.

        Raises
        ------
        TypeError
            If ``rows`` is neither.
        ValueError
            If a column is absent, or a value is of a kind that its column cannot hold.
        """
        self._check_layout("rows", "predict")
        columns, n_rows = _read_columns(rows, self.columns_)
        if not n_rows:
            return np.empty((0, len(self.labels_)) if self.labels_ else 0, dtype=np.float32)
        return self._session.run([self._output], self._feed(columns))[0]

    def rank(
        self,
        user: Mapping[str, Any],
        candidates: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]],
        *,
        top_k: int = 10,
        label: str | int | None = None,
    ) -> tuple[Any, Any]:
        """Return the best candidates for one user, by a file of the layout "ranking".

        Parameters
        ----------
        user : dict
            Those of ``columns_`` that do not follow the candidate, the histories among them.
        candidates : dict of column to list, or list of dict
            The others of ``columns_``, a value for each candidate. Lists are read faster.
        top_k : int, default=10
            Candidates to return; all where there are fewer.
        label : str or int, default=None
            Of several labels, the one to rank by.

        Returns
        -------
        positions : ndarray of shape (n_best,), int64
            Which of the candidates they are, the best first; equal ones keep their order.
        probability : ndarray of shape (n_best,), float32
            Of ``classes_[1]`` for each of them.

        Raises
        ------
        ValueError
            If a column is absent or in both, a history of the user is among the candidates', a
            value is of a kind that its column cannot hold, ``top_k`` is less than 1, or the file
            has the layout "rows".
        """
        self._check_layout("ranking", "rank")
        top_k = _read_count(top_k, "top_k")
        if self.labels_ and str(label) not in self.labels_:
            raise ValueError(f"label must be one of {self.labels_}, got {label!r}.")
        if isinstance(candidates, Sequence) and not len(candidates):
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        names = candidates if isinstance(candidates, Mapping) else candidates[0]
        of_candidates = [name for name in self.columns_ if name in names]
        columns, n_rows = _read_columns(candidates, of_candidates)
        if not columns:
            raise ValueError(
                f"candidates must have some of the columns {self.columns_}, got {list(names)}: "
                "every candidate would score the same."
            )
        of_user = [name for name in self.columns_ if name not in columns]
        _check_names(user, of_user, where="user")
        self._check_sides(user, columns)
        if not n_rows:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        feed = self._feed(columns | {name: [user[name]] for name in of_user})
        for spec in self._inputs:
            if spec["kind"] in PER_ROW and spec["column"] not in columns:
                feed[spec["name"]] = np.repeat(feed[spec["name"]], n_rows, axis=0)
        probability = self._session.run([self._output], feed)[0]
        if self.labels_:
            probability = probability[:, self.labels_.index(str(label))]
        best = (-probability).argsort(kind="stable")[:top_k]
        return best, probability[best]

    def _check_layout(self, layout: str, method: str) -> None:
        if self._layout != layout:
            raise ValueError(
                f"{method} needs a file of the layout {layout!r}, got {self._layout!r}. Export the "
                f"model again: export_onnx(model, path, layout={layout!r})."
            )

    def _check_sides(self, user: Mapping[str, Any], columns: ListsByName) -> None:
        both = [name for name in columns if name in user]
        if both:
            raise ValueError(
                f"a column belongs to the user or to the candidate, got {both} in both. Leave "
                "them out of one."
            )
        of_user = [name for name in self._compared if name in columns]
        if of_user:
            raise ValueError(
                f"histories are the user's, got {of_user} among the candidates. Give them in user."
            )

    def _feed(self, columns: ListsByName) -> dict[str, np.ndarray]:
        """Return the inputs of the network out of the cells of each column."""
        histories = {
            spec["column"]: [self._events(cell, spec["column"]) for cell in columns[spec["column"]]]
            for spec in self._inputs
            if spec["kind"] in ("history", "list_history", "numeric_history")
        }
        self._check_aligned(histories)
        columns = columns | {
            name: [cell[-self._max_length :] for cell in cells] for name, cells in histories.items()
        }
        feed = {}
        for spec in self._inputs:
            cells = columns[spec["column"]]
            if spec["kind"] == "older":
                newest = slice(-spec["most"], -self._max_length)
                cells = [cell[newest] for cell in histories[spec["column"]]]
                if not any(cells):
                    continue  # may be left out
            feed[spec["name"]] = self._input(spec, cells)
        return feed

    def _events(self, cell: Any, column: str) -> list[Any]:
        """All events of a history; text is split, and its empty parts are missing events."""
        if _is_missing(cell):
            return []
        separator = self._separator
        if isinstance(cell, str) and separator is not None:
            cell = cell.split(separator) if cell.strip() else []
        elif not _is_list(cell):
            raise ValueError(
                f"{column} must hold one history per cell (a list, oldest to newest, or None; "
                f"text only where the encoder has a separator), got {cell!r:.40} "
                f"({type(cell).__name__})."
            )
        events = list(cell)
        if not set(map(type, events)) <= {int, str}:
            events = [None if _is_missing(event) else event for event in events]
        if separator is None or not all(isinstance(event, str | None) for event in events):
            return events
        return [None if event is None else event.strip() or None for event in events]

    def _check_aligned(self, histories: ListsByName) -> None:
        for first, *others in self._behaviours:
            for other in others:
                pairs = zip(histories[first], histories[other], strict=True)
                for row, cells in enumerate(pairs):
                    n_first, n_other = map(len, cells)
                    if n_first != n_other:
                        raise ValueError(
                            f"{first} and {other} describe the same events and must have one "
                            f"length in each row, got {n_first} and {n_other} in row {row}."
                        )

    def _input(self, spec: dict[str, Any], cells: list[Any]) -> np.ndarray:
        """One input of the network; histories are (n_rows, length of the longest)."""
        kind, column = spec["kind"], spec["column"]
        if kind == "categorical":
            known = self._known[spec["vocabulary"]]
            return np.array(known.ids(cells, column), dtype=np.int32)
        if kind in ("history", "older"):
            known = self._known[spec["vocabulary"]]
            return _pad([known.ids(cell, column) for cell in cells], np.int32)
        if kind == "list":
            return _pad(self._ids_of_lists(spec, cells), np.int32)
        if kind == "list_history":
            lists = [self._ids_of_lists(spec, cell) for cell in cells]
            width = max((len(ids) for cell in lists for ids in cell), default=0)
            array = np.zeros((len(cells), max(map(len, cells), default=0), width), dtype=np.int32)
            for row, cell in zip(array, lists, strict=True):
                row[: len(cell), :] = _pad([*cell, [0] * width], np.int32)[:-1]
            return array
        if kind == "mask":
            return _pad([[True] * len(cell) for cell in cells], np.bool_)
        if kind == "numeric_history":
            return _scale(_pad([_numbers(c, column) for c in cells], np.float64), spec)
        numbers = _numbers(cells, column)
        return np.isnan(numbers).astype(np.float32) if kind == "missing" else _scale(numbers, spec)

    def _ids_of_lists(self, spec: dict[str, Any], lists: Sequence[Any]) -> list[list[int]]:
        """Ids of each list, each once."""
        known, column = self._known[spec["vocabulary"]], spec["column"]
        return [
            list(dict.fromkeys(known.ids(self._events(values, column), column))) for values in lists
        ]


class _Known:
    """The values of a vocabulary and their ids."""

    def __init__(self, values: list[Any]) -> None:
        self._ids = {_key(value): n for n, value in enumerate(values, start=FIRST_KNOWN_ID)}
        kinds = {type(value) for value in values}
        self._kind: Any = kinds.pop() if len(kinds) == 1 else None
        self._other: Any = OTHER_KIND.get(self._kind)

    def ids(self, values: Sequence[Any], column: str) -> list[int]:
        """Give each value its id: 1 where it is missing, a negative one where it is unknown."""
        types, known = set(map(type, values)), self._ids.get  # no id is 0
        if types in ({int}, {str}) and self._other not in types:
            try:
                return list(map(self._ids.__getitem__, values))
            except KeyError:
                return [known(value, 0) or _identify(value) for value in values]
        keys = [None if _is_missing(value) else _plain(value, column) for value in values]
        if self._kind is int:  # text may spell integers
            keys = [_integer_if_spelt(key) for key in keys]
        if {type(key) for key in keys if key is not None} == {self._other}:
            learnt, given = KINDS[self._kind], KINDS[self._other]
            warnings.warn(
                f"{column} was learnt as {learnt} and now holds {given}: all of them are unknown. "
                f"Send the values as {learnt}.",
                UserWarning,
                stacklevel=5,
            )
        return [UNKNOWN_ID if k is None else known(k, 0) or _identify(k) for k in keys]


def _read_count(count: object, name: str) -> int:
    if isinstance(count, bool) or not isinstance(count, Integral) or int(count) < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {count!r}.")
    return int(count)


def _open(path: str | os.PathLike, n_threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            "OnnxServer needs the package onnxruntime, which is not installed. "
            "Install it with: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.log_severity_level = 3  # it warns of an input that may be left out
    return onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )


def _read_recipe(session: Any, path: str | os.PathLike) -> dict[str, Any]:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ValueError(
            f"{os.fspath(path)} does not say how its inputs are made out of plain values. Export "
            "the whole Pipeline, encoder included: export_onnx(pipeline, path)."
        )
    recipe = json.loads(text)
    if recipe["version"] != RECIPE_VERSION:
        raise ValueError(
            f"{os.fspath(path)} has encoder instructions of version {recipe['version']}, and this "
            f"OnnxServer reads version {RECIPE_VERSION}. Use the version of sklearn_din that wrote "
            "the file, or export the model again."
        )
    return recipe


def _behaviours(session: Any, inputs: list[dict[str, Any]]) -> list[list[str]]:
    """Columns of the same events: those whose inputs share their dimension of events."""
    columns = {spec["name"]: spec["column"] for spec in inputs if spec["kind"] != "list"}
    groups: dict[str, list[str]] = {}
    for spec in session.get_inputs():
        if spec.name in columns and len(spec.shape) > 1:
            groups.setdefault(spec.shape[1], []).append(columns[spec.name])
    return [list(dict.fromkeys(group)) for group in groups.values()]


def _read_columns(rows: object, names: list[str]) -> tuple[ListsByName, int]:
    """Return the cells of each column, and the number of rows."""
    if isinstance(rows, Mapping):
        return _columns_of_dict(rows, names)
    if not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
        got = f"a list of {type(rows[0]).__name__}" if isinstance(rows, list) else None
        raise TypeError(
            "rows must be a list of dictionaries or a dictionary of lists, got "
            f"{got or type(rows).__name__}. A pandas DataFrame has .to_dict('list')."
        )
    for number, row in enumerate(rows):
        _check_names(row, names, where=f"rows[{number}]")
    return {name: [row[name] for row in rows] for name in names}, len(rows)


def _columns_of_dict(rows: Mapping[str, Any], names: list[str]) -> tuple[ListsByName, int]:
    _check_names(rows, names, where="rows")
    columns: ListsByName = {}
    for name in names:
        cells = rows[name]
        is_single = isinstance(cells, str | bytes | Mapping) or not hasattr(cells, "__len__")
        if is_single or getattr(cells, "ndim", 1) == 0:
            raise TypeError(
                f"rows is a dictionary, so rows[{name!r}] must be a list with one value per row, "
                f"got {cells!r:.40} ({type(cells).__name__}). For one row pass a list: [row]."
            )
        columns[name] = cells.tolist() if isinstance(cells, np.ndarray) else list(cells)
    lengths = {name: len(cells) for name, cells in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"every column must have one value per row, got lengths {lengths}. For one row pass a "
            "list: [row]."
        )
    return columns, max(lengths.values(), default=0)


def _check_names(row: Mapping[str, Any], names: list[str], *, where: str) -> None:
    absent = [name for name in names if name not in row]
    if not absent:
        return
    unused = [str(name) for name in row if name not in names]
    close = difflib.get_close_matches(absent[0], unused, n=1)
    hint = f" Is it {close[0]!r}, misspelt?" if close else ""
    raise ValueError(
        f"{where} must have the keys {names}, got none of {absent}.{hint} Where a value is not "
        "known, pass None."
    )


def _is_list(cell: object) -> bool:
    is_other = isinstance(cell, str | bytes | bytearray | Mapping | Set)
    return isinstance(cell, Iterable) and not is_other and getattr(cell, "ndim", 1) == 1


def _is_missing(value: object) -> bool:
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    return value is None or type(value).__name__ in MISSING_TYPES


def _plain(value: Any, column: str) -> Any:
    """Return the key of a value: 7, 7.0 and numpy's 7 are one id, and True is not 1."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        if not math.isfinite(value) or value != math.floor(value):
            raise ValueError(
                f"{column} must hold ids, got the float {value!r}. Ids are integers, text or "
                "booleans."
            )
        if abs(value) >= MERGED_FLOATS:
            raise ValueError(
                f"{column} holds the id {value!r} as a float, where neighbouring ids merge. Send "
                "it as an integer or as text."
            )
        value = int(value)
    if not isinstance(value, str | int):
        raise ValueError(
            f"{column} must hold ids (integers, text or booleans), got {value!r:.40} "
            f"({type(value).__name__})."
        )
    return _key(value)


def _key(value: Any) -> Any:
    return ("bool", value) if isinstance(value, bool) else value  # True == 1 as a dictionary's key


def _identify(key: Any) -> int:
    """Return the id of an unknown value, as the encoder gives it: twin of ``identify``."""
    if isinstance(key, str):
        checksum = crc32(key.encode("utf-8", "surrogatepass"), 1)
    else:
        checksum = crc32(repr(key[1] if isinstance(key, tuple) else key).encode())
    return LEAST_ID + checksum % N_IDENTITIES


def _integer_if_spelt(key: Any) -> Any:
    """Text such as "12" as the integer 12; "012" and "1.0" stay text."""
    digits = key.removeprefix("-") if isinstance(key, str) else ""
    is_number = digits.isdecimal() and len(digits) < 19 and str(int(key)) == key
    return int(key) if is_number else key


def _numbers(values: Sequence[Any], column: str) -> np.ndarray:
    """Numbers as float64, NaN where missing."""
    try:
        if not set(map(type, values)) <= {int, float}:
            values = [None if _is_missing(value) else value for value in values]
        numbers = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{column} must hold numbers, got {values!r:.60}.") from error
    largest = np.fmax.reduce(np.abs(numbers), axis=None, initial=0.0)  # NaN is missing
    if numbers.ndim != 1 or largest == math.inf:
        raise ValueError(
            f"{column} must hold finite numbers, one each, got {values!r:.60}. Pass None where a "
            "number is missing."
        )
    if largest > LARGEST:
        raise ValueError(
            f"{column} must hold numbers that fit into float32, got {largest:g}. Send a smaller "
            "number, or None, which is given the mean."
        )
    return numbers


def _pad(cells: Sequence[Sequence[Any] | np.ndarray], dtype: Any) -> np.ndarray:
    """Lists as one array, zeros (False) after the shorter ones."""
    array = np.zeros((len(cells), max(map(len, cells), default=0)), dtype=dtype)
    for row, cell in zip(array, cells, strict=True):
        row[: len(cell)] = cell
    return array


def _scale(numbers: np.ndarray, spec: dict[str, Any]) -> np.ndarray:
    numbers = (numbers - spec["shift"]) / spec["scale"]
    if spec["is_elapsed"]:
        numbers = np.log1p(np.maximum(numbers, 0))
    elif spec.get("has_outliers"):
        beyond = np.maximum(np.abs(numbers) - LINEAR, 0)
        numbers = np.clip(numbers, -LINEAR, LINEAR) + np.sign(numbers) * np.log1p(beyond)
    numbers[np.isnan(numbers)] = 0
    return numbers.astype(np.float32)
