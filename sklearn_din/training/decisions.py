"""Table of what a fit has chosen by itself: each decision, its value and the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sklearn_din.features.schema import Schema
from sklearn_din.neighbours.pairs import LEAST_ITEMS, histories_with_candidate
from sklearn_din.network.number_bins import LEAST_ROWS, ROWS_OF_ELAPSED, UNREAD
from sklearn_din.training.early_stopping import best_check
from sklearn_din.utils.text_table import text_table

if TYPE_CHECKING:
    from sklearn_din.training.net import DINNet

Decision = tuple[str, str, str]  # what is decided, the value, and the reason
DIVISORS = {None: "1", "sqrt": "sqrt(length)", "softmax": "softmax"}
ENDS = {
    "max_epochs": "max_epochs",
    "patience": "early stopping",
    "callback": "a callback",
    "user": "Ctrl-C",
}


def decisions_table(net: DINNet) -> str:
    """Return the automatic decisions of the latest fit as a table."""
    rows = [*_of_network(net), *_of_training(net), *_of_output(net)]
    return text_table(("decision", "value", "reason"), rows)


def neighbours_text(net: DINNet) -> tuple[str, str]:
    """Return for which candidates a network has item neighbours, and why, or why none."""
    pairs, schema = net.neighbours_.pairs, net.module_.schema
    if pairs:
        found = dict.fromkeys((pair.candidate, pair.what_is_off) for pair in pairs)
        texts = [f"for {name} ({off})" if off else f"for {name}" for name, off in found]
        return ", ".join(texts), f"neighbours={net.neighbours!r}"
    why = "neither user nor time is named, HistorySequenceEncoder(user=..., time=...)"
    if not histories_with_candidate(schema):
        why = f"no history has a candidate with {LEAST_ITEMS} ids or more"
    elif net.neighbours is None:
        why = "neighbours=None"
    elif net.is_published:
        why = 'interest="paper" has none unless neighbours names an order'
    return "off", why


def epochs_text(net: DINNet) -> str:
    """Return how many epochs a net was trained for, without the pass over the validation rows."""
    n_refits = sum(bool(epoch.get("is_refit")) for epoch in net.history)
    n_epochs = net.n_epochs_ - n_refits
    text = f"{n_epochs} epoch{'s' * (n_epochs != 1)}"
    return f"{text} and a pass over the validation rows" if n_refits else text


def _of_network(net: DINNet) -> Iterator[Decision]:
    options, schema = net.module_.options, net.module_.schema
    interests = net.module_.interest_modules
    if schema.behaviours:
        for interest in interests:
            names = "+".join(interest.behaviour.histories)
            value = f"newest {interest.behaviour.max_length} events"
            yield f"max_length of {names}", value, "the encoder's max_length"
        why = _reason(options, "attention_normalization", f"interest={options['interest']!r}")
        yield "weighted events are divided by", DIVISORS[interests[0].normalization], why
        yield "item neighbours", *neighbours_text(net)
    yield from _of_numbers(net, schema)


def _of_numbers(net: DINNet, schema: Schema) -> Iterator[Decision]:
    options = net.module_.options
    bins, ranges = options["bins"] or {}, options["ranges"] or {}
    if schema.names("numeric"):
        why = f"bins predict labels of other users better, from {LEAST_ROWS:,} rows on"
        if not bins:
            why = f"fewer than {LEAST_ROWS:,} rows, or bins predict no better"
        yield "numbers in bins", _shorten(bins), 'interest="paper"' if net.is_published else why
    levels = {f.name: f.level for f in schema.fields if f.level and not f.candidate}
    if levels:
        yield "running rates", _shorten(levels), "columns of X"
    if schema.offset:
        why = "it predicts training rows better than their base rate"
        if not options["offset"]:
            why = 'interest="paper"' if net.is_published else f"{why}: no"
        yield "offset of the logit", options["offset"] or "none", why
    elapsed = [name for name, level in levels.items() if level.form == "elapsed"]
    if ignored := [name for name in elapsed if ranges.get(name) == UNREAD]:
        why = f"fewer than {ROWS_OF_ELAPSED:,} training rows"
        yield "elapsed times that are ignored", _shorten(ignored), why


def _of_training(net: DINNet) -> Iterator[Decision]:
    for name, (value, reason) in net.decisions_.items():
        yield name, value, reason
    if net.history:
        yield "length of training", epochs_text(net), ENDS[net.stop_reason_]


def _of_output(net: DINNet) -> Iterator[Decision]:
    best = best_check(net.checks_)
    if best is not None and "scales" in best:
        rows = best.get("rows", (0, 0))[1]
        why = f"Platt scaling on {rows:,} validation rows"
        yield "scale of the logits", _figures(best["scales"]), why
        if np.any(best["constants"]):
            why = "the base rate changed in the validation rows"
            yield "constant added to the logits", _figures(best["constants"]), why
    if net.mixture_ is not None:
        yield "weight of the trees", f"{net.mixture_.weight:g}", net.mixture_.why


def _reason(options: Mapping[str, Any], name: str, of_auto: str) -> str:
    return of_auto if options[name] == "auto" else f"{name}={options[name]!r}"


def _figures(values: Any) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def _shorten(names: Any, most: int = 3) -> str:
    names = [*names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "none"
