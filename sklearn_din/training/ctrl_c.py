"""Whether training was ended by Ctrl-C or by a callback that raised KeyboardInterrupt."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def note_ctrl_c(*, raises: bool = True) -> Iterator[list[int]]:
    """Yield a list that grows by one entry whenever the user presses Ctrl-C.

    skorch's callbacks end a training by raising KeyboardInterrupt, as Ctrl-C does: the exception
    alone does not say who raised it, the signal does. The handler that was there is called all the
    same and is back afterwards. Python delivers the signal in the main thread only. With
    ``raises=False`` the first Ctrl-C is only noted, for processes that stop at the same step.
    """
    presses: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield presses
        return
    call = handler

    def note(number: int, frame: FrameType | None) -> None:
        presses.append(number)
        if raises or len(presses) > 1:
            call(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield presses
    finally:
        signal.signal(signal.SIGINT, handler)
