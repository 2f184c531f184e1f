"""The options of the command line, checked before any file is read."""

import argparse
import importlib.util
import math
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from sklearn_din.command_line.conditions import Condition, read_condition

PARQUET = (".parquet", ".pq")
TABLE_SUFFIXES = (*PARQUET, ".csv", ".csv.gz", ".tsv")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SERVE_PACKAGES = ("fastapi", "uvicorn", "prometheus_client")
PORT = 8000
LAST_PORT = 65_535
FOLDS = 3
TOKEN_VARIABLE, STORE_VARIABLE = "SKLEARN_DIN_TOKEN", "SKLEARN_DIN_EVENTS"
DESCRIPTION = """Compare the base model with DIN on the embedded click log, cross-validated by user,
or on the last fifth of a CSV or Parquet log of your own. `python -m sklearn_din predict --help`
shows how a saved model scores rows, `python -m sklearn_din serve --help` how it answers over
HTTP."""


class Options(argparse.Namespace):
    """The options of a command, by the names that its parser declares."""

    @property
    def label_column(self) -> str | None:
        """The column of ``label``, which may be a condition such as ``rating>=4``."""
        condition = self.label_condition
        return self.label if condition is None else condition.column

    @property
    def label_condition(self) -> Condition | None:
        """The label as a condition; None where it is a column of two values."""
        return read_condition(self.label or "")

    @property
    def splits(self) -> list[str]:
        """How rows to test on are held out: "time", "user", or both in this order."""
        by_user = self.log is None or self.folds is not None
        return sorted({*(self.split or (["user"] if by_user else ["time"]))})

    @property
    def events(self) -> list[str]:
        """Columns that become histories."""
        return [self.item, *self.category]

    @property
    def columns(self) -> list[str]:
        """Every column that rows to predict have."""
        return [self.user, self.time, *self.events, *self.context]

    @property
    def told(self) -> list[str]:
        """Columns that are known later."""
        return [*self.outcome, *filter(None, [self.known])]


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line each, without the usage in front."""

    def error(self, message: str) -> NoReturn:
        """Print one line to stderr and leave with status 2."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def main_parser() -> OneLineParser:
    """Return the parser of ``python -m sklearn_din [log]``."""
    parser = OneLineParser(prog="python -m sklearn_din", description=DESCRIPTION)
    parser.add_argument(
        "log",
        nargs="?",
        type=_table,
        help="CSV, JSON, Parquet or a folder of it; embedded log if absent",
    )
    version = importlib.import_module("sklearn_din").__version__
    parser.add_argument("--version", action="version", version=f"sklearn-din {version}")
    add = parser.add_argument_group("columns of the log").add_argument
    add("--user", help="users")
    add("--item", help="items")
    add("--time", help="times: numbers or dates")
    add("--category", nargs="+", default=[], help="what follows from the item")
    add("--context", nargs="+", default=[], help="of the user and the moment")
    add(
        "--label",
        help="clicks: a column of two values, or a condition such as 'rating>=4' or "
        "'behaviour==buy' (others: <=, >, <, !=), also of two columns, 'home>away'; without it "
        "each row is a click",
    )
    add(
        "--outcome",
        nargs="+",
        default=[],
        help="with --label: what came of a row, such as stars, in histories of the memory",
    )
    add("--known", help="with --label: when it and outcomes were known (default: at once)")
    _add_table_options(parser)
    add = parser.add_argument_group("training").add_argument
    add("--negatives", type=_count(1), help="sampled per click (default 4)")
    add(
        "--split",
        choices=("time", "user"),
        nargs="+",
        help="rows to test on: the last fifth in time, held-out users in --folds, or both "
        "(default time, user with --folds)",
    )
    add("--folds", type=_count(2), help=f"folds by user (default {FOLDS})")
    add("--epochs", type=_count(1), help="most epochs of each training")
    add("--seed", type=_count(0), default=0, help="of negatives and training (default 0)")
    add = parser.add_argument_group("results").add_argument
    add(
        "--picture",
        type=Path,
        help="draw the attention to one history into this file, PNG, PDF or SVG",
    )
    add("--save", type=Path, metavar="MODEL", help="DIN fitted on all rows, with its memory")
    add("--output", type=Path, help="cross-validated probability of each row")
    add(
        "--serve",
        type=_count(0, LAST_PORT),
        nargs="?",
        const=PORT,
        metavar="PORT",
        help=f"DIN on a page of this machine, at port {PORT} or another, until Ctrl-C",
    )
    return parser


