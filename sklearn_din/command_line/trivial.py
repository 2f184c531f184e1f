"""Baselines without a network, scored on the same folds as the models."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier

from sklearn_din.command_line.study import Study
from sklearn_din.logs.aggregates import Aggregate, attach_aggregates

CLICK = "sklearn_din click"  # no log has a column of this name
TREES = "boosted trees on rates and counts"
LIVE = ", live"  # of what was known at each row's moment, test rows before it included
MANY_ERRORS = 3  # standard errors of an AUC by chance that a rule must be ahead to be named
RULES = (
    *("popularity", "click rate so far", "shown before or not", "in own history or not"),
    "clicked by others or not",
)
LIVE_RATE = f"{RULES[1]}{LIVE}"
TELLING = RULES[2:]  # which negatives are, where they were drawn badly
COUNTS = RULES[:1]  # the others are probabilities


def predict_by_rules(
    study: Study, folds: Iterable[tuple[np.ndarray, np.ndarray]], *, live: bool = False
) -> dict[str, np.ndarray]:
    """Return what each rule says of every impression, learnt from the rows that its fold trains on.

    "So far" and "before" are strictly before the row's time, in those rows; the own history is the
    row's. Where a rule says yes or no, those rows tell which of the two is clicked more. With
    ``live`` there is also the click rate so far in all rows.
    """
    X, y, item = study.X, study.y, study.roles.item
    columns = {"item": X[item], "user": X[study.roles.user], "time": X[study.roles.time]}
    columns["known"] = study.rows[study.roles.known or study.roles.time]
    rows = pd.DataFrame({**columns, "click": y})
    histories = zip(X[item], X[f"hist_{item}"], strict=True)
    in_history = np.array([shown in history for shown, history in histories])
    names = [*RULES, *([LIVE_RATE] if live else [])]
    predicted = np.empty((len(names), len(y)))
    for train, test in folds:
        log, rate = rows.iloc[train], y[train].mean()
        n_shown, n_clicks = _count_so_far(rows, log)
        popularity = rows["item"].map(log["click"].groupby(log["item"]).sum()).fillna(0)
        own = log.groupby(["user", "item"])["click"].sum().rename("own").reset_index()
        own_clicks = rows.merge(own, "left", on=["user", "item"])["own"].fillna(0)
        by_others = popularity.to_numpy() > own_clicks.to_numpy()
        rules = [popularity, (n_clicks + rate) / (n_shown + 1)]
        for is_so in (n_shown > 0, in_history, by_others):
            rates = pd.Series(y[train]).groupby(is_so[train]).mean()
            rules.append(pd.Series(is_so).map(rates).fillna(rate))
        if live:
            n_shown, n_clicks = _count_so_far(rows, rows)
            rules.append((n_clicks + rate) / (n_shown + 1))
        predicted[:, test] = np.array(rules)[:, test]
    return dict(zip(names, predicted, strict=True))


def _count_so_far(rows: pd.DataFrame, log: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each row's item was shown and clicked in a log strictly before it."""
    so_far = {"shown": ("item", None, "count"), "clicks": ("item", "click", "sum")}
    past = attach_aggregates(rows, log, time="time", aggregates=so_far, known="known")
    return past["shown"].to_numpy(), past["clicks"].to_numpy()


def predict_by_trees(
    study: Study,
    folds: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    seed: int,
    live: bool = False,
) -> np.ndarray:
    """Return what scikit-learn's boosted trees say of every row that is tested, NaN of others.

    Their columns are numbers of context and those of a memory: rates, counts and time since the
    last row of user, item, what follows from it, and pairs of the user with these, strictly before
    each row's time in the rows that the fold trains on, or with ``live`` in all. Where clicks are
    rare, trees that learn faster are stopped before they have learnt anything.
    """
    X, roles = study.X, study.roles
    keys: list[tuple[str, ...]] = [(name,) for name in (roles.user, *roles.events)]
    keys += [(roles.user, name) for name in roles.events]
    aggregates: dict[str, Aggregate] = {
        str(number): (key, CLICK, "levels") for number, key in enumerate(keys)
    }
    aggregates["recent"] = (), CLICK, "recent_mean"
    rows = study.rows.assign(**{CLICK: study.y})
    numbers = X[roles.context].select_dtypes("number").to_numpy(np.float64, na_value=np.nan)
    predicted = np.full(len(X), np.nan)
    for train, test in folds:
        log = rows if live else rows.iloc[train]
        times = {"time": roles.time, "known": roles.known}
        past = attach_aggregates(rows, log, **times, aggregates=aggregates)
        columns = np.hstack([past[past.columns[rows.shape[1] :]].to_numpy(np.float64), numbers])
        columns = columns[:, ~np.isnan(columns[train]).all(axis=0)]  # trees refuse such columns
        trees = HistGradientBoostingClassifier(
            learning_rate=0.03, max_iter=500, early_stopping=True, random_state=seed
        )
        trees.fit(columns[train], study.y[train])
        predicted[test] = trees.predict_proba(columns[test])[:, 1]
    return predicted


def note_better_rules(
    auc: Mapping[str, float],
    y: np.ndarray,
    *,
    models: Sequence[str],
    rules: Sequence[str] = RULES,
) -> str:
    """Return a sentence about the baseline with the best AUC, if models are behind it by far."""
    rules = [name for name in rules if auc[name] == auc[name]]  # computed
    best = max(rules, key=auc.__getitem__)
    margin = MANY_ERRORS * np.sqrt((1 / np.bincount(y)).sum() / 12)
    beaten = [f"{name}, {auc[name]:.4f}" for name in models if auc[best] > auc[name] + margin]
    if not beaten:
        return ""
    how = " If rows without a click were drawn, see how." if best in TELLING else ""
    return (
        f"note: the baseline {best!r} alone has an AUC of {auc[best]:.4f}, more than "
        f"{', and '.join(beaten)}. A gain over the base model says little then: compare DIN with "
        f"this baseline.{how}"
    )


def note_smaller_loss(
    predicted: Mapping[str, np.ndarray],
    y: np.ndarray,
    *,
    models: Sequence[str],
    baselines: Sequence[str],
) -> str:
    """Return a sentence about the baseline with the smallest log loss, if all models lose more.

    By more than chance: three standard errors of the mean difference of the rows' losses.

    predicted : for each name the probabilities of the rows, (n_rows,); those with NaN are ignored
    """
    losses = {
        name: -np.log(np.where(y == 1, p, 1 - p).clip(1e-7))
        for name, p in predicted.items()
        if name in (*models, *baselines) and name not in COUNTS and np.isfinite(p).all()
    }
    means = {name: float(rows.mean()) for name, rows in losses.items()}
    found = [
        min({*names} & {*means}, key=means.__getitem__, default=None)
        for names in (models, baselines)
    ]
    model, best = found
    if model is None or best is None:
        return ""
    more = losses[model] - losses[best]
    if more.mean() <= MANY_ERRORS * more.std() / np.sqrt(len(y)):
        return ""
    return (
        f"note: the baseline {best!r} alone has a log loss of {means[best]:.4f}, and the best "
        f"network, {model!r}, {means[model]:.4f}: its probabilities are worse than this baseline's."
    )
