"""The main job: scores on held-out rows, attention plot; scoring of new rows."""

import copy
import importlib.util
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline

from sklearn_din.command_line.options import FOLDS, Options
from sklearn_din.command_line.study import (
    DEFAULT_NEGATIVES,
    MODELS,
    PARTS,
    Parameters,
    Study,
    attach_histories,
    begin_with_memory,
    fit_final_model,
    make_model,
    make_study,
    note_sampling,
    study_log,
)
from sklearn_din.command_line.tables import read_log, read_table, refuse_histories, write_table
from sklearn_din.command_line.trivial import (
    CLICK,
    COUNTS,
    LIVE,
    LIVE_RATE,
    RULES,
    TREES,
    note_better_rules,
    note_smaller_loss,
    predict_by_rules,
    predict_by_trees,
)
from sklearn_din.estimator import DINClassifier
from sklearn_din.inspection.display import AttentionDisplay
from sklearn_din.inspection.explain import explain
from sklearn_din.logs.history_builder import HistoryBuilder
from sklearn_din.metrics import group_roc_auc_score, relative_improvement
from sklearn_din.model_selection import TimeSplit
from sklearn_din.saving import load, save
from sklearn_din.serving.ranking import rank_candidates
from sklearn_din.serving.remembering import remember
from sklearn_din.training.decisions import epochs_text
from sklearn_din.utils.calibration import calibration_bins
from sklearn_din.utils.whole_files import whole_file

LONG_HISTORY = 15  # different items that make a picture worth while
MOST_DRAWN = 500  # impressions of which one is drawn
LEAST_BASE = 0.55  # AUC: an improvement over a base nearer to .5 is a division by nearly nothing
TESTED_IN_TIME = 0.2  # fraction of the rows
EXPLANATION = (
    "AUC: over all rows. GAUC: mean of each user's own AUC, weighted by rows, without users whose "
    "rows are all clicked or none, {} of {}. RelaImpr: gain of AUC - 0.5 over the base model's. "
    "NE, normalized entropy: log loss over that of the base rate."
)
EXPLANATION_OF_PARTS = (
    'Base model: DINClassifier(interest="paper", pooling="sum"). Published DIN: interest="paper". '
    'DIN with sums: pooling="sum". DIN: the defaults.'
)
EXPLANATION_OF_RANKING = (
    "NDCG@10, recall@10: up to {} users rank the items that were clicked in the training rows, as "
    "of the first test row; relevant is what they clicked later."
)
MEMORY, FROZEN = "DIN with memory", ", frozen"
WITH_TREES = ", with trees"
EXPLANATION_OF_MEMORY = (
    "Memory: rates so far, counts and times since the last row of users, items and pairs. Live: "
    "the outcome of each row is known right after it (remember). Frozen, and where nothing is "
    "said: outcomes of training rows alone."
)
EXPLANATION_OF_TREES = (
    "With trees: the mean of its log-odds and those of boosted trees, DINClassifier(trees=True)."
)
USERS_RANKED = 1_000
AT_10 = {"ndcg": "NDCG@10", "recall": "recall@10"}

Folds = list[tuple[np.ndarray, np.ndarray]]
Notes = dict[str, None]  # each once