def serve_parser() -> OneLineParser:
    """Return the parser of ``python -m sklearn_din serve``."""
    parser = OneLineParser(
        prog="python -m sklearn_din serve", description="Rank a catalogue over HTTP, with a page."
    )
    add = parser.add_argument
    add(
        "model", type=_file, help="a file of --save, or of export_onnx: load none that you distrust"
    )
    add("--catalogue", type=_table, required=True, help="the items: CSV, Parquet or a folder of it")
    add("--history", type=_table, help="clicks of users, whose ids may then be asked")
    add("--host", default="127.0.0.1", help="default 127.0.0.1: this machine alone")
    add("--port", type=_count(0, LAST_PORT), default=PORT, help=f"default {PORT}; 0: any")
    add(
        "--token",
        default=os.environ.get(TOKEN_VARIABLE),
        help=f"what writers show; better in the variable {TOKEN_VARIABLE}, which no list of "
        "processes shows",
    )
    add("--public", action="store_true", help="on another host: reading needs no token")
    add(
        "--allowed-host",
        nargs="+",
        default=[],
        metavar="NAME",
        help="the only names by which browsers may ask",
    )
    add("--root-path", default="", help="the path at which a proxy shows it")
    add(
        "--events",
        metavar="FILE",
        dest="store",
        default=os.environ.get(STORE_VARIABLE) or None,
        help="keep posted events in this file of SQLite, or in postgresql://... (extra postgres), "
        f"with a password better in the variable {STORE_VARIABLE}",
    )
    add("--log-shown", action="store_true", help="keep each answer of /rank there, too")
    add(
        "--now",
        choices=("clock", "newest"),
        help="the moment of a request: the clock, or the log's newest event (default: the clock "
        "where the log is being written)",
    )
    add("--title", metavar="COL", help="names of items in the catalogue")
    add("--image", metavar="COL", help="their pictures: files beside the catalogue")
    add(
        "--label",
        help="column of --history that is 1 for clicks and 0 for others, or a condition such as "
        "rating>=4: others are no events, and move levels; of a model of several labels, the one "
        "to rank by",
    )
    add("--shortlist", type=_count(1), help="of a large catalogue, candidates that are scored")
    _add_table_options(parser)
    return parser


def read_compare_options(arguments: Sequence[str]) -> Options:
    """Read and check the options of the main job."""
    parser = main_parser()
    options = parser.parse_args(arguments, Options())
    if options.log is None:
        others = {"log", "folds", "epochs", "seed", "picture", "output"}
        names = [name for name, value in vars(options).items() if value and name not in others]
        if names:
            given = ", ".join(f"--{name.replace('_', '-')}" for name in names)
            raise ValueError(f"{given}: only for a log of your own. Give its path first.")
        options.user = options.item = options.time = ""
    _check_together(options)
    if options.serve is not None:
        check_server(LOOPBACK[0], options.serve)
    outputs = {f"--{name}": getattr(options, name) for name in ("picture", "save", "output")}
    _check_outputs(outputs, inputs=[options.log])
    return options


def read_predict_options(arguments: Sequence[str]) -> Options:
    """Read and check the options of ``predict``."""
    parser = OneLineParser(
        prog="python -m sklearn_din predict", description="Score rows with a saved model."
    )
    parser.add_argument("model", type=_file, help="a file of --save: load none that you distrust")
    parser.add_argument("rows", type=_table, help="CSV, Parquet or a folder of it")
    parser.add_argument("--output", type=Path, required=True, help="the rows and a probability")
    _add_table_options(parser)
    options = parser.parse_args(arguments, Options())
    _check_outputs({"--output": options.output}, inputs=[options.model, options.rows])
    return options


