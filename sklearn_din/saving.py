"""Save a model to a file that runs no code when it is loaded; load it; inspect it.

The format is that of skops (https://skops.readthedocs.io/en/stable/persistence.html): a zip of
arrays and a JSON document that describes how they form the model. ``skops.io.load`` reads it too,
and ``load`` reads what ``skops.io.dump`` wrote, such as MLflow's ``log_model``. This module adds
three things: our types are trusted, files are written atomically, and every defect raises the
same kind of error.
"""

import json
import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import sklearn.calibration
import sklearn.metrics

from sklearn_din.training.inputs import device_for
from sklearn_din.training.net_state import networks_on
from sklearn_din.utils.whole_files import ModelFileError, damaged_file, refuse_folder, whole_file

OWN_TYPES = (
    "sklearn_din.estimator.DINClassifier",
    "sklearn_din.regressor.DINRegressor",
    "sklearn_din.transformers.HistorySequenceEncoder",
    "sklearn_din.logs.history_builder.HistoryBuilder",
    "sklearn_din.model_selection.TimeSplit",
    "sklearn_din.metrics._GroupScorer",
    "sklearn_din.metrics.group_roc_auc_score",
    "sklearn_din.resilient.checkpoint.Checkpoint",
)
# What CalibratedClassifierCV holds: a fitted model and the numbers of its calibration
CALIBRATIONS = tuple(
    f"sklearn.calibration.{name}"
    for name in ("_CalibratedClassifier", "_SigmoidCalibration", "_TemperatureScaling")
    if hasattr(sklearn.calibration, name)  # temperatures are of scikit-learn 1.8
)
SCORERS = (
    "sklearn.metrics._scorer._Scorer",
    "sklearn.metrics._scorer._PassthroughScorer",
    "sklearn.metrics._scorer._MultimetricScorer",
    # Scorers of older releases of scikit-learn hold these.
    "sklearn.utils._metadata_requests.MetadataRequest",
    "sklearn.utils._metadata_requests.MethodMetadataRequest",
)
SCHEMA = "schema.json"
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def save(model: object, path: str | os.PathLike[str]) -> None:
    """Save a model to one file that runs no code when it is loaded.

    The file contains values: parameters, vocabularies, weights, the stored clicks of a
    HistoryBuilder, and the state that ``partial_fit`` continues from: two numbers per id and the
    moments of the dense weights. Training rows are not kept. Saving needs as much memory as the
    model, plus twice its largest array, 2 GB for an embedding table of 1 GB; loading needs 2.3
    times the model, itself included (``benchmarks/README.md``).

    Parameters
    ----------
    model : estimator
        A :class:`DINClassifier`, :class:`HistorySequenceEncoder`, :class:`HistoryBuilder`, a
        Pipeline or a search of those, and anything else that skops supports, fitted or not.
    path : str or path
        The file. An existing file is replaced. The file is written under another name in the same
        folder and then renamed, so that nobody ever reads half of it.

    Raises
    ------
    ValueError
        If the model contains what cannot be saved, such as lambdas or open connections.

    See Also
    --------
    load, inspect

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from sklearn_din import DINClassifier
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.din"
    >>> save(DINClassifier(hidden_units=(8,)), path)
    >>> load(path)
    DINClassifier(hidden_units=(8,))
    """
    import skops.io

    if isinstance(model, type) or not hasattr(model, "fit"):
        raise TypeError(
            f"save needs an estimator such as a fitted Pipeline, got {model!r:.60}. Pass the "
            "fitted object itself."
        )
    with whole_file(path) as partial:
        try:
            skops.io.dump(model, partial)
            _check_names(partial)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # objects of other packages may raise anything
            if _is_short_of_memory(error):
                raise MemoryError(f"too little memory to save {type(model).__name__}.") from error
            problem = str(error).rstrip(".")
            if isinstance(error, RecursionError):
                problem = "objects that hold each other, as scikit-learn's metadata requests do"
            raise ValueError(
                f"save keeps estimators, numbers, text and dates, and this {type(model).__name__} "
                f"holds something else: {problem}. Use functions and classes of a module, name a "
                "scorer by its text, set callbacks=None, or pickle the model."
            ) from error


def _is_short_of_memory(error: BaseException | None) -> bool:
    """Return whether a MemoryError came first: zipfile, closed by it, raises another error."""
    while error is not None and not isinstance(error, MemoryError):
        error = error.__context__
    return error is not None


