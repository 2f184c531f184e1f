"""What a fitted model gives: a picture of its attention, the best items, rows scored."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from sklearn_din._whole_files import whole_file
from sklearn_din.command_line.models import load_model
from sklearn_din.command_line.options import PredictOptions
from sklearn_din.command_line.study import Study
from sklearn_din.command_line.tables import (
    as_ids,
    read_table,
    refuse_histories,
    without_missing,
    write_table,
)
from sklearn_din.command_line.times import read_times
from sklearn_din.inspection.display import AttentionDisplay
from sklearn_din.logs.history import HistoryBuilder
from sklearn_din.serving.ranking import rank_candidates

DEFAULT_PICTURE = Path("attention.png")
LONG_HISTORY = 15  # events that make a picture worth while
USERS_PER_BLOCK = 1000


def picture_path(chosen: Path | None) -> Path | None:
    """Where the picture goes; None where matplotlib is missing and no picture was asked for."""
    if importlib.util.find_spec("matplotlib") is None:
        install = "matplotlib, which is not installed: pip install 'sklearn-din[plot]'"
        if chosen is not None:
            raise ValueError(f"--picture needs {install}")
        print(f"note: no picture is drawn: it needs {install}")
        return None
    from matplotlib.backend_bases import FigureCanvasBase

    path = chosen or DEFAULT_PICTURE
    kinds = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix.removeprefix(".").lower() not in kinds:
        raise ValueError(f"--picture must end in one of .{', .'.join(kinds)}, got {path}.")
    return path


def draw_attention(study: Study, model: Pipeline, path: Path) -> None:
    """Picture of one impression's history: which past events counted."""
    histories = study.X[f"hist_{study.roles.item}"]
    lengths = np.array([len(history) for history in histories])
    clicked = np.flatnonzero((study.y == 1) & (lengths >= min(LONG_HISTORY, lengths.max())))
    if not len(clicked):  # the longest history belongs to a row without a click
        clicked = np.flatnonzero(study.y == 1)
    X = study.X[model.feature_names_in_]
    best = clicked[model.predict_proba(X.iloc[clicked])[:, 1].argmax()]
    display = AttentionDisplay.from_estimator(model, X.iloc[[best]])
    with whole_file(path) as partial:
        display.figure_.savefig(partial, dpi=120, bbox_inches="tight")
    print(f"attention of impression {study.X.index[best]}: {path}")


def recommend(study: Study, model: Pipeline, top_k: int) -> pd.DataFrame:
    """Best items for each user after their last row, best first, none that they clicked.

    Parameters
    ----------
    study : Study
        Of a log of one's own.
    model : Pipeline
        As :func:`fit_final_model` returns it, with a HistoryBuilder.
    top_k : int
        Items for each user; fewer where the user has clicked most of the catalogue.

    Returns
    -------
    DataFrame
        Columns of user, rank (from 1), item and what follows from it, probability.
    """
    roles = study.roles
    in_order = study.X[roles.columns].sort_values(roles.time, kind="stable")
    catalogue = in_order[roles.events].drop_duplicates(roles.item, keep="last")
    users = in_order.drop_duplicates(roles.user, keep="last").drop(columns=roles.events)
    users = users.assign(**{roles.time: _just_after(users[roles.time])})
    clicked = study.X.loc[study.y == 1, [roles.user, roles.item]].drop_duplicates()
    n_clicked = clicked.groupby(roles.user).size()
    blocks = []
    for start in range(0, len(users), USERS_PER_BLOCK):
        block = users.iloc[start : start + USERS_PER_BLOCK]
        most = n_clicked.reindex(block[roles.user]).max()
        n_asked = top_k + (0 if np.isnan(most) else int(most))
        best = rank_candidates(model, block, catalogue, top_k=n_asked)
        best.insert(0, roles.user, block[roles.user].take(best["row"].to_numpy()).array)
        best = best.merge(clicked, on=[roles.user, roles.item], how="left", indicator=True)
        best = best[best["_merge"] == "left_only"].drop(columns=["row", "_merge"])
        best["rank"] = best.groupby(roles.user).cumcount() + 1
        blocks.append(best[best["rank"] <= top_k])
    return pd.concat(blocks, ignore_index=True)


def score_rows(options: PredictOptions) -> None:
    """Write rows beside the probability that a saved model gives them."""
    model = load_model(options.model)
    builder = model[0] if isinstance(model[0], HistoryBuilder) else None
    names = list(model.feature_names_in_)
    rows = read_table(options.rows, names, options)
    if "probability" in rows:
        raise ValueError(f"{options.rows} has a column 'probability' of its own. Rename it.")
    X = rows
    if builder is not None:
        refuse_histories(rows, options.rows)
        rows = without_missing(rows, [builder.time], options.rows, drop=options.drop_missing)
        ids = {name: as_ids(rows[name]) for name in [builder.user, *builder.columns]}
        X = rows.assign(**ids, **{builder.time: read_times(rows[builder.time], options)})
    probability = model.predict_proba(X[names])[:, 1]
    write_table(rows.assign(probability=probability), options.output)


def _just_after(times: pd.Series) -> pd.Series:
    """Return the next moment after each: what happened at the time itself is then the past."""
    if getattr(times.dtype, "kind", None) == "M":
        return times + pd.Timedelta(1, unit=pd.DatetimeIndex(times).unit)
    if pd.api.types.is_float_dtype(times.dtype):
        return times.map(lambda moment: np.nextafter(moment, np.inf))
    return times + 1
