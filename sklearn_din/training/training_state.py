"""Where a training stopped, as plain arrays: what a later training needs to go on from there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sklearn_din.training.novelty import Novelty

STATE = {"rows", "dense", "occurrences", "batch_size", "seed", "order", "hiding"}
HIDING = {"shares", "columns", "patterns", "frequencies"}


class RowMoments(NamedTuple):
    """Second moments that the embeddings' optimizer keeps of one vocabulary.

    Parameters
    ----------
    square : ndarray of shape (n_ids,), float32
        Of each id.
    total, share : float
        Their quotient is the vocabulary's: :class:`sklearn_din.training.optim.RowwiseAdam`.
    """

    square: np.ndarray
    total: float
    share: float


class DenseMoments(NamedTuple):
    """Adam's moments of one dense parameter.

    Parameters
    ----------
    step : float
        Steps so far.
    mean, square : ndarray, float32
        First and second moment, of the parameter's shape.
    """

    step: float
    mean: np.ndarray
    square: np.ndarray


@dataclass(frozen=True, eq=False)
class TrainingState:
    """What a training leaves behind beside its weights. It is never written to.

    Parameters
    ----------
    rows : dict of str to RowMoments
        By vocabulary.
    dense : dict of str to DenseMoments
        By parameter name.
    occurrences : dict of str to ndarray of shape (n_ids,), float32
        By vocabulary: how often each id occurred in all training rows so far. Empty where there
        was no L2 on embeddings.
    batch_size : int
        Rows per training step: the moments are those of gradients of such batches.
    seed : int
        Of torch in that training. The next training's is derived from it.
    order : RandomState
        Draws the order of the next rows.
    hiding : Novelty or None
        Which candidates' ids each training step hides; ``known`` is empty. None: none.
    """

    rows: Mapping[str, RowMoments]
    dense: Mapping[str, DenseMoments]
    occurrences: Mapping[str, np.ndarray]
    batch_size: int
    seed: int
    order: np.random.RandomState
    hiding: Novelty | None

    def fits(self, sizes: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether it is of a network with these numbers of ids and these dense parameters."""
        own_sizes = {name: len(its.square) for name, its in self.rows.items()}
        own_shapes = {name: its.mean.shape for name, its in self.dense.items()}
        return own_sizes == dict(sizes) and own_shapes == dict(shapes)

    def next_seeds(self) -> tuple[int, int]:
        """Seeds of new rows and of torch in the next training."""
        first, second = np.random.SeedSequence(self.seed).generate_state(2)
        return int(first), int(second)

    def to_plain(self) -> dict[str, Any]:
        """Write it as a dict of numbers and arrays."""
        return {
            "rows": {name: moments._asdict() for name, moments in self.rows.items()},
            "dense": {name: moments._asdict() for name, moments in self.dense.items()},
            "occurrences": dict(self.occurrences),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "order": self.order,
            "hiding": None if self.hiding is None else _hiding_state(self.hiding),
        }


def state_from_plain(
    values: object,
    sizes: Mapping[str, int],
    shapes: Mapping[str, tuple[int, ...]],
    columns: Collection[str],
) -> TrainingState:
    """Read what ``to_plain`` wrote.

    Parameters
    ----------
    values : dict
    sizes : dict of str to int
        Ids of each vocabulary.
    shapes : dict of str to tuple of int
        Of the dense parameters.
    columns : collection of str
        Candidate columns, whose ids may be hidden.

    Raises
    ------
    ValueError
        If it is not the state of a training of that network.
    """
    state = _items(values, STATE, "a training's state")
    rows = _named(state["rows"], sizes.keys(), "moments of ids")
    dense = _named(state["dense"], shapes.keys(), "moments of parameters")
    wanted = sizes.keys() if state["occurrences"] != {} else set()
    occurrences = _named(state["occurrences"], wanted, "occurrences")
    for name, count in occurrences.items():
        _check_array(count, (sizes[name],), f"occurrences of {name!r:.60}", least=0.0)
    for name, least in (("batch_size", 1), ("seed", 0)):
        if type(state[name]) is not int or state[name] < least:
            raise ValueError(f"{name} must be an integer from {least}, got {state[name]!r:.60}.")
    if type(state["order"]) is not np.random.RandomState:
        raise ValueError("the order of rows must be a RandomState.")
    return TrainingState(
        rows={name: _row_moments(its, sizes[name]) for name, its in rows.items()},
        dense={name: _dense_moments(its, shapes[name]) for name, its in dense.items()},
        occurrences=occurrences,
        batch_size=state["batch_size"],
        seed=state["seed"],
        order=state["order"],
        hiding=None if state["hiding"] is None else _hiding(state["hiding"], columns),
    )


