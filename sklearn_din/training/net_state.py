"""A trained net as values that files hold, and back: the network anew, and every array checked."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, get_args

import numpy as np
import torch
from skorch.history import History

from sklearn_din.features.schema import Schema
from sklearn_din.module import DIN
from sklearn_din.neighbours.tables import NeighbourTables
from sklearn_din.network.number_bins import check_bins
from sklearn_din.training.early_stopping import CHECK
from sklearn_din.training.growth import can_go_on, moments_of, net_around
from sklearn_din.training.net import DINNet, StopReason
from sklearn_din.training.novelty import Novelty, candidate_columns
from sklearn_din.utils.estimator_state import check_array, check_dict, check_keys
from sklearn_din.utils.plain_values import check_type
from sklearn_din.utils.typed_fields import from_dict

NET = {
    "neighbours",
    "decisions",
    "options",
    "weights",
    "device",
    "stop_reason",
    "n_epochs",
    "history",
    "checks",
    "novelty",
    "mixture",
}
TRAINING = {"moments", "occurrences", "labels", "batch_size", "seed", "order"}
SCALING = "centers", "constants", "scales"  # of a check, by label
OF_CHECK = (*CHECK, *SCALING, "base_loss", "rows", "bins")  # that files keep

_DEVICE: ContextVar[str | None] = ContextVar("_DEVICE", default=None)


@contextmanager
def networks_on(device: str) -> Iterator[None]:
    """Put the networks that are restored meanwhile on this device, wherever they were trained."""
    token = _DEVICE.set(device)
    try:
        yield
    finally:
        _DEVICE.reset(token)


def net_state(net: DINNet) -> dict[str, Any]:
    """Return a trained net, on any device, as a dict of numbers, text, lists and arrays.

    Moments are left out if they are not those of its network.
    """
    module = net.module_
    state = {
        "neighbours": net.neighbours_,
        "decisions": {name: list(texts) for name, texts in net.decisions_.items()},
        "options": dict(module.options),
        "weights": {n: tensor.numpy(force=True) for n, tensor in module.state_dict().items()},
        "device": str(net.device),
        "stop_reason": net.stop_reason_,
        "n_epochs": int(net.n_epochs_),
        "history": [plain_record(epoch) for epoch in net.history],
        "checks": [{n: check[n] for n in OF_CHECK if n in check} for check in net.checks_],
        "novelty": net.novelty_,
        "mixture": net.mixture_,
    }
    return {**state, "training": _training_state(net)} if can_go_on(net) else state


def plain_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers and texts of an epoch, or of a batch, in the history."""
    values = {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in record.items()
    }
    return {key: value for key, value in values.items() if type(value) in (bool, int, float, str)}


def _training_state(net: DINNet) -> dict[str, Any]:
    moments = moments_of(net)
    return {
        "moments": {
            name: {key: tensor.numpy(force=True) for key, tensor in moments[parameter].items()}
            for name, parameter in net.module_.named_parameters()
            if moments.get(parameter)
        },
        "occurrences": dict(net.occurrences_),
        "labels": list(net.labels_),
        "batch_size": int(net.batch_size_),
        "seed": int(net.seed_),
        "order": net.order_,
    }


def restore_net(net: DINNet, state: Any, schema: Schema) -> DINNet:
    """Return a net from what :func:`net_state` wrote; ValueError where that is not one's state.

    ``net`` is not initialized: its parameters are taken over. ``schema`` is that of the rows; that
    of the network has the numbers of item neighbours too.
    """
    check_keys(state, NET, optional={"training"}, what="a network")
    tables = NeighbourTables.from_dict(state["neighbours"], schema)
    options = check_dict(state["options"], what="options")
    module = _module(tables.extend(schema), options, check_dict(state["weights"], what="weights"))
    net.device = _present_device(state["device"])
    restored = net_around(net, module)
    restored.neighbours_ = tables
    restored.decisions_ = _read_decisions(state["decisions"])
    if state["stop_reason"] not in get_args(StopReason):
        raise ValueError(f"training cannot end by {state['stop_reason']!r:.60}.")
    restored.stop_reason_ = state["stop_reason"]
    restored.n_epochs_ = _integer(state["n_epochs"], "n_epochs", least=0)
    if type(state["history"]) is not list:
        raise ValueError("a training's history must be a list.")
    restored.history = History(
        {**check_dict(epoch, what="an epoch"), "batches": []} for epoch in state["history"]
    )
    restored.checks_ = _read_checks(state["checks"])
    restored.novelty_ = _novelty(state["novelty"], schema)
    if state["mixture"] is not None:
        from sklearn_din.training.mixture import Mixture

        restored.mixture_ = from_dict(Mixture, state["mixture"])
        restored.mixture_.check_columns(schema)
    if "training" in state:
        _restore_training(restored, state["training"])
    return restored


