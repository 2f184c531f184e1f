"""The main job: base model against DIN, cross-validated by user, on the embedded or your own log.

``python -m sklearn_din`` runs on the embedded click log, whose best possible AUC is known.
``python -m sklearn_din log.csv --user U --item I --time T`` runs on a CSV or Parquet log.
``python -m sklearn_din predict MODEL rows.parquet --output scores.parquet`` scores rows.
"""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from scipy.special import expit, logit

from sklearn_din.command_line.options import (
    CompareOptions,
    main_parser,
    read_compare_options,
    read_predict_options,
)
from sklearn_din.command_line.results import (
    cross_validate,
    draw_attention,
    folds_by_user,
    picture_path,
    recommend,
    score_rows,
)
from sklearn_din.command_line.study import (
    MODELS,
    Parameters,
    Study,
    add_to_logits,
    fit_final_model,
    log_odds_of_sampling,
    make_study,
    read_study,
)
from sklearn_din.command_line.tables import write_table
from sklearn_din.serving.saving import save

SHOWN_RECOMMENDATIONS = 20
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")  # messages of torch
STOPPED_BY = 128  # exit status of a program that a signal ended: this plus the signal's number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the main job, or ``predict``; a user's mistake is one line and status 2."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with warnings.catch_warnings(), _clean_up_on_signals():
        warnings.showwarning = _show_warning
        try:
            if arguments[:1] == ["predict"]:
                score_rows(read_predict_options(arguments[1:]))
            else:
                compare(read_compare_options(arguments))
        except (ValueError, TypeError, OSError, ImportError) as error:
            main_parser().error(str(error))
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
                raise
            main_parser().error(f"not enough memory: {error}. Give fewer rows, or more memory.")
    return 0


def _is_out_of_memory(error: RuntimeError) -> bool:
    return any(words in str(error).lower() for words in OUT_OF_MEMORY)


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


def compare(options: CompareOptions) -> None:
    """Cross-validate both models, then fit DIN on all rows for what else was asked for."""
    picture = picture_path(options.picture)
    study = read_study(options.log, options) if options.log else make_study()
    folds = folds_by_user(study, options.folds)
    settings: dict[str, str | int] = {"random_state": options.seed}
    if options.epochs is not None:
        settings["max_epochs"] = options.epochs
    n_users = study.users.nunique()
    print(f"{len(study.X):,} impressions of {n_users:,} users, {study.y.mean():.1%} clicked")
    comparison = cross_validate(study, folds, settings)
    print(comparison.table.to_string(float_format="{:.4f}".format))
    has_probabilities = options.output or options.save or options.top_k
    log_odds = log_odds_of_sampling(options) if has_probabilities else 0.0
    if options.output is not None:
        scored = study.X[study.roles.columns].assign(clicked=study.y)
        probability = expit(logit(comparison.probability) + log_odds)
        write_table(scored.assign(probability=probability), options.output)
    if picture or options.save or options.top_k:
        _use_final_model(options, study, {**settings, **MODELS["DIN"]}, picture, log_odds)


def _use_final_model(
    options: CompareOptions,
    study: Study,
    parameters: Parameters,
    picture: Path | None,
    log_odds: float,
) -> None:
    model = fit_final_model(study, parameters)
    add_to_logits(model, log_odds)
    if options.save is not None:
        save(model, options.save)
        print(f"DIN fitted on all rows: {options.save}")
    if picture is not None:
        draw_attention(study, model, picture)
    if options.top_k is not None:
        best = recommend(study, model, options.top_k)
        if options.recommendations is not None:
            write_table(best, options.recommendations)
            return
        print(best.head(SHOWN_RECOMMENDATIONS).to_string(index=False))
        if len(best) > SHOWN_RECOMMENDATIONS:
            print(f"... {len(best):,} rows in all: --recommendations FILE writes them")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"note: {' '.join(str(message).split())}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
