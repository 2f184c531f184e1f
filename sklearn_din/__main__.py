"""The main job: base model against DIN, cross-validated by user, on the embedded or your own log.

``python -m sklearn_din`` runs on the embedded click log, whose best possible AUC is known.
``python -m sklearn_din log.csv --user U --item I --time T`` runs on a CSV or Parquet log.
``python -m sklearn_din predict MODEL rows.parquet --output scores.parquet`` scores rows.
``python -m sklearn_din serve MODEL --catalogue items.parquet`` answers over HTTP, with a page.
"""

import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from sklearn_din.command_line.options import (
    main_parser,
    read_compare_options,
    read_predict_options,
    read_serve_options,
)

OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")  # messages of torch
STOPPED_BY = 128  # exit status of a program that a signal ended: this plus the signal's number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the main job, ``predict`` or ``serve``; a user's mistake is one line and status 2."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with warnings.catch_warnings(), _clean_up_on_signals():
        warnings.showwarning = _show_warning
        try:
            _run(arguments)
        except (ValueError, TypeError, OSError, ImportError) as error:
            main_parser().error(str(error))
        except (MemoryError, RuntimeError) as error:
            is_of_memory = any(words in str(error).lower() for words in OUT_OF_MEMORY)
            if isinstance(error, RuntimeError) and not is_of_memory:
                raise
            main_parser().error(f"not enough memory: {error}. Give fewer rows, or more memory.")
    return 0


def _run(arguments: Sequence[str]) -> None:
    """Read the options, then import what does the work: ``--help`` and mistakes need no torch."""
    if arguments[:1] == ["predict"]:
        options = read_predict_options(arguments[1:])
        from sklearn_din.command_line.results import score_rows

        score_rows(options)
    elif arguments[:1] == ["serve"]:
        options = read_serve_options(arguments[1:])
        from sklearn_din.command_line.serving import serve

        serve(options)
    else:
        options = read_compare_options(arguments)
        rows = None
        if options.log is not None:
            from sklearn_din.command_line.log_file import read_rows

            rows = read_rows(options)
        from sklearn_din.command_line.results import compare

        compare(options, rows)


@contextmanager
def _clean_up_on_signals() -> Iterator[None]:
    """Leave by an exception on Ctrl-C and SIGTERM: no partial file stays.

    SystemExit, since a training takes KeyboardInterrupt for its own end, and the next fold would
    begin.
    """

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        name = signal.Signals(number).name
        print(
            f"ended by {name}: only files that were said to be written are there", file=sys.stderr
        )
        sys.exit(STOPPED_BY + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"note: {' '.join(str(message).split())}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