def compare(options: Options, rows: tuple[pd.DataFrame, pd.Series | None] | None = None) -> None:
    """Judge both models on held-out rows, then fit DIN on all rows for what else was asked for.

    ``rows`` are those of the log, and their labels; None: the embedded log.
    """
    picture = picture_path(options.picture)
    study = make_study(options) if rows is None else study_log(options, *rows)
    folds_of = {split: make_folds(study, split, options.folds or FOLDS) for split in options.splits}
    settings: dict[str, str | int] = {"random_state": options.seed}
    if options.epochs is not None:
        settings["max_epochs"] = options.epochs
    is_served = options.serve is not None
    has_final = bool(picture or options.save or is_served)
    _print_plan(study, folds_of, epochs=options.epochs, has_final=has_final)
    figures = {}
    for split, folds in folds_of.items():
        notes = Notes()
        table, predictions = judge(study, folds, settings, split=split, notes=notes)
        probability = predictions["DIN"]
        shown = table.map(lambda cell: cell if isinstance(cell, str) else f"{cell:.4f}")
        shown = shown.mask(table.isna(), "")
        figures[_name_split(split, len(folds))] = shown.to_dict("index")
        print(f"\n{_name_split(split, len(folds))}:\n{shown.to_string()}")
        auc, is_tested = dict(table["AUC"]), np.isfinite(probability)
        y, users = study.y[is_tested], study.users[is_tested].to_numpy()
        n_kinds = pd.Series(y).groupby(users).nunique()
        print(EXPLANATION.format(f"{(n_kinds < 2).sum():,}", f"{len(n_kinds):,}"))
        tested = {name: own[is_tested] for name, own in predictions.items()}
        of_training = [name for name in predictions if LIVE not in name]
        networks = [name for name in of_training if name.startswith("DIN")]
        baselines = [name for name in of_training if name in (*RULES, TREES)]
        models = ["base model", *networks]
        notes[note_better_rules(auc, y, models=models, rules=baselines)] = None
        notes[note_smaller_loss(tested, y, models=networks, baselines=baselines)] = None
        print(EXPLANATION_OF_PARTS)
        print(EXPLANATION_OF_TREES)
        if LIVE_RATE in auc:
            print(EXPLANATION_OF_MEMORY)
            models, rules = (
                [n for n in auc if n.startswith(MEMORY + LIVE)],
                [LIVE_RATE, TREES + LIVE],
            )
            notes[note_better_rules(auc, y, models=models, rules=rules)] = None
            notes[note_smaller_loss(tested, y, models=models, baselines=rules)] = None
        if AT_10["ndcg"] in table:
            print(EXPLANATION_OF_RANKING.format(f"{USERS_RANKED:,}"))
        for note in filter(None, notes):
            print(note)
    if options.output or options.save or is_served:
        note_sampling(options)
    is_tested = np.isfinite(probability)  # of the last split: all rows where it is by user
    if options.output is not None:
        scored = study.X[study.roles.columns].assign(clicked=study.y)[is_tested]
        write_table(scored.assign(probability=probability[is_tested]), options.output)
    if not has_final:
        return
    model = fit_final_model(study, {**settings, **MODELS["DIN"]})
    # ``save`` keeps them, the server shows them
    model.figures_ = {"scores": figures, "calibration": calibration_bins(study.y, probability)}
    if options.log is not None and options.label is None:
        model.figures_["negatives"] = options.negatives or DEFAULT_NEGATIVES
    if options.save is not None:
        save(model, options.save)
        print(f"{MEMORY if study.is_labelled else 'DIN'} fitted on all rows: {options.save}")
    if picture is not None:
        draw_attention(study, model, picture)
    if options.serve is not None:
        from sklearn_din.command_line.serving import serve_study

        serve_study(study, model, options.serve)


def _print_plan(
    study: Study, folds_of: dict[str, Folds], *, epochs: int | None, has_final: bool
) -> None:
    """Print rows, users and trainings."""
    models = {split: models_of(study, split) for split in folds_of}
    n_fits = sum(len(models[split]) * len(folds) for split, folds in folds_of.items()) + has_final
    *names, last = max(models.values(), key=len)
    splits = " and ".join(_name_split(split, len(folds)) for split, folds in folds_of.items())
    print(
        f"{len(study.y):,} impressions of {study.users.nunique():,} users, {study.y.mean():.1%} "
        f"clicked\n{n_fits} trainings (--epochs {epochs or DINClassifier().max_epochs}): "
        f"{', '.join(names)} and {last}, tested on {splits}"
        f"{', DIN once more on all rows' if has_final else ''}",
        flush=True,
    )


def _name_split(split: str, n_folds: int) -> str:
    return f"held-out users in {n_folds} folds" if split == "user" else "the last fifth in time"


