"""Warnings that point at the user's code, and messages that appear only once."""

import logging
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

LIBRARIES = {"sklearn_din", "sklearn", "skorch", "torch", "joblib", "contextlib"}
ADVICE_FROM = 1_000  # training rows: with fewer nothing is logged
FIGURES = re.compile(r"\b[0-9][0-9,.]*")  # which differ from fold to fold; names with digits stay


class Finding(NamedTuple):
    """The result of a check: its name, what was seen, what to do, and of a column its name."""

    name: str
    verdict: str
    advice: str
    column: str = ""

    @property
    def message(self) -> str:
        """Return the finding as the text of a warning."""
        return f"{self.verdict} {self.advice}"


def warn_user(message: str) -> None:
    """Warn at the innermost line that belongs to none of the libraries between it and here."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] in LIBRARIES:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def warn_of(notices: Iterable[str | None], *, once: bool = False) -> None:
    """Warn with each sentence; None is none. ``once``: not again for each fold or request."""
    for notice in filter(None, notices):
        (warn_once if once else warn_user)(notice)


def agree(names: Collection[object], verb: str) -> str:
    """Return names with a verb: "price holds", "price, age hold"."""
    return f"{', '.join(map(str, names))} {verb}{'s' * (len(names) == 1)}"


class _Once:
    """Say each message the first time alone; those about the same differ in figures at most."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._said = say, set[tuple[object, ...]]()

    def __call__(self, message: str, *about: object) -> None:
        key = FIGURES.sub("", message), *about
        if key not in self._said:
            self._say(message)
            self._said.add(key)

    def cache_clear(self) -> None:
        """Forget what was said."""
        self._said.clear()


@contextmanager
def collect_messages() -> Iterator[list[str]]:
    """Collect what is warned of or logged as advice, also what was said before; nothing is shown.

    >>> with collect_messages() as messages:
    ...     warn_user("this")
    ...     log_once("that")
    >>> messages
    ['that', 'this']
    """
    messages, kept = list[str](), [(once, vars(once).copy()) for once in (log_once, warn_once)]
    for once, _ in kept:
        vars(once).update(_say=messages.append, _said=set())
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield messages
        messages += [str(warning.message) for warning in caught]
    finally:
        for once, state in kept:
            vars(once).update(state)


log_once = _Once(lambda message: logging.getLogger("sklearn_din").warning(message))
"""Log advice the first time that it is given: not for each part of a fit, nor for each request."""
warn_once = _Once(warn_user)
"""Warn the first time: not for each part of a fit, nor for each request that is answered."""


def report_again() -> None:
    """Let a fit report each of its findings, also those that an earlier fit has reported."""
    warn_once.cache_clear()
    log_once.cache_clear()
