"""The server on the command line: its files, reloaded whenever one is replaced."""

import logging
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import uvicorn
from sklearn.pipeline import Pipeline

from sklearn_din.command_line.conditions import keep_rows
from sklearn_din.command_line.options import LOOPBACK, Options, listen
from sklearn_din.command_line.tables import read_log, read_table
from sklearn_din.server.answers import Answers, user_and_time
from sklearn_din.server.app import create_app
from sklearn_din.server.state import LOGGER, State

if TYPE_CHECKING:
    from sklearn_din.command_line.study import Study  # which imports torch

SECONDS_TO_STOP = 10
CALIBRATION_BINS = 10  # of as many rows each


def serve(options: Options) -> None:
    """Answer requests by the files until Ctrl-C or SIGTERM."""
    files = [options.model, options.catalogue, *([options.history] if options.history else [])]
    state = State(lambda: load_answers(options), files)
    run(state, host=options.host, port=options.port, token=options.token)


def serve_study(study: "Study", model: Pipeline, probability: np.ndarray, port: int) -> None:
    """Show what the main job has fitted, beside the cross-validated probability of each row."""
    clicks = study.X.loc[study.y == 1, study.roles.columns]
    answers = Answers(model, study.catalogue, clicks)
    in_order = np.argsort(probability)[: np.isfinite(probability).sum()]  # NaN: not tested on
    parts = [p for p in np.array_split(in_order, CALIBRATION_BINS) if len(p)]
    calibration = [
        {"predicted": float(probability[p].mean()), "observed": float(study.y[p].mean())}
        for p in parts
    ]
    state = State(lambda: answers)
    run(state, host=LOOPBACK[0], port=port, token=None, calibration=calibration)


def load_answers(options: Options) -> Answers:
    """Read the model, the catalogue and the log of what users did."""
    catalogue = read_table(options.catalogue, [], options)
    if options.is_onnx:  # torch is not imported
        from sklearn_din.serving.onnx_model import load_onnx as load
    else:
        from sklearn_din.saving import load
    model, history = load(options.model), None
    if options.history is not None:
        history = _read_history(options, *user_and_time(model))
    chosen: dict[str, Any] = {"label": options.label, "shortlist": options.shortlist}
    shown = {"title": options.title, "image": options.image, "folder": options.catalogue.parent}
    return Answers(model, catalogue, history, **chosen, **shown)


def run(
    state: State,
    *,
    host: str,
    port: int,
    token: str | None,
    calibration: list[dict[str, float]] | None = None,
) -> None:
    """Listen until a signal comes; requests that have begun are answered."""
    if "torch" in sys.modules:  # not for an ONNX file
        sys.modules["torch"].set_num_threads(1)  # several requests share the processors
    hosts = LOOPBACK if host in LOOPBACK else ()
    app = create_app(state, token=token, hosts=hosts, calibration=calibration)
    listening = listen(host, port)
    # Answers leave at once: asyncio says so only where a socket names its protocol.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    name = f"[{host}]" if ":" in host else host
    print(
        f"the page: http://{name}:{listening.getsockname()[1]}/ (routes: /docs; Ctrl-C ends it)",
        flush=True,
    )
    LOGGER.addHandler(logging.StreamHandler())
    LOGGER.setLevel(logging.INFO)
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn stops gently, then raises them again
        signal.signal(number, lambda *_: None)
    quiet: dict[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False}
    config = uvicorn.Config(app, timeout_graceful_shutdown=SECONDS_TO_STOP, **quiet)
    uvicorn.Server(config).run(sockets=[listening])


def _read_history(options: Options, user: str | None, time: str | None) -> pd.DataFrame:
    """Return the log with ids and times as the main job reads them."""
    assert options.history is not None
    if user is None or time is None:
        raise ValueError(
            "--history needs a model that knows the columns of user and time: "
            "HistorySequenceEncoder(user=..., time=...), or a HistoryBuilder as its first step."
        )
    path, names = options.history, [user, time, *(c.column for c in options.where)]
    log = read_table(path, names, options)
    log = keep_rows(log, options.where, path, drop_bad=options.drop_bad)
    return read_log(log, path, options, needed=[user, time], ids=[user], time=time)