def _read_decisions(values: Any) -> dict[str, tuple[str, str]]:
    """Return the automatic decisions of a fit: for each a value and a reason, as text."""
    for name, texts in check_dict(values, what="decisions").items():
        if type(texts) is not list or [*map(type, (name, *texts))] != [str] * 3:
            raise ValueError(f"a decision must have a value and a reason, got {texts!r:.60}.")
    return {name: tuple(texts) for name, texts in values.items()}


def _read_checks(checks: Any) -> list[dict[str, Any]]:
    """Return validation checks, of which some know more than the numbers of ``CHECK``."""
    for check in check_type(checks, list):
        check_keys(check, {*CHECK}, optional={*OF_CHECK}, what="a validation check")
        figures = [check[name] for name in {*CHECK, "base_loss"} & check.keys()]
        for name in SCALING:
            figures += check_type(check.get(name, []), list)
        for each in check_type(check.get("bins", []), list):
            check_keys(each, {"predicted", "observed"}, what="a bin of predictions")
            figures += each.values()
        rows = check_type(check.get("rows", [0, 0]), list)
        are_floats = all(isinstance(figure, float) for figure in figures)
        if not are_floats or [*map(type, rows)] != [int, int]:
            raise ValueError("the validation checks must be columns of floats.")
    return checks


def _restore_training(net: DINNet, values: Any) -> None:
    """Give a net what a later training goes on from."""
    check_keys(values, TRAINING, what="a training's state")
    sizes = net.module_.embeddings.sizes
    net.batch_size_ = _integer(values["batch_size"], "batch_size", least=1)
    net.seed_ = _integer(values["seed"], "seed", least=0)
    if type(values["order"]) is not np.random.RandomState:
        raise ValueError("the order of rows must be a RandomState.")
    net.order_ = values["order"]
    counted = sizes if values["occurrences"] != {} else {}  # counts exist only with L2
    expected = {name: ((n_ids,), 0.0) for name, n_ids in counted.items()}
    net.occurrences_ = _check_arrays(values["occurrences"], expected, "occurrences of")
    labels = values["labels"]
    if type(labels) is not list or len(labels) not in (2, 2 * len(net.target.after)):
        raise ValueError("labels must be the numbers of rows without and with a click.")
    net.labels_ = tuple(_integer(n, "a number of rows", least=0) for n in labels)
    _restore_moments(net, check_dict(values["moments"], what="moments"))


def _restore_moments(net: DINNet, moments: Mapping[str, Any]) -> None:
    embeddings, parameters = net.module_.embeddings, dict(net.module_.named_parameters())
    tables = {f"embeddings.tables.{width}": width for width in embeddings.tables}
    if not moments.keys() <= parameters.keys():
        raise ValueError("moments must be those of the network's parameters.")
    for name, of_parameter in moments.items():
        shape = tuple(parameters[name].shape)
        expected = {"step": ((), 0.0), "exp_avg": (shape, -np.inf), "exp_avg_sq": (shape, 0.0)}
        if name in tables:
            per_vocabulary = (len(embeddings.vocabularies_of(tables[name])),), 0.0
            expected = {"total": per_vocabulary, "share": per_vocabulary}
            expected["square"] = shape[:1], 0.0
        arrays = _check_arrays(of_parameter, expected, f"moments of {name!r:.80}:")
        net.optimizer_.state[parameters[name]] = {
            key: torch.from_numpy(np.array(array)).to(net.device) for key, array in arrays.items()
        }