def make_folds(study: Study, split: str, n_folds: int) -> Folds:
    """Return the rows to train and to test on; raise where a fold cannot be trained or judged."""
    if split == "time":
        times = {"time": study.roles.time, "known": study.roles.known}
        splitter = TimeSplit(1, test_size=TESTED_IN_TIME, **times)
        try:
            folds = list(splitter.split(study.rows, study.y))
        except ValueError as error:
            if study.roles.known is None or "nothing to train on" not in str(error):
                raise
            raise ValueError(
                f"no label is known before the last {TESTED_IN_TIME:.0%} of the rows begin, by "
                f"--known {study.roles.known}: there is nothing to train on. Check that "
                f"{study.roles.known!r} and {study.roles.time!r} are in one unit, give a longer "
                "log, or use --split user."
            ) from error
        advice = "Test on other rows: --split user."
    else:
        n_users = study.users.nunique()
        if n_users < n_folds:
            raise ValueError(
                f"--folds {n_folds} needs at least {n_folds} users, the log has {n_users}."
            )
        folds = list(GroupKFold(n_folds).split(study.X, study.y, study.users))
        advice = "There are too few users of each kind: give fewer --folds."
    for number, rows in enumerate(folds, 1):
        if any(len(np.unique(study.y[part])) < 2 for part in rows):
            raise ValueError(
                f"fold {number} of {len(folds)} by {split} has clicks alone or none, among the "
                f"rows to train or to test on. {advice}"
            )
    return folds


def models_of(study: Study, split: str) -> dict[str, Parameters]:
    """Return the models to compare: one with a memory where labelled rows are split by time."""
    if study.ceiling is not None:
        return PARTS
    return {**MODELS, **({MEMORY: MODELS["DIN"]} if study.is_labelled and split == "time" else {})}


