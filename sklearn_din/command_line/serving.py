"""The server on the command line: its files, reloaded whenever one is replaced."""

import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import uvicorn
from sklearn.pipeline import Pipeline

from sklearn_din.command_line.options import LOOPBACK, Options, listen, serve_parser
from sklearn_din.command_line.tables import read_log, read_table
from sklearn_din.inspection.fitted import classifier_of
from sklearn_din.server.answers import Answers, user_and_time
from sklearn_din.server.app import create_app
from sklearn_din.server.connections import BACKLOG, BoundedProtocol
from sklearn_din.server.levels import tell_rows
from sklearn_din.server.state import LOGGER, State
from sklearn_din.server.store import Store

if TYPE_CHECKING:
    from sklearn_din.command_line.study import Study  # which imports torch

SECONDS_TO_STOP = 4


def serve(options: Options) -> None:
    """Answer requests by the files until Ctrl-C or SIGTERM."""
    files = [options.model, options.catalogue, *([options.history] if options.history else [])]
    store = Store(options.store)
    if store.url is not None:
        print(f"posted events are kept in {store.name}: personal data of the users", flush=True)
    print(f"loading {', '.join(map(str, files))}", flush=True)
    state = State(lambda: load_answers(options), files, store, logs_shown=options.log_shown)
    run(state, options)


def serve_study(study: "Study", model: Pipeline, port: int) -> None:
    """Show what the main job has fitted."""
    clicks = study.X.loc[study.y == 1, study.roles.columns]
    answers = Answers(model, study.catalogue, clicks)
    defaults = {a.dest: a.default for a in serve_parser()._actions if a.dest != "help"}
    run(State(lambda: answers), Options(**defaults | {"port": port}))


def load_answers(options: Options) -> Answers:
    """Read the model, the catalogue and the log of what users did."""
    catalogue = read_table(options.catalogue, [], options)
    if options.model.suffix == ".onnx":  # torch is not imported
        from sklearn_din.serving.onnx_model import load_onnx

        model, history = load_onnx(options.model), None
    else:
        from sklearn_din.saving import load

        model, history = load(options.model), None
    chosen: dict[str, Any] = {"label": options.label, "shortlist": options.shortlist}
    if options.history is not None:
        history = _read_history(options, *user_and_time(model))
        has_labels = hasattr(classifier_of(model, purpose="serve"), "label_names_")
        if options.label_column in history and not has_labels:  # what came of each row is known
            chosen["label"], is_click = None, _read_clicks(history, options)
            model, history = tell_rows(model, history, is_click), history[is_click]
    chosen["now"] = options.now
    shown = {"title": options.title, "image": options.image, "folder": options.catalogue.parent}
    return Answers(model, catalogue, history, **chosen, **shown)


def run(state: State, options: Options) -> None:
    """Listen until a signal comes; requests that have begun are answered."""
    if "torch" in sys.modules:  # not for an ONNX file
        sys.modules["torch"].set_num_threads(1)  # several requests share the processors
        print("an ONNX file of this model (export_onnx) answers more requests per second")
    host, is_own = options.host, options.host in LOOPBACK
    app = create_app(
        state,
        token=options.token or "",
        protects_reading=not is_own and not options.public,
        hosts=[*options.allowed_host, *(LOOPBACK if is_own else ())],
    )
    listening = listen(host, options.port)
    # Answers leave at once: asyncio says so only where a socket names its protocol.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    log = state.answers.histories
    if log is not None:
        what = "the clock's"
        if not log.clock.is_live:
            what = f"just after the log's newest event, {log.clock.show(log.clock.newest)}: what "
            what += "is posted later counts for its own user alone, unless --now clock"
        print(f"now is {what} (--now)")
    if not is_own:
        print("nothing is encrypted: put a proxy with HTTPS in front")
    name = f"[{host}]" if ":" in host else host
    print(
        f"the page: http://{name}:{listening.getsockname()[1]}/ (routes: /docs; Ctrl-C ends it)",
        flush=True,
    )
    _log_to_stderr()
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn stops gently, then raises them again
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        backlog=BACKLOG,
        root_path=options.root_path,
        timeout_graceful_shutdown=SECONDS_TO_STOP,
        log_level="warning",
        access_log=False,
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[listening])
    # C++ aborts a process whose threads Python ends in it
    if state.loading.is_alive() or state.writing.is_alive():
        sys.stdout.flush()
        os._exit(0)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    form = "%(asctime)s %(levelname)s %(message)s"
    handler.setFormatter(logging.Formatter(form, "%Y-%m-%dT%H:%M:%S%z"))
    for name in (LOGGER.name, "uvicorn.error"):
        logging.getLogger(name).addHandler(handler)
    LOGGER.setLevel(logging.INFO)


def _read_clicks(history: pd.DataFrame, options: Options) -> np.ndarray:
    """Return which rows of a history are clicks, by ``--label``."""
    column, condition = history[options.label_column], options.label_condition
    if condition is not None:
        return condition.holds(condition.read(column, drop_bad=options.drop_bad))
    others = column[~column.isin([0, 1])].tolist()
    if others:
        raise ValueError(
            f"--label {options.label} must hold 1 for clicks and 0 for others, got {others[0]!r} "
            f"in {options.history}. Give a condition, such as --label "
            f"'{options.label}=={others[0]}'."
        )
    return (column == 1).to_numpy()


def _read_history(options: Options, user: str | None, time: str | None) -> pd.DataFrame:
    """Return the log with ids and times as the main job reads them."""
    assert options.history is not None
    if user is None or time is None:
        raise ValueError(
            "--history needs a model that knows the columns of user and time: "
            "HistorySequenceEncoder(user=..., time=...), or a HistoryBuilder as its first step."
        )
    path, condition = options.history, options.label_condition
    label = [] if condition is None else [condition.column]
    log = read_table(path, [user, time, *label], options)
    return read_log(log, path, options, needed=[user, time], ids=[user], times=[time])
