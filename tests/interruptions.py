"""Ctrl-C at any moment of a long function, without a clock: at a chosen line of our own code.

``interrupt(function, moment)`` calls a function and sends the signal of Ctrl-C when the
``moment``-th line of the package runs; ``n_lines`` says how many there are. Signals arrive between
lines of Python as well, so each of these moments can happen to a user, and each can be repeated.
Lines of ``with`` do not count: they are traced once more where the block ends, before the context
manager is told, and there Python handles no signal.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from linecache import getline
from pathlib import Path
from types import FrameType

import sklearn_din

PACKAGE = str(Path(sklearn_din.__file__).parent)


def n_lines(function: Callable[[], object]) -> int:
    """Lines of the package that a call runs."""
    return _trace(function, None)[0]


def interrupt(function: Callable[[], object], moment: int) -> BaseException | None:
    """Call a function, interrupt it, and return what it raised."""
    return _trace(function, moment)[1]


def _trace(function: Callable[[], object], moment: int | None) -> tuple[int, BaseException | None]:
    count = 0

    def line(frame: FrameType, event: str, argument: object) -> Callable | None:
        nonlocal count
        if event == "line" and not _begins_with_block(frame):
            count += 1
            if count == moment:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return line

    def call(frame: FrameType, event: str, argument: object) -> Callable | None:
        return line if frame.f_code.co_filename.startswith(PACKAGE) else None

    raised, before = None, sys.gettrace()
    sys.settrace(call)
    try:
        function()
    except BaseException as error:
        raised = error
    finally:
        sys.settrace(before)
    return count, raised


def _begins_with_block(frame: FrameType) -> bool:
    return getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with ")
