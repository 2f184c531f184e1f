"""What the encoder says of columns that it takes differently from how they look: once, at fit."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import pandas as pd

from sklearn_din._log_once import ADVICE_FROM, log_once
from sklearn_din.encoding.events import HistoryTotals
from sklearn_din.encoding.single_values import Codes

MANY_ROWS = 100
NEARLY_ALL = 0.9
OLDER_SHARE = 0.1
SEEN_VALUES = 1000  # distinct values that are looked at
DECIMAL = re.compile(r"[-+]?[0-9]*[.][0-9]+([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+")
NUMBER = re.compile(r"[-+]?[0-9]+([.][0-9]*)?([eE][-+]?[0-9]+)?|[-+]?[.][0-9]+")
DATE = re.compile(
    r"[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}([T ].*)?|[0-9]{1,2}[/.][0-9]{1,2}[/.][0-9]{4}.*"
)
LIST = re.compile(r"[\[(].*[\])]", re.DOTALL)


def say(notices: Iterable[str]) -> None:
    """Warn once with each sentence."""
    for notice in notices:
        warnings.warn(notice, UserWarning, stacklevel=2)


def empty_histories(totals: Mapping[tuple[str, ...], HistoryTotals]) -> list[str]:
    """Behaviours of which no training row has an event."""
    return [
        f"every history of {'+'.join(names)} is empty at fit: nothing can be learnt from it. Do "
        "the users of these rows have earlier events?"
        for names, events in totals.items()
        if not events.kept
    ]


def log_older_events(
    totals: Mapping[tuple[str, ...], HistoryTotals], *, max_length: int, n_rows: int
) -> None:
    """Say which behaviours lose many events to ``max_length``."""
    for names, events in totals.items():
        if n_rows >= ADVICE_FROM and events.older > OLDER_SHARE * (events.kept + events.older):
            log_once(
                f"max_length={max_length} keeps the newest {max_length} events of each history, "
                f"and more than a tenth of those of {'+'.join(names)} are older. Where they may "
                "tell what comes next, name a larger one: time and memory grow with the events."
            )


def odd_ids(
    codes: Mapping[str, Codes], frame: pd.DataFrame, *, chosen: Collection[str]
) -> list[str]:
    """Columns that became ids by rule and hold numbers, dates, lists or row numbers.

    Parameters
    ----------
    codes : mapping of str to (codes, values)
        Columns of ids.
    frame : DataFrame
        Where they come from.
    chosen : collection of str
        Columns that the user called ids: nothing is said of them.
    """
    notices = []
    for name, (_, values) in codes.items():
        if name in chosen:
            continue
        if _number_the_rows(frame[name], values):
            notices.append(
                f"{name} has {len(values)} different integers in {len(frame)} rows and is "
                f"encoded as ids. Name it in drop=[{name!r}] if it only numbers the rows, in "
                f"numeric=[{name!r}] if it is a quantity, in categorical to keep it as it is."
            )
        looks_like = _text_that_looks_like(values)
        if looks_like:
            notices.append(
                f"{name} holds {looks_like[0]} as text, {looks_like[1]!r:.40}, and is encoded as "
                f"ids. {looks_like[2]} Name it in categorical to keep it as it is."
            )
    return notices


def _number_the_rows(column: pd.Series, values: np.ndarray) -> bool:
    is_integer = pd.api.types.is_integer_dtype(column.dtype)
    return is_integer and len(values) > max(MANY_ROWS, NEARLY_ALL * len(column))


def _text_that_looks_like(values: np.ndarray) -> tuple[str, str, str] | None:
    """What text seems to be, an example, and what to do about it; None where it is plain text."""
    seen = values[:SEEN_VALUES].tolist()
    if not seen or not all(isinstance(value, str) for value in seen):
        return None
    texts = [value.strip() for value in seen]
    if all(map(NUMBER.fullmatch, texts)) and any(map(DECIMAL.fullmatch, texts)):
        example = next(text for text in texts if DECIMAL.fullmatch(text))
        return "numbers", example, "Convert it with pd.to_numeric."
    if all(map(DATE.fullmatch, texts)):
        return "dates", texts[0], "Convert it with pd.to_datetime (dates are not used), or drop it."
    if all(map(LIST.fullmatch, texts)):
        return "lists", texts[0], "Read histories from Parquet, or make lists of the cells."
    return None
