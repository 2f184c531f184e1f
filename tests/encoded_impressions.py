"""Encoded impressions of a few rows, with every kind of field, and labels for them."""

from dataclasses import replace

import numpy as np
import torch

from sklearn_din import EncodedFeatures, Field, Schema
from sklearn_din.features import Behaviour, Ragged


def make_schema(*, numbers=(), max_length=5):
    fields = (
        Field("price", "numeric"),
        Field("item", "categorical", "item", 12),
        Field("category", "categorical", "category", 6),
        Field("hist_item", "history", "item", 12),
        Field("hist_category", "history", "category", 6),
        *(Field(name, "numeric_history") for name in numbers),
        Field("tags", "history", "tags", 5),
    )
    pair = ("hist_item", "hist_category"), ("item", "category")
    clicks = Behaviour("hist_item+hist_category", *pair, numbers, max_length)
    return Schema(fields, (clicks, Behaviour("tags", ("tags",), (None,), max_length=max_length)))


def make_impressions(n=8, seed=0, *, numbers=(), max_length=5):
    """Impressions with every kind of field; the first one has no history at all."""
    rng = np.random.default_rng(seed)
    schema = make_schema(numbers=numbers, max_length=max_length)
    lengths = rng.integers(0, max_length + 1, size=n).astype(np.int32)
    lengths[0] = 0
    n_events = int(lengths.sum())
    events = {
        "hist_item": rng.integers(1, 12, n_events).astype(np.int32),
        "hist_category": rng.integers(1, 6, n_events).astype(np.int32),
        **{name: rng.normal(size=n_events).astype(np.float32) for name in numbers},
    }
    tag_lengths = rng.integers(0, 3, size=n).astype(np.int32)
    tags = rng.integers(1, 5, int(tag_lengths.sum())).astype(np.int32)
    columns = {
        "price": rng.normal(size=n).astype(np.float32),
        "item": rng.integers(1, 12, n).astype(np.int32),
        "category": rng.integers(1, 6, n).astype(np.int32),
    }
    behaviours = {("hist_item", "hist_category"): Ragged.from_lengths(events, lengths)}
    behaviours["tags",] = Ragged.from_lengths({"tags": tags}, tag_lengths)
    return EncodedFeatures(schema, columns, behaviours)


def make_prices(n=8, seed=0, *, max_length=5):
    """Impressions whose prices are compared with those of their events; some are missing."""
    X = make_impressions(n, seed, numbers=("seconds", "hist_price"), max_length=max_length)
    candidates = {"hist_price": "price"}
    fields = [replace(f, candidate=candidates.get(f.name, "")) for f in X.schema.fields]
    missing = Field("price_missing", "numeric", what="missing", of=("price",))
    schema = replace(X.schema, fields=(*fields, missing))
    X.behaviours["hist_item", "hist_category"].columns["hist_price"][::5] = np.nan
    is_missing = (np.arange(n) % 4 == 2).astype(np.float32)
    columns = X.columns | {"price": X.columns["price"] * (1 - is_missing)}
    return EncodedFeatures(schema, columns | {"price_missing": is_missing}, X.behaviours)


def far(X):
    """The same impressions with numbers, of their own and of their events, that no other has."""
    numbers = [f.name for f in X.schema.fields if f.kind == "numeric" and f.what != "missing"]
    columns = X.columns | {name: 40 * X.columns[name] for name in numbers}
    behaviours = dict(X.behaviours)
    for histories, ragged in X.behaviours.items():
        own = {n: 40 * v if v.dtype == np.float32 else v for n, v in ragged.columns.items()}
        behaviours[histories] = ragged.over(own, ragged.spans)
    return X._replace(columns=columns, behaviours=behaviours)


def narrow(schema):
    """Ranges beyond which many numbers of made impressions are."""
    return dict.fromkeys(schema.names("numeric", "numeric_history"), (-0.3, 0.2))


def make_labels(X, seed=0):
    """Click where the candidate's category is in the history, most of the time."""
    rng = np.random.default_rng(seed)
    ids, mask = X["hist_category"], X["hist_category_mask"]
    clicked = ((ids == X["category"][:, None]) & mask).any(axis=1)
    return np.where(rng.random(len(X)) < 0.1, ~clicked, clicked).astype(int)


def weights_of(fitted):
    """All weights of an estimator's network, or of a net's, as one vector."""
    parameters = fitted.module_.parameters()
    return torch.nn.utils.parameters_to_vector(parameters).detach().clone()


def make_answers(n=8, seed=0):
    """Exercises shown to students; past ones with the answer and the seconds it took."""
    histories = ("hist_item", "hist_answer", "hist_category")
    fields = (
        Field("item", "categorical", "item", 9),
        Field("category", "categorical", "category", 5),
        Field("hist_item", "history", "item", 9),
        Field("hist_answer", "history", "hist_answer", 4),
        Field("hist_category", "history", "category", 5),
        Field("hist_seconds", "numeric_history"),
    )
    candidates = ("item", None, "category")
    answered = Behaviour("+".join(histories), histories, candidates, ("hist_seconds",), 4)
    rng = np.random.default_rng(seed)
    lengths = (np.arange(n) % 5).astype(np.int32)
    n_ids = {field.name: field.n_ids for field in fields if field.has_ids}
    events = {name: rng.integers(1, n_ids[name], lengths.sum(), np.int32) for name in histories}
    events["hist_seconds"] = rng.normal(size=lengths.sum()).astype(np.float32)
    columns = {name: rng.integers(1, n_ids[name], n, np.int32) for name in ("item", "category")}
    behaviours = {histories: Ragged.from_lengths(events, lengths)}
    return EncodedFeatures(Schema(fields, (answered,)), columns, behaviours)


def turning_catalogue(X):
    """The same impressions, whose items come up one after the other: ids of some are hidden."""
    key = ("hist_item", "hist_category")
    events = X.behaviours[key].columns.items()
    events = {name: np.ones_like(its) if its.dtype == np.int32 else its for name, its in events}
    behaviours = X.behaviours | {key: Ragged(events, X.behaviours[key].spans)}
    columns = X.columns | {"item": (2 + np.arange(len(X)) // 24).astype("int32")}
    return EncodedFeatures(X.schema, columns, behaviours, times=np.arange(len(X)))