def _hiding_state(novelty: Novelty) -> dict[str, Any]:
    return {
        "shares": dict(novelty.shares),
        "columns": list(novelty.known),
        "patterns": novelty.patterns,
        "frequencies": novelty.frequencies,
    }


def _hiding(values: object, columns: Collection[str]) -> Novelty:
    its = _items(values, HIDING, "hidden ids")
    shares = _named(its["shares"], columns, "shares of new ids")
    for share in shares.values():
        _check_number(share, "a share of new ids")
    hidden, patterns, frequencies = its["columns"], its["patterns"], its["frequencies"]
    if type(hidden) is not list or not set(map(str, hidden)) <= shares.keys():
        raise ValueError("the columns of hidden ids must be candidates.")
    is_array = type(patterns) is np.ndarray and patterns.dtype == bool and patterns.ndim == 2
    if not is_array or patterns.shape[1] != len(hidden) or len(set(hidden)) < len(hidden):
        raise ValueError("hidden ids must have patterns of all their columns.")
    is_array = type(frequencies) is np.ndarray and frequencies.dtype == np.float64
    if not is_array or frequencies.shape != (len(patterns),) or not (frequencies >= 0).all():
        raise ValueError("each pattern of hidden ids must have a frequency.")
    if not np.isclose(frequencies.sum(), 1.0):
        raise ValueError("the frequencies of hidden ids must sum to one.")
    known = dict.fromkeys(hidden, np.zeros(0, dtype=bool))
    return Novelty(shares, known, patterns, frequencies)


def _row_moments(values: object, n_ids: int) -> RowMoments:
    its = _items(values, set(RowMoments._fields), "moments of ids")
    _check_array(its["square"], (n_ids,), "moments of ids", least=0.0)
    for name in ("total", "share"):
        _check_number(its[name], name)
    return RowMoments(**its)


def _dense_moments(values: object, shape: tuple[int, ...]) -> DenseMoments:
    its = _items(values, set(DenseMoments._fields), "moments of parameters")
    _check_number(its["step"], "step")
    _check_array(its["mean"], shape, "first moments")
    _check_array(its["square"], shape, "second moments", least=0.0)
    return DenseMoments(**its)


def _items(values: object, keys: set[str], what: str) -> dict[str, Any]:
    if type(values) is not dict or values.keys() != keys:
        raise ValueError(f"{what} must have the parts {', '.join(sorted(keys))}.")
    return values


def _named(values: object, names: Any, what: str) -> dict[str, Any]:
    if type(values) is not dict or values.keys() != set(names):
        raise ValueError(f"{what} must be there for each of {sorted(names)[:5]}.")
    return values


def _check_array(
    array: object, shape: tuple[int, ...], what: str, *, least: float = -np.inf
) -> None:
    if type(array) is not np.ndarray or array.dtype != np.float32 or array.shape != shape:
        raise ValueError(f"{what} must be float32 of shape {shape}.")
    if not (np.isfinite(array).all() and (array >= least).all()):
        raise ValueError(f"{what} must be finite and at least {least}.")


def _check_number(value: object, what: str) -> None:
    if type(value) is not float or not 0.0 <= value < np.inf:
        raise ValueError(f"{what} must be a finite float from 0, got {value!r:.60}.")