def read_serve_options(arguments: Sequence[str]) -> Options:
    """Read and check the options of ``serve``."""
    options = serve_parser().parse_args(arguments, Options())
    if options.host not in LOOPBACK and not options.token:
        raise ValueError(
            f"--host {options.host} is seen by other machines, so that it needs a --token "
            f"(or the variable {TOKEN_VARIABLE}): any text that only those know who may ask. With "
            "--public, reading needs none."
        )
    check_server(options.host, options.port)
    return options


def check_server(host: str, port: int) -> None:
    """Raise where a package of the server is missing, or it could not listen at the port."""
    absent = [name for name in SERVE_PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise ImportError(
            f"a server needs {', '.join(absent)}, not installed: pip install 'sklearn-din[serve]'."
        )
    try:
        listen(host, port).close()
    except OSError as error:
        raise ValueError(
            f"the server cannot use port {port} of {host}: {error.strerror}. Choose another port; "
            "with --port 0 the system chooses a free one."
        ) from error


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def _add_table_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("reading the file").add_argument
    add("--sep", help="separator of a CSV file; found in its header by default")
    add("--encoding", help="of a CSV file (default utf-8)")
    add("--text", nargs="+", default=[], metavar="COL", help="ids such as 93779.5, read as text")
    add("--time-format", help="such as '%%d.%%m.%%Y %%H:%%M'")
    add(
        "--drop-bad",
        action="store_true",
        help="leave out rows whose item, time or label is missing or cannot be read, and more than "
        "a fifth of the rows without a user",
    )


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise argparse.ArgumentTypeError(f"no file {text}: it {what}")
    return path


def _table(text: str) -> Path:
    path = Path(text)
    if path.is_dir() and not any(file.suffix in PARQUET for file in path.rglob("*")):
        raise argparse.ArgumentTypeError(f"no Parquet file in the folder {text}")
    return path if path.is_dir() else _file(text)


def _count(least: int, most: float = math.inf) -> Callable[[str], int]:
    limits = f"of at least {least}" if most == math.inf else f"from {least} to {most}"

    def whole_number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number {limits}, got {text!r}")
        return int(text)

    return whole_number


def _check_together(options: Options) -> None:
    if options.label is not None and options.negatives is not None:
        raise ValueError(
            "--negatives is for a log of clicks, beside which negatives are sampled, but --label "
            "says that the log has rows without a click. Give one of the two."
        )
    if options.told and options.label is None:
        raise ValueError("--outcome and --known need --label, which says what came of each row.")
    names = [options.user, options.item, options.time, *options.category, *options.context]
    told = [name for name in options.told if name != options.label_column]
    names = [name for name in [*names, *told, options.label_column] if name]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ValueError(f"a column has one role, got {twice} in several options.")
    taken = {"clicked", "probability"}.intersection(names)
    if taken and options.output is not None:
        raise ValueError(
            f"the written table has columns {sorted(taken)} of its own. Rename the log's."
        )


def _check_outputs(outputs: dict[str, Path | None], *, inputs: Sequence[Path | None]) -> None:
    taken = [path.resolve() for path in inputs if path is not None]
    for option, path in outputs.items():
        if path is None:
            continue
        if not path.parent.is_dir():
            raise ValueError(f"{option} {path}: there is no folder {path.parent}. Make it first.")
        if path.is_dir():
            raise ValueError(f"{option} {path} is a folder. Give the name of a file in it.")
        if path.resolve() in taken:
            raise ValueError(f"{option} {path} is already read or written. Choose another name.")
        taken.append(path.resolve())
        if option == "--output" and not path.name.endswith(TABLE_SUFFIXES):
            raise ValueError(
                f"{option} must end in one of {', '.join(TABLE_SUFFIXES)}, got {path}."
            )