def load(path: str | os.PathLike[str], *, trusted: Sequence[str] = (), device: str = "cpu") -> Any:
    """Load a model that :func:`save` wrote; its predictions are identical to the last bit.

    Only types known to skops or this package are built, and those named in ``trusted``. Our own
    types check every parameter, dtype, shape and name. The checksums in the file detect damage,
    not forgery: anyone who can write the file can put another model into it, but no code.

    Parameters
    ----------
    path : str or path
        The file.
    trusted : list of str, default=()
        Names of further types, from steps of other packages, such as
        ``["my_package.steps.AddWeekday"]``. Their code runs: pass only types you know.
        :func:`inspect` lists those that a file needs.
    device : str, default="cpu"
        torch device of the networks, wherever they were trained: "cpu", "cuda", "cuda:1", or
        "auto" for "cuda" if available. The classifier's parameter ``device``, which a new fit
        would use, is unchanged.

    Returns
    -------
    estimator
        As it was given to :func:`save`.

    Raises
    ------
    ModelFileError
        If the file is damaged, contains no model, contains types that are not trusted (they are
        named), or needs a newer version of this package. It is a ValueError.

    Warns
    -----
    UserWarning
        If sklearn_din, scikit-learn, torch or numpy have another version than when the model was
        saved.

    See Also
    --------
    save, inspect

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from sklearn_din import HistorySequenceEncoder
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "encoder.din"
    >>> save(HistorySequenceEncoder(max_length=20), path)
    >>> load(path).max_length
    20
    """
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    refuse_folder(path)
    device = device_for(device)
    allowed = [*trusted_types(), *([trusted] if isinstance(trusted, str) else trusted)]
    with open(path, "rb") as file:
        try:
            _check_zip(file)
            with networks_on(device):
                return skops.io.load(file, trusted=allowed)
        except UntrustedTypesFoundException as error:
            names = sorted({*skops.io.get_untrusted_types(file=file)} - {*allowed})
            raise ModelFileError(
                f"{str(path)!r} holds objects that are not trusted. If you trust whoever made the "
                f"file, pass trusted={names}."
            ) from error
        except MemoryError:
            raise
        except Exception as error:  # of zipfile, json, numpy, skops, and of foreign steps
            raise damaged_file(path, error, writer="save") from error


def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a model file contains, without building any of it.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    contents : dict
        "model", the model's type; "types", all types in the file; "untrusted", those to pass to
        :func:`load` as ``trusted``; "versions", by library, of those that wrote our estimators;
        "n_bytes", of all arrays. ``skops.io.visualize`` shows the rest.

    Raises
    ------
    ModelFileError
        If the file is damaged or holds no model.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from sklearn_din import DINClassifier
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.din"
    >>> save(DINClassifier(), path)
    >>> contents = inspect(path)
    >>> contents["model"], contents["untrusted"]
    ('sklearn_din.estimator.DINClassifier', [])
    """
    import skops.io

    refuse_folder(path)
    with open(path, "rb") as file:
        try:
            n_bytes = _check_zip(file)
            schema = _read_schema(file)
            nodes = list(_nodes(schema))
            untrusted = {*skops.io.get_untrusted_types(file=file)} - {*trusted_types()}
            return {
                "model": _type_name(schema),
                "types": sorted(set(map(_type_name, nodes))),
                "untrusted": sorted(untrusted),
                "versions": _versions(nodes),
                "n_bytes": n_bytes,
            }
        except Exception as error:  # of zipfile, json, numpy and skops
            raise damaged_file(path, error, writer="save") from error


def trusted_types() -> list[str]:
    """Return the names of the types that :func:`load` trusts in addition to those known to skops.

    They are our own types, and the metrics, splitters, scorers and calibrations of scikit-learn
    that searches and calibrated models contain.

    Returns
    -------
    list of str
        For ``skops.io.load(path, trusted=...)`` and tools built on it, such as MLflow.

    Examples
    --------
    >>> "sklearn_din.estimator.DINClassifier" in trusted_types()
    True
    """
    scorers = [sklearn.metrics.get_scorer(name) for name in sklearn.metrics.get_scorer_names()]
    functions = {f"{s._score_func.__module__}.{s._score_func.__name__}" for s in scorers}
    splitters = {
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in vars(sklearn.model_selection).values()
        if isinstance(kind, type) and hasattr(kind, "get_n_splits")
    }
    return sorted({*OWN_TYPES, *functions, *splitters, *SCORERS, *CALIBRATIONS})


def _read_schema(file: IO[bytes] | Path) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read(SCHEMA))


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Go through all parts of a schema that stand for objects."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "__loader__" in node:
                yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _type_name(node: dict[str, Any]) -> str:
    return f"{node['__module__']}.{node['__class__']}"


def _versions(nodes: list[dict[str, Any]]) -> dict[str, str]:
    versions: dict[str, str] = {}
    for node in nodes:
        if _type_name(node) in OWN_TYPES and "content" in node:
            written = node["content"]["content"].get("versions", {}).get("content", {})
            versions |= {name: json.loads(text["content"]) for name, text in written.items()}
    return versions


def _check_names(path: Path) -> None:
    """Raise where a file names what cannot be imported again."""
    names = {_type_name(node) for node in _nodes(_read_schema(path))}
    hidden = sorted(name for name in names if "<" in name)
    if hidden:
        raise ValueError(f"{', '.join(hidden)} cannot be imported by name.")


def _check_zip(file: IO[bytes]) -> int:
    """Return the octets in a zip; raise unless reading it takes about the memory of its size."""
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if len({entry.filename for entry in entries}) < len(entries):
            raise ValueError("a member stands twice in it")
        n_bytes = sum(entry.file_size for entry in entries)
        if n_bytes > size:
            raise ValueError("its members are larger than it")
        for entry in entries:
            is_stored = entry.compress_type == zipfile.ZIP_STORED
            if not is_stored or entry.compress_size != entry.file_size:
                raise ValueError(f"{entry.filename!r:.60} is compressed")
            if entry.filename.endswith(".npy"):
                _check_array(archive, entry)
    return n_bytes


def _check_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Raise unless an array has the size that its header states: numpy allocates by the header."""
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        if version not in HEADERS:
            raise ValueError(f"{entry.filename!r:.60} has an unknown version")
        shape, _, dtype = HEADERS[version](member)
        n_bytes = entry.file_size - member.tell()
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != n_bytes or min(shape, default=0) < 0:
        raise ValueError(f"{entry.filename!r:.60} has not the size that its header states")
