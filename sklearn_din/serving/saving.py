"""Save a model to a file that runs no code when it is loaded; load it; look into it.

A safe file is a zip. ``manifest.json`` names the format, its protocol, the versions that wrote it,
the kind of each object and the size and SHA-256 of each other member. Object ``3`` lies in
``3.json`` (parameters and structure) and ``3.safetensors`` (weights, vocabularies, all arrays); an
object that is not of this package in ``3.skops``. The last object is the model.

The rule of the protocol. It is raised by one when a version that reads the present protocol would
misread a new file or could not tell why it cannot read it: a new kind of object, a new type in the
plain state, a part of the manifest or of an estimator's state that is added, goes or changes its
meaning. A new parameter with a default does not raise it: older files get the default, older
versions refuse the parameter by its name. A file gets the lowest protocol that can express it.
Until a version that writes a protocol is released, parts may be added to it, and are optional.
Every protocol ever released stays readable: ``tests/fixtures`` has one file of each, which are
never written again.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import sklearn
import torch
from safetensors import SafetensorError

from sklearn_din.serving.foreign_steps import read_foreign, untrusted_types, write_foreign
from sklearn_din.serving.safe_file import SafeFile, open_safe_file, write_safe_file
from sklearn_din.serving.saved_objects import FOREIGN, KINDS, kind_of
from sklearn_din.state.array_bytes import array_pieces
from sklearn_din.state.plain_state import PlainState
from sklearn_din.state.versions import __version__, versions_checked, warn_of_other_versions
from sklearn_din.training.net_state import networks_on

FORMAT = "sklearn_din model"
PROTOCOL = 1
MANIFEST_KEYS = {"format", "protocol", "versions", "objects", "members"}
COMPARED = ("scikit-learn", "torch", "numpy")  # others make no difference to predictions
DAMAGES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def save(model: object, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Save a model to one file that runs no code when it is loaded.

    The file holds values: parameters, vocabularies, weights, the remembered clicks of a
    HistoryBuilder, and what ``partial_fit`` goes on from: two numbers per id and the moments of the
    dense weights. Nothing in it names a class or a function to import, apart from steps of other
    packages, which skops keeps. Training rows are not kept.

    Parameters
    ----------
    model : Pipeline, GridSearchCV, RandomizedSearchCV or estimator
        Of :class:`DINClassifier`, :class:`HistorySequenceEncoder`, :class:`HistoryBuilder`,
        :class:`ItemNeighbours` and steps that skops knows, such as scikit-learn's. Fitted or not.
    path : str or path
        The file. It is written under another name in the same folder and then put in place, so
        that nobody ever reads half of it.
    overwrite : bool, default=False
        Whether to replace a file that is there already.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is False.
    ValueError
        If the model holds what no safe file can hold: functions, skorch callbacks, objects of
        other packages. All of them are named.
    ImportError
        If a step is not of this package and skops is not installed.

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
    if isinstance(model, type) or not hasattr(model, "fit"):
        raise TypeError(
            f"save needs an estimator such as a fitted Pipeline, got {model!r:.60}. Pass the "
            "fitted object itself."
        )
    packed = _PackedModel(model)
    manifest = {
        "format": FORMAT,
        "protocol": PROTOCOL,
        "versions": _versions(),
        "objects": packed.entries,
    }
    write_safe_file(Path(path), packed.members(), manifest, overwrite=overwrite)


def load(path: str | os.PathLike[str], *, trusted: Sequence[str] = (), device: str = "cpu") -> Any:
    """Load a model that :func:`save` wrote; its predictions are the same to the bit.

    All members are checked against their sizes and SHA-256 before anything is built, then every
    parameter, dtype, shape and name by the class that takes it. The sums guard against damage, not
    against forgery: whoever can write the file can put another model into it, but no code.

    Parameters
    ----------
    path : str or path
        The file.
    trusted : list of str, default=()
        Names of further types that steps of other packages may hold, such as
        ``["my_package.steps.AddWeekday"]``. Their code runs: pass only what you know.
        :func:`inspect` lists what a file asks for.
    device : str, default="cpu"
        torch device of the networks, wherever they were trained: "cpu", "cuda", "cuda:1", or
        "auto" for "cuda" where there is one. The parameter ``device`` of the classifier, by which
        it would be fitted again, stays as it was saved.

    Returns
    -------
    estimator
        As it was given to :func:`save`.

    Raises
    ------
    SafeFileError
        If the file is damaged, is no safe file, or needs a newer version of this package. It is
        a ValueError.

    Warns
    -----
    UserWarning
        Once, if scikit-learn, torch or numpy are other versions than those that saved the model.

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
    device = _checked_device(device)
    trusted = [trusted] if isinstance(trusted, str) else list(trusted)
    with open_safe_file(Path(path), what="load") as file:
        entries = _checked_manifest(file)
        file.check()
        versions = file.manifest["versions"]
        written = {name: versions[name] for name in COMPARED if name in versions}
        warn_of_other_versions(written, _versions(), what=str(path))
        with versions_checked(), networks_on(device):
            return _built(file, entries, trusted)