def judge(
    study: Study, folds: Folds, settings: Parameters, *, split: str, notes: Notes
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Score rules and models on rows that they were not trained on, and print each training.

    Returns a row of scores per rule and model, NaN where one cannot be computed (``notes`` then
    say why), and the score that each gives each impression, NaN where it is in no test fold.
    """
    models, seed = models_of(study, split), int(settings["random_state"])
    is_ranked = not study.is_labelled and split == "time" and study.ceiling is None
    at_10: dict[str, dict] = {}
    predictions = predict_by_rules(study, folds, live=MEMORY in models)
    for name in [TREES, TREES + LIVE][: 1 + (MEMORY in models)]:
        predictions[name] = np.full(len(study.y), np.nan)
        with _note_failure(notes, name):
            predictions[name] = predict_by_trees(study, folds, seed=seed, live=name != TREES)
    for name, parameters in models.items():
        for number, (train, test) in enumerate(folds, 1):
            began = time.perf_counter()
            model = make_model(study.roles, {**settings, **parameters}, order=split)
            said, epochs = _fit_and_predict(study, name, model, train, test)
            if is_ranked:
                with _note_failure(notes, f"ranking by {name}"):
                    at_10 |= rank_later_clicks(study, name, _without_trees(model), train, test)
            aucs = []
            for row, probability in said.items():
                predictions.setdefault(row, np.full(len(study.y), np.nan))[test] = probability
                variant = row.removeprefix(name).removeprefix(", ")
                auc = f"{roc_auc_score(study.y[test], probability):.4f}"
                aucs.append(f"{auc} ({variant})" if variant else auc)
            print(
                f"{name}, by {split}, fold {number} of {len(folds)}: AUC {', '.join(aucs)}, "
                f"{epochs}, {time.perf_counter() - began:.1f} s",
                flush=True,
            )
    tests = [test for _, test in folds]
    rows = {name: _score(study, own, tests, name, notes) for name, own in predictions.items()}
    if study.ceiling is not None:
        rows["best possible"] = _score(study, study.ceiling, [np.arange(len(study.y))], "", notes)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    if at_10:  # of clicks alone it tells more than scores beside sampled negatives
        table = pd.DataFrame(at_10).T.rename(columns=AT_10).reindex(table.index).join(table)
    base = table["AUC"][next(iter(MODELS))]
    if base >= LEAST_BASE:
        gains = table["AUC"].map(lambda auc: relative_improvement(auc, base), na_action="ignore")
        table["RelaImpr"] = gains.map("{:+.1%}".format, na_action="ignore")
    return table, predictions


def _fit_and_predict(
    study: Study, name: str, model: Pipeline, train: np.ndarray, test: np.ndarray
) -> tuple[dict[str, np.ndarray], str]:
    """Return probabilities for the rows to test on, live with trees last, and epochs as text.

    The network of a fit with trees is the one of a fit without.
    """
    X, y, has_trees = (study.rows if name == MEMORY else study.X), study.y, name in (MEMORY, "DIN")
    model[-1].set_params(trees=has_trees)
    if name == MEMORY:
        model = begin_with_memory(study.roles, *model.steps, levels="auto")
    model.fit(X.iloc[train], y[train])
    models = {name: model}
    if name == MEMORY:
        rest = np.setdiff1d(np.arange(len(y)), train)
        told = remember(model, X.iloc[rest], y[rest])  # a row sees those strictly before it
        models = {MEMORY + FROZEN: model, MEMORY + LIVE: told}
    ways = {row: _without_trees(own) for row, own in models.items()}
    for row, own in models.items() if has_trees else ():
        ways[row + WITH_TREES] = own
    said = {row: own.predict_proba(X.iloc[test])[:, 1] for row, own in ways.items()}
    return said, epochs_text(model[-1].net_)


def _without_trees(model: Pipeline) -> Pipeline:
    """Return a fitted Pipeline that answers by its network alone."""
    name, classifier = model.steps[-1]
    classifier = copy.copy(classifier)
    classifier.net_ = copy.copy(classifier.net_)
    classifier.net_.mixture_ = None
    return Pipeline([*model.steps[:-1], (name, classifier)])


def rank_later_clicks(
    study: Study, name: str, model: Pipeline, train: np.ndarray, test: np.ndarray
) -> dict[str, dict]:
    """Return NDCG and recall at 10 of the clicks in test rows, by the model and by popularity.

    Users with such clicks rank the items of the clicks to train on, as of the first test row.
    """
    roles, rows = study.roles, study.X[study.roles.columns]
    before, later = (rows.iloc[part][study.y[part] == 1] for part in (train, test))
    users = later.drop_duplicates(roles.user)
    users = users.sample(min(len(users), USERS_RANKED), random_state=roles.seed)
    moment = rows[roles.time].iloc[test].min()
    users = users.drop(columns=roles.events).assign(**{roles.time: moment})
    n_clicks = before[roles.item].value_counts()
    catalogue = before.sort_values(roles.time, kind="stable").drop_duplicates(
        roles.item, keep="last"
    )
    catalogue = catalogue[roles.events].assign(**{CLICK: catalogue[roles.item].map(n_clicks)})
    with warnings.catch_warnings():  # users who are new by then, such as sessions, have none
        warnings.filterwarnings("ignore", "histories of .* hold (less than a third|none)")
        best = rank_candidates(model, attach_histories(users, before, roles), catalogue)
    popular = catalogue.nlargest(10, CLICK)[[roles.item]]
    popular["rank"] = np.arange(1, len(popular) + 1)
    pairs = later[[roles.user, roles.item]].drop_duplicates()
    pairs = pairs[pairs[roles.user].isin(users[roles.user])]
    return {
        name: _scores_at_10(pairs, best[[*pairs, "rank"]]),
        RULES[0]: _scores_at_10(pairs, users[[roles.user]].merge(popular, how="cross")),
    }


def _scores_at_10(relevant: pd.DataFrame, shown: pd.DataFrame) -> dict[str, float]:
    """Return means over users, from relevant pairs of user and item and the ranks of those shown.

    A relevant item that no catalogue has is missed.
    """
    gain = 1 / np.log2(1 + relevant.merge(shown, how="left")["rank"])
    by_user = gain.groupby(relevant.iloc[:, 0].to_numpy())
    ideal = np.cumsum(1 / np.log2(1 + np.arange(1, 11)))[np.minimum(by_user.size(), 10) - 1]
    return {
        "ndcg": float((by_user.sum() / ideal).mean()),
        "recall": float((by_user.count() / by_user.size()).mean()),
    }


def picture_path(chosen: Path | None) -> Path | None:
    """Return the path of the picture, of a kind that matplotlib can draw; None: no picture."""
    if chosen is None:
        return None
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError(
            "--picture needs matplotlib, which is not installed: pip install 'sklearn-din[plot]'"
        )
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = sorted(FigureCanvasBase.get_supported_filetypes())
    if chosen.suffix.removeprefix(".").lower() not in kinds:
        raise ValueError(f"--picture must end in one of .{', .'.join(kinds)}, got {chosen}.")
    return chosen


def draw_attention(study: Study, model: Pipeline, path: Path) -> None:
    """Draw the history of a click: one of several items, whose weights differ most."""
    X, item = study.X, f"hist_{study.roles.item}"
    n_items = np.array([len({*history.tolist()}) for history in X[item]])
    clicked = np.flatnonzero(study.y == 1)
    many = clicked[n_items[clicked] >= min(LONG_HISTORY, n_items[clicked].max())][:MOST_DRAWN]
    weights = explain(model, X.iloc[many]).groupby("row")["share"].std()
    drawn = many[weights.idxmax()] if weights.notna().any() else many[0]
    display = AttentionDisplay.from_estimator(model, X.iloc[[drawn]])
    with whole_file(path) as partial:
        display.figure_.savefig(partial, dpi=120, bbox_inches="tight")
    print(f"attention of impression {study.X.index[drawn]}: {path}")


def score_rows(options: Options) -> None:
    """Write rows beside the probability that a saved model gives them."""
    model = load(options.model)
    if not isinstance(model, Pipeline) or not hasattr(model, "feature_names_in_"):
        kind = type(model).__name__
        raise ValueError(f"{options.model} is no model that --save wrote, but a {kind}.")
    builder = model[0] if isinstance(model[0], HistoryBuilder) else None
    names = list(model.feature_names_in_ if builder is None else builder._names_of_rows)
    rows = read_table(options.rows, names, options)
    if "probability" in rows:
        raise ValueError(f"{options.rows} has a column 'probability' of its own. Rename it.")
    X = rows
    if builder is not None:
        refuse_histories(rows, options.rows)
        time, ids = builder.time, [builder.user, *builder.columns]
        X = read_log(rows, options.rows, options, needed=[time], ids=ids, times=[time])
        rows = rows.loc[X.index]
    probability = model.predict_proba(X[names])[:, 1]
    write_table(rows.assign(probability=probability), options.output)


def _score(
    study: Study, predicted: np.ndarray, tests: list[np.ndarray], name: str, notes: Notes
) -> dict[str, float]:
    """Return means over folds of each score, NaN where one cannot be computed."""
    scores = {"AUC": roc_auc_score, "GAUC": group_roc_auc_score, "log loss": log_loss}
    scores["NE"] = _normalized_entropy
    means = dict.fromkeys(scores, np.nan)
    if np.isnan(predicted[np.concatenate(tests)]).any():
        return means
    for score, function in scores.items():
        if score in ("log loss", "NE") and name in COUNTS:
            continue
        with _note_failure(notes, score):
            parts = []
            for rows in tests:
                groups = {"groups": study.users.iloc[rows]} if score == "GAUC" else {}
                parts.append(function(study.y[rows], predicted[rows], **groups))
            means[score] = float(np.mean(parts))
    return means


def _normalized_entropy(y: np.ndarray, predicted: np.ndarray) -> float:
    """Return the log loss over that of the rate in y (He et al., ADKDD 2014)."""
    return log_loss(y, predicted) / log_loss(y, np.full(len(y), y.mean()))


@contextmanager
def _note_failure(notes: Notes, what: str) -> Iterator[None]:
    """Note a ValueError of an opponent or a score, which costs its own cells and no other."""
    try:
        yield
    except ValueError as error:
        notes[f"note: no {what}: {error}"] = None