def _novelty(values: Any, schema: Schema) -> Novelty:
    novelty, sizes = from_dict(Novelty, values), schema.vocabulary_sizes
    if not novelty.shares.keys() <= set(candidate_columns(schema)):
        raise ValueError("shares of new ids must be those of candidates.")
    if not all(0.0 <= share <= 1.0 for share in novelty.shares.values()):
        raise ValueError(f"shares of new ids must be shares, got {dict(novelty.shares)!r:.60}.")
    for name, moments in novelty.first_seen.items():
        if name not in sizes:
            raise ValueError("moments of first rows must be those of vocabularies.")
        what = f"the moments of first rows of {name!r:.60}"
        check_array(moments, dtype="int64", shape=(sizes[name],), what=what)
    least = {"reach": 1 if novelty.first_seen else 0, "start": 0, "n_rows": 0}
    for name, lowest in least.items():
        _integer(getattr(novelty, name), name, least=lowest)
    return novelty


def _module(schema: Schema, options: dict[str, Any], weights: dict[str, Any]) -> DIN:
    """Build the network without memory of its own, then give it the weights, which must fit."""
    _check_size(schema, options, list(weights.values()))
    with torch.device("meta"):
        module = DIN(schema, **options)
    expected = {name: (tuple(w.shape), -np.inf) for name, w in module.state_dict().items()}
    arrays = _check_arrays(weights, expected, "weights")
    # Read-only memory is copied.
    writable = {name: a if a.flags.writeable else np.array(a) for name, a in arrays.items()}
    tensors = {name: torch.from_numpy(array) for name, array in writable.items()}
    module.load_state_dict(tensors, assign=True)
    return module.eval()


def _check_size(schema: Schema, options: dict[str, Any], weights: list[Any]) -> None:
    """Raise where options name more layers or labels than there are weights."""
    hidden, attention = (options.get(name) for name in ("hidden_units", "attention_units"))
    after: Any = options.get("after")
    is_plain = type(after) is tuple and all(n is None or type(n) is int for n in after)
    if not is_plain or not 0 < len(after) <= len(weights):
        raise ValueError(f"a network's labels cannot come after {after!r:.60}.")
    shares: Any = options.get("position_shares")
    if type(shares) is not tuple or any(type(share) is not float for share in shares):
        raise ValueError(f"shares of positions must be numbers, got {shares!r:.60}.")
    check_bins(options.get("bins"), options.get("ranges"), schema)
    if options.get("offset") not in ("", schema.offset):
        raise ValueError(f"the offset must be a column of the rows, got {options['offset']!r:.60}.")
    if type(hidden) is not tuple or type(attention) is not tuple:
        raise ValueError(f"widths must be tuples, got {hidden!r:.60} and {attention!r:.60}.")
    n_units = sum(not behaviour.is_bag for behaviour in schema.behaviours)
    n_units *= options.get("pooling") == "attention"
    if len(hidden) + len(attention) * n_units > len(weights):
        raise ValueError("the options name a larger network than there are weights.")


def _present_device(device: object) -> str:
    """Return the device for the network: the requested one, its own, or the CPU."""
    wished = _DEVICE.get()
    if wished is not None:
        return wished
    if type(device) is not str:
        raise ValueError(f"a device must be text, got {device!r:.60}.")
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        warnings.warn(
            f"the classifier was trained on {device!r}, which this machine lacks: it is on the "
            "CPU now.",
            UserWarning,
            stacklevel=2,
        )
        return "cpu"
    return device


def _integer(value: object, name: str, *, least: int) -> int:
    if type(value) is not int or value < least:
        raise ValueError(f"{name} must be an integer from {least}, got {value!r:.60}.")
    return value


def _check_arrays(
    values: object, expected: Mapping[str, tuple[tuple[int, ...], float]], what: str
) -> dict[str, np.ndarray]:
    """Return finite float32 arrays by name, each of its shape and from its least number on."""
    if type(values) is not dict or values.keys() != expected.keys():
        raise ValueError(f"{what} must be there for each of {sorted(expected)[:5]}, no others.")
    for name, (shape, least) in expected.items():
        text = f"{what} {name!r:.80}"
        check_array(values[name], dtype=np.float32, shape=shape, what=text, least=least)
    return values