def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Tell what a safe file holds, without building it.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    contents : dict
        "protocol"; "versions", by library; "objects", a list of dicts with the "kind", the
        "state" (plain JSON) and the "arrays" (name -> dtype and shape) of each, the model last;
        "untrusted", the types to pass to :func:`load` as ``trusted``; "members", with the size
        and SHA-256 of each.

    Raises
    ------
    SafeFileError
        If the file is damaged, is no safe file, or needs a newer version of this package.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from sklearn_din import DINClassifier
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.din"
    >>> save(DINClassifier(), path)
    >>> [its["kind"] for its in inspect(path)["objects"]]
    ['DINClassifier']
    """
    with open_safe_file(Path(path), what="inspect") as file:
        entries = _checked_manifest(file)
        file.check()
        objects, untrusted = [], set()
        for place, entry in enumerate(entries):
            found: dict[str, Any] = {"kind": entry["kind"], "objects": entry["objects"]}
            if entry["kind"] == FOREIGN:
                content = file.read(f"{place}.skops")
                untrusted |= set(untrusted_types(content, where=f"object {place}"))
            else:
                state = _read_state(file, place)
                found["state"] = state.text
                found["arrays"] = {n: (str(a.dtype), a.shape) for n, a in state.arrays.items()}
            objects.append(found)
        names = ("protocol", "versions", "members")
        contents = {name: file.manifest[name] for name in names}
    return contents | {"objects": objects, "untrusted": sorted(untrusted)}


def _versions() -> dict[str, str]:
    return {
        "sklearn_din": __version__,
        "python": platform.python_version(),
        "scikit-learn": sklearn.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def _checked_device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device must be a torch device such as 'cpu' or 'cuda', or 'auto', got {device!r}."
        ) from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"load(device={device!r}) needs a GPU that torch can use, and there is none. Use "
            "device='cpu' or device='auto'."
        )
    return device


class _PackedModel:
    """The objects of a model, each after those that it holds."""

    def __init__(self, model: object) -> None:
        self.entries: list[dict[str, Any]] = []
        self._contents: list[PlainState | bytes] = []
        self._places: dict[int, int] = {}
        self._kept: list[Any] = []  # ids are those of objects that live
        self._problems: list[str] = []
        self._add(model, "")
        if self._problems:
            raise ValueError(
                "save keeps estimators, numbers, text and dates, no functions and no objects of "
                f"other kinds. It cannot keep {'; '.join(self._problems)}."
            )

    def members(self) -> Iterator[tuple[str, bytes]]:
        """Names and contents in the order of the objects."""
        for place, content in enumerate(self._contents):
            if isinstance(content, bytes):
                yield f"{place}.skops", content
                continue
            yield f"{place}.json", content.text.encode("ascii")
            if content.arrays:
                yield f"{place}.safetensors", b"".join(array_pieces(content.arrays))

    def _add(self, value: object, where: str) -> int:
        if id(value) in self._places:
            return self._places[id(value)]
        self._kept.append(value)
        kind = kind_of(value)
        if kind is not None:
            state = KINDS[kind].write(value)
            objects = {
                path: self._add(held, f"{where}.{path}".lstrip("."))
                for path, held in state.objects.items()
            }
            return self._append(value, {"kind": kind, "objects": objects}, state)
        return self._append(value, {"kind": FOREIGN, "objects": {}}, self._foreign(value, where))

    def _append(self, value: object, entry: dict[str, Any], content: PlainState | bytes) -> int:
        self.entries.append(entry)
        self._contents.append(content)
        self._places[id(value)] = len(self.entries) - 1
        return self._places[id(value)]

    def _foreign(self, value: object, where: str) -> bytes:
        where = where.replace("parameters.", "") or "the model"
        is_step = hasattr(value, "fit") or type(value).__module__.split(".")[0] == "sklearn"
        problem = ""
        if is_step:
            try:
                return write_foreign(value, where=where)
            except ValueError as error:
                problem = f", {error}"
        self._problems.append(f"{where} ({type(value).__name__}{problem}): {_remedy(where, value)}")
        return b""


def _remedy(where: str, value: object) -> str:
    if "callbacks" in where:
        return "set callbacks=None before saving, predictions need none"
    if callable(value) and not hasattr(value, "fit"):
        return "name a scorer by its text, or save search.best_estimator_ alone"
    if hasattr(value, "fit"):
        return "use functions and classes that stand in a module, no lambda"
    return "give it as numbers, text or dates"


def _checked_manifest(file: SafeFile) -> list[dict[str, Any]]:
    """Objects of a file whose manifest is one of ours."""
    manifest = file.manifest
    if manifest.get("format") != FORMAT or type(manifest.get("protocol")) is not int:
        raise file.error("it has another format")
    versions = manifest.get("versions")
    if type(versions) is not dict or any(type(v) is not str for v in versions.values()):
        raise file.error("it lacks the versions that wrote it")
    if manifest["protocol"] > PROTOCOL:
        raise file.error(
            f"it has protocol {manifest['protocol']} and this version reads up to {PROTOCOL}. "
            f"Install sklearn_din>={versions.get('sklearn_din', '?'):.20}"
        )
    if manifest.keys() != MANIFEST_KEYS or manifest["protocol"] < 1:
        raise file.error("its manifest has other parts")
    entries = manifest["objects"]
    if type(entries) is not list or not entries:
        raise file.error("it has no objects")
    names: set[str] = set()
    referred: set[int] = {len(entries) - 1}
    for place, entry in enumerate(entries):
        _check_entry(file, place, entry)
        referred.update(entry["objects"].values())
        names.add(f"{place}.skops" if entry["kind"] == FOREIGN else f"{place}.json")
    arrays = {f"{p}.safetensors" for p, e in enumerate(entries) if e["kind"] != FOREIGN}
    if type(manifest["members"]) is not dict:
        raise file.error("its manifest lacks the members")
    if not names <= manifest["members"].keys() <= names | arrays or len(referred) < len(entries):
        raise file.error("its members are not those of its objects")
    return entries


def _check_entry(file: SafeFile, place: int, entry: Any) -> None:
    if type(entry) is not dict or entry.keys() != {"kind", "objects"}:
        raise file.error(f"object {place} lacks its kind")
    if type(entry["kind"]) is not str or entry["kind"] not in {*KINDS, FOREIGN}:
        raise file.error(f"object {place} has the unknown kind {entry['kind']!r:.60}")
    held = entry["objects"]
    if type(held) is not dict or not all(type(n) is int and 0 <= n < place for n in held.values()):
        raise file.error(f"object {place} must hold objects before it")


def _built(file: SafeFile, entries: Iterable[Mapping[str, Any]], trusted: Sequence[str]) -> Any:
    """Build one object after the other, and return the last."""
    built: list[Any] = []
    for place, entry in enumerate(entries):
        kind = entry["kind"]
        if kind == FOREIGN:
            built.append(_foreign(file, place, trusted))
            continue
        state = _read_state(file, place)
        held = {path: built[number] for path, number in entry["objects"].items()}
        try:
            built.append(KINDS[kind].read(PlainState(state.text, state.arrays, held)))
        except DAMAGES as error:
            raise file.error(f"object {place} is no {kind}, {error}") from error
    return built[-1]


def _read_state(file: SafeFile, place: int) -> PlainState:
    name = f"{place}.safetensors"
    content = file.read(name) if name in file.manifest["members"] else None
    text = file.read(f"{place}.json")
    try:
        arrays = {} if content is None else safetensors.numpy.load(content)
        return PlainState(text.decode("ascii"), arrays)
    except (SafetensorError, *DAMAGES) as error:
        raise file.error(f"object {place} cannot be read, {error}") from error


def _foreign(file: SafeFile, place: int, trusted: Sequence[str]) -> Any:
    name = f"{place}.skops"
    try:
        return read_foreign(file.read(name), trusted=trusted, where=name)
    except ImportError:
        raise
    except Exception as error:  # classes of other packages may raise anything
        raise file.error(f"{name} cannot be read, {error}") from error
