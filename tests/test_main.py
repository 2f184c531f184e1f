"""The command line, on small logs."""

import re
import subprocess
import sys
import warnings
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import Pipeline

import sklearn_din
import sklearn_din.__main__ as command
from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    load,
    metrics,
    remember,
    save,
)
from sklearn_din.command_line import results, study, trivial
from sklearn_din.command_line.log_file import read_rows
from sklearn_din.command_line.options import Options, read_compare_options
from sklearn_din.command_line.tables import read_table
from sklearn_din.datasets import make_click_log
from sklearn_din.training import net

pytestmark = pytest.mark.slow

NAMES = ["--user", "u", "--item", "i", "--time", "t"]
FAST = ["--folds", "2", "--epochs", "1"]


def make_clicks():
    """72 clicks of twelve users, one row per day and user."""
    rows = np.arange(72)
    return pd.DataFrame(
        {
            "u": 100 + rows % 12,
            "i": [f"item {item}" for item in (7 * rows + rows // 12) % 20],
            "c": (7 * rows + rows // 12) % 20 // 5,
            "t": pd.date_range("2024-01-01", periods=72, freq="6h").astype(str),
            "device": np.where(rows % 5 < 2, "phone", "desktop"),
        }
    )


@pytest.fixture
def clicks():
    return make_clicks()


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def as_text(argument):
    """An argument of the command line; a frame is written to log.csv."""
    if isinstance(argument, pd.DataFrame):
        argument.to_csv("log.csv", index=False)
        return "log.csv"
    return str(argument)


@pytest.fixture
def without_folds(monkeypatch):
    """Trainings without folds for few labels, which test_few_labels.py judges."""
    monkeypatch.setattr("sklearn_din.training.rows.are_few", lambda net, y: False)


@pytest.fixture
def run(capsys):
    """Run and return what was printed."""
    pytest.importorskip("matplotlib", reason="the main job draws: install '.[plot]'")

    def run_command(*arguments):
        assert command.main(list(map(as_text, arguments))) == 0
        return capsys.readouterr().out

    return run_command


@pytest.fixture
def refused(capsys, monkeypatch):
    """Run, be refused before any training, and return the one line of the error."""
    monkeypatch.setattr(DINClassifier, "fit", None)

    def run_command(*arguments):
        with pytest.raises(SystemExit) as stop:
            command.main(list(map(as_text, arguments)))
        assert stop.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("python -m sklearn_din")
        return lines[0].partition("error: ")[2]

    return run_command


def study_of(log, *arguments):
    options = read_compare_options([as_text(log), *NAMES, *arguments])
    return study.study_log(options, *read_rows(options))


@pytest.mark.usefixtures("without_folds")
def test_the_embedded_log_gives_a_table_beside_the_ceiling_and_a_picture(run, monkeypatch):
    small = make_click_log(n_users=60, n_items=40, n_categories=6, random_state=0)
    monkeypatch.setattr(study, "make_click_log", lambda random_state: small)
    monkeypatch.setitem(results.PARTS, "base model", {"pooling": "sum"})
    options = ["--folds", "2", "--epochs", "1", "--output", "own.parquet"]
    printed = run(*options, "--picture", "attention.png")
    plan, fold = printed.splitlines()[1:3]
    assert plan == (
        "9 trainings (--epochs 1): base model, published DIN, DIN with sums and DIN, tested on "
        "held-out users in 2 folds, DIN once more on all rows"
    )
    assert fold.startswith("base model, by user, fold 1 of 2: AUC")
    assert "best possible" in printed
    assert "the rule" not in printed
    table = printed[printed.index("RelaImpr") :]
    names = (*trivial.RULES, trivial.TREES, *results.PARTS, "best possible")
    order = [table.index(f"\n{name} ") for name in names]
    assert order == sorted(order)
    assert "negatives" not in printed
    assert Path("attention.png").read_bytes()[:4] == b"\x89PNG"
    assert len(pd.read_parquet("own.parquet")) == len(small.y)


def test_an_own_log_with_labels_uses_its_impressions_also_of_a_folder(clicks):
    label = np.where(np.arange(72) % 3 == 0, "seen", "skipped")
    own = study_of(clicks.assign(click=label), "--label", "click==seen", "--context", "device")
    assert own.y.tolist() == (label == "seen").astype(int).tolist()
    assert list(own.X) == ["u", "t", "i", "device", "hist_i"]
    folder = Path("days")
    folder.mkdir()
    clicks.to_parquet("log.parquet")
    for number, start in enumerate(range(0, 72, 24)):
        clicks[start : start + 24].to_parquet(folder / f"{number}.parquet")
    pd.testing.assert_frame_equal(study_of(folder).X, study_of("log.parquet").X)


@pytest.mark.parametrize(("label", "is_click"), [
    ("stars>=4", lambda stars: stars >= 4),
    ("stars < 2.5", lambda stars: stars < 2.5),
    ("device==phone", lambda stars: np.arange(72) % 5 < 2),
    ("device != phone", lambda stars: np.arange(72) % 5 >= 2),
])  # fmt: skip
def test_a_label_may_be_a_condition(clicks, capsys, label, is_click):
    stars = np.arange(72) % 5 + 1
    own = study_of(clicks.assign(stars=stars), "--label", label)
    np.testing.assert_array_equal(own.y, is_click(stars))
    said = f"note: a click is a row with {label}: {own.y.mean():.1%} of them"
    assert said in capsys.readouterr().out
    assert list(own.X) == ["u", "t", "i", "hist_i"]


@pytest.mark.parametrize("split", ["user", "time"])
def test_rules_say_what_a_plain_loop_over_the_rows_to_train_on_says(clicks, split):
    own = study_of(clicks.assign(click=np.arange(72) % 5 < 2), "--label", "click")
    folds, numbers = results.make_folds(own, split, 2), range(72)
    predicted = trivial.predict_by_rules(own, folds, live=True)
    y, item, time = own.y, own.X["i"].tolist(), own.X["t"].tolist()
    in_history = np.array([item[n] in own.X["hist_i"].iloc[n] for n in numbers])
    for train, test in folds:
        assert split == "time" or not {*own.users.iloc[train]} & {*own.users.iloc[test]}
        assert np.sort([*train, *test]).tolist() == [*numbers]
        shown = [[r for r in train if item[r] == item[n] and time[r] < time[n]] for n in numbers]
        is_shown = np.array([len(rows) > 0 for rows in shown])
        clicks_of = {(own.users.iloc[r], item[r]) for r in train if y[r]}
        by_others = np.array(
            [any(i == item[n] and u != own.users.iloc[n] for u, i in clicks_of) for n in numbers]
        )
        yes_or_no = (is_shown, in_history, by_others)
        for n in test:
            like_it = [[r for r in train if is_so[r] == is_so[n]] for is_so in yes_or_no]
            expected = [
                sum(y[r] for r in train if item[r] == item[n]),
                (y[shown[n]].sum() + y[train].mean()) / (len(shown[n]) + 1),
                *(y[rows or train].mean() for rows in like_it),
            ]
            np.testing.assert_allclose([predicted[rule][n] for rule in trivial.RULES], expected)
            before = [r for r in numbers if item[r] == item[n] and time[r] < time[n]]
            rate = (y[before].sum() + y[train].mean()) / (len(before) + 1)
            np.testing.assert_allclose(predicted[trivial.LIVE_RATE][n], rate)


@pytest.mark.usefixtures("without_folds")
@pytest.mark.filterwarnings("ignore::UserWarning")  # of negatives, and that nothing was found
@pytest.mark.parametrize("is_labelled", [True, False])
def test_a_long_tail_of_noise_is_no_triumph_without_a_sentence(run, is_labelled):
    chance = np.random.RandomState(0)
    frame = pd.DataFrame({"u": chance.randint(60, size=500), "i": chance.randint(20_000, size=500)})
    frame["t"] = np.arange(500)
    if is_labelled:  # made elsewhere: negatives among what had been clicked, as nearly no click is
        others = [frame.assign(i=frame["i"].iloc[chance.randint(frame["t"] + 1)].array)] * 2
        frame = pd.concat([frame.assign(y=1), *(rows.assign(y=0) for rows in others)])
    printed = run(frame, *NAMES, *FAST, *(["--label", "y"] if is_labelled else []))
    table = printed[printed.rindex(" GAUC ") :]
    telling = ["clicked by others or not", "shown before or not"][is_labelled]
    assert f"note: the baseline '{telling}' alone has an AUC of 0." in printed
    assert float(table.split(f"\n{telling} ")[1].split()[0]) > 0.7


def test_a_rule_is_named_where_it_is_ahead_of_a_model_beyond_chance():
    y = np.arange(3000) % 2
    auc = dict.fromkeys(trivial.RULES, 0.5) | {"click rate so far": 0.7, "base": 0.65, "DIN": 0.72}
    said = trivial.note_better_rules(auc, y, models=["base", "DIN"])
    start = "note: the baseline 'click rate so far' alone has an AUC of 0.7000, more than "
    assert said.startswith(f"{start}base, 0.6500. A gain over the base model says little then:")
    assert said.endswith(
        "compare DIN with this baseline."
    )  # a rate says nothing of how rows were drawn
    said = trivial.note_better_rules(auc | {"shown before or not": 0.9}, y, models=["base"])
    assert said.endswith(
        "compare DIN with this baseline. If rows without a click were drawn, see how."
    )
    said = trivial.note_better_rules(auc | {"DIN": 0.6}, y, models=["base", "DIN"])
    assert said.startswith(f"{start}base, 0.6500, and DIN, 0.6000. ")
    assert trivial.note_better_rules(auc | {"base": 0.69}, y, models=["base", "DIN"]) == ""
    auc |= {trivial.LIVE_RATE: 0.8}  # which knows more than these models do
    assert trivial.LIVE_RATE not in trivial.note_better_rules(auc, y, models=["base"])
    said = trivial.note_better_rules(auc, y, models=["DIN"], rules=[trivial.LIVE_RATE])
    assert said.startswith(
        "note: the baseline 'click rate so far, live' alone has an AUC of 0.8000"
    )


def test_a_baseline_with_a_smaller_log_loss_than_every_network_is_named_beyond_chance():
    y = np.arange(4000) % 2
    good, fair, bad = (np.where(y == 1, p, 1 - p) for p in (0.8, 0.7, 0.6))
    names = {"models": ["DIN", "DIN, with trees"], "baselines": ["popularity", trivial.TREES]}
    predicted = {"popularity": good * 9, trivial.TREES: good, "DIN": bad, "DIN, with trees": fair}
    noted = trivial.note_smaller_loss(predicted, y, **names)
    assert noted.startswith(f"note: the baseline '{trivial.TREES}' alone has a log loss of 0.2231")
    assert "the best network, 'DIN, with trees', 0.3567" in noted
    assert trivial.note_smaller_loss(predicted | {"DIN": good}, y, **names) == ""
    noisy = np.random.RandomState(0).uniform(0.4, 0.6, len(y))
    by_chance = predicted | {trivial.TREES: noisy, "DIN": noisy[::-1]}
    assert trivial.note_smaller_loss(by_chance, y, **names | {"models": ["DIN"]}) == ""
    failed = predicted | {trivial.TREES: np.full(len(y), np.nan)}
    assert trivial.note_smaller_loss(failed, y, **names) == ""


@pytest.mark.parametrize("name", ["log.jsonl", "log.json", "log.ndjson.gz", "log.json.xz"])
def test_json_is_read_as_csv_is(clicks, capsys, name):
    is_array = ".json" in Path(name).suffixes
    frame = clicks.assign(click=np.arange(72) % 5 < 2, tags=[["a", "b"]] * 72)
    frame.loc[3, "device"] = None
    frame.to_json(name, orient="records", lines=not is_array, date_format="iso")
    frame.drop(columns="tags").to_csv("log.csv", index=False)
    options = ["--label", "click", "--context", "device"]
    found, expected = (study_of(path, *options) for path in (name, "log.csv"))
    assert "columns of lists or objects are not read: tags" in capsys.readouterr().out
    pd.testing.assert_frame_equal(found.X, expected.X, check_dtype=False)
    np.testing.assert_array_equal(found.y, expected.y)


@pytest.mark.parametrize("text", ['{"u": 1,', '[{"u": 1}', "nothing"])
def test_damaged_json_is_refused_as_json(refused, text):
    Path("log.json").write_text(text)
    assert "log.json cannot be read as JSON in utf-8" in refused("log.json", *NAMES)
    assert "--sep is for CSV" in refused("log.json", *NAMES, "--sep", ";")


@pytest.mark.parametrize(("label", "is_click"), [
    ("home>away", lambda home, away: home > away),
    ("home <= away", lambda home, away: home <= away),
    ("home==away", lambda home, away: home == away),
    ("side!=winner", lambda home, away: np.arange(72) % 2 != np.arange(72) % 3),
])  # fmt: skip
def test_a_label_may_compare_two_columns(refused, clicks, label, is_click):
    home, away = np.arange(72) % 4, np.arange(72) % 3
    sides = {"side": (np.arange(72) % 2).astype(str), "winner": (np.arange(72) % 3).astype(str)}
    frame = clicks.assign(home=home, away=away, **{n: "s" + s for n, s in _texts(sides)})
    own = study_of(frame, "--label", label)
    np.testing.assert_array_equal(own.y, is_click(home, away))
    assert list(own.X) == ["u", "t", "i", "hist_i"]
    message = refused("log.csv", *NAMES, "--label", "home>away", "--context", "away")
    assert message == "a column has one role, got 'away' in --label and in another option."
    one_missing = frame.assign(away=np.where(np.arange(72) == 5, np.nan, away))
    assert "1 in 'home'" in refused(one_missing, *NAMES, "--label", "home>away")


def _texts(columns):
    return ((name, pd.Series(values)) for name, values in columns.items())


def test_a_few_rows_without_a_user_are_left_out_with_a_note(refused, clicks, capsys):
    clicks["u"] = clicks["u"].where(np.arange(72) % 8 > 0)
    own = study_of(clicks)
    note = "note: 9 of 72 rows of log.csv left out, which have no 'u' (12.5%)"
    assert note in capsys.readouterr().out
    assert own.y.sum() == 63
    more = clicks.assign(u=clicks["u"].where(np.arange(72) % 3 > 0))
    assert "rows without a value" in refused(more, *NAMES)
    assert study_of("log.csv", "--drop-bad").y.sum() < 63


@pytest.mark.filterwarnings("ignore:every history is empty")
def test_labels_that_are_all_known_too_late_are_refused_in_words_of_the_command(refused, clicks):
    late = clicks.assign(click=np.arange(72) % 2, seen="2030-01-01")
    message = refused(late, *NAMES, "--label", "click", "--known", "seen", "--split", "time")
    assert message.startswith("no label is known before the last 20% of the rows begin")
    assert "gap" not in message


@pytest.mark.usefixtures("without_folds")
def test_sessions_that_are_new_when_they_rank_are_not_said_to_have_short_histories(capsys):
    chance = np.random.RandomState(0)
    frame = pd.DataFrame({"u": np.arange(2_000) // 8, "i": chance.randint(40, size=2_000)})
    log = as_text(frame.assign(t=np.arange(2_000)))
    with warnings.catch_warnings(action="always"):
        assert command.main([log, *NAMES, "--epochs", "1"]) == 0
    printed = capsys.readouterr()
    assert "NDCG@10" in printed.out
    assert "less than a third" not in printed.err


def test_users_who_come_back_may_have_negatives_of_their_own(capsys):
    frame = pd.DataFrame({"u": np.arange(200) % 10, "i": np.arange(200) % 3, "t": np.arange(200)})
    own = study_of(frame)
    assert capsys.readouterr().out == (
        "note: 85% of the clicks repeat one of the same user and item: negatives may be items of "
        "the user's own\n"
    )
    clicked = set(map(tuple, own.X.loc[own.y == 1, ["u", "i"]].to_numpy()))
    assert clicked & set(map(tuple, own.X.loc[own.y == 0, ["u", "i"]].to_numpy()))


def test_a_saved_model_of_clicks_alone_scores_new_rows_as_its_pipeline_does(run, clicks):
    clicks.to_csv("log.csv.gz", index=False)
    options = ["--category", "c", "--context", "device", "--picture", "a.svg", "--save", "model"]
    options += ["--output", "folds.parquet"]
    printed = run("log.csv.gz", *NAMES, *FAST, *options)
    assert "DIN fitted on all rows: model" in printed
    assert "20.0% clicked" in printed
    assert "best possible" not in printed
    assert "those among one click and 4 sampled negatives" in printed
    assert Path("a.svg").exists()
    folds = pd.read_parquet("folds.parquet")
    assert list(folds) == ["u", "t", "i", "c", "device", "clicked", "probability"]
    assert folds["probability"].between(0, 1).all()
    assert folds["clicked"].mean() == 0.2
    later = clicks.tail(9).assign(t="2025-01-01", note="kept")
    later.to_parquet("rows.parquet")
    run("predict", "model", "rows.parquet", "--output", "scores.parquet")
    scores = pd.read_parquet("scores.parquet")
    pd.testing.assert_frame_equal(scores.drop(columns="probability"), later.reset_index(drop=True))
    model = load("model")
    X = later.assign(t=pd.to_datetime(later["t"]))[["u", "t", "i", "c", "device"]]
    np.testing.assert_array_equal(scores["probability"], model.predict_proba(X)[:, 1])
    assert all(len(history) == 6 for history in model[0].transform(X)["hist_i"])


def test_a_model_of_rows_with_labels_is_saved_with_its_memory(run, clicks):
    told = clicks.assign(click=np.arange(72) % 5 < 2, stars=np.arange(72) % 3)
    options = ["--category", "c", "--label", "click", "--outcome", "stars", "click"]
    options += ["--epochs", "1", "--output", "scores.csv", "--save", "model"]
    printed = run(told, *NAMES, *options)
    assert "DIN with memory fitted on all rows: model" in printed
    assert "held-out users" not in printed  # by time, where nobody asks for folds
    tested = pd.read_csv("scores.csv")
    assert sorted(tested["t"]) == sorted(clicks["t"].tail(14))  # the last fifth
    assert tested["probability"].between(0, 1).all()
    clicks.tail(9).assign(t="2025-01-01").to_parquet("rows.parquet")
    run("predict", "model", "rows.parquet", "--output", "scores.parquet")
    rows, model = pd.read_parquet("scores.parquet"), load("model")
    X = rows.assign(t=pd.to_datetime(rows["t"]))[["u", "t", "i", "c"]]
    np.testing.assert_array_equal(rows["probability"], model.predict_proba(X)[:, 1])
    levels = model[0].transform(X)
    assert (levels["i_count"] == X["i"].map(clicks["i"].value_counts())).all()
    assert {"u_rate", "c_count", "hist_stars", "hist_click"} <= {*levels}


@pytest.fixture
def trained(monkeypatch):
    """The networks that were trained, in this order."""
    nets, train = [], net.train_new

    def note(own, *arguments, **options):
        nets.append(own)
        train(own, *arguments, **options)

    monkeypatch.setattr(net, "train_new", note)
    return nets


@pytest.mark.usefixtures("without_folds")
def test_rows_with_labels_are_tested_in_time_and_on_held_out_users(run, clicks, trained):
    options = ["--label", "click", "--split", "time", "user", "--output", "scores.csv"]
    printed = run(clicks.assign(click=np.arange(72) % 5 < 2), *NAMES, *FAST, *options)
    by_time, by_user = printed.split("\nthe last fifth in time:")[1].split("\nheld-out users in 2")
    assert "7 trainings (--epochs 1): base model, DIN and DIN with memory" in printed
    assert len(trained) == 7  # those with trees have the networks of those without
    for name in (trivial.LIVE_RATE, f"{trivial.TREES}, live", "DIN with memory, frozen"):
        assert f"\n{name} " in by_time
        assert name not in by_user
    assert printed.count("GAUC: mean of each user's own AUC") == 2
    assert len(pd.read_csv("scores.csv")) == 72


def test_trees_see_what_the_training_rows_say_before_each_row():
    chance = np.random.RandomState(0)
    frame = pd.DataFrame({"u": chance.randint(40, size=2000), "t": np.arange(2000)})
    frame["i"], frame["c"] = chance.randint(30, size=2000), chance.randint(3, size=2000)
    frame["click"] = chance.rand(2000) < frame["i"] / 30  # the item alone decides
    own = study_of(frame, "--label", "click", "--category", "c")
    ((train, test),) = folds = results.make_folds(own, "time", 2)
    said = trivial.predict_by_trees(own, folds, seed=0)
    assert np.isnan(said[train]).all()
    assert metrics.group_roc_auc_score(own.y[test], said[test], groups=[0] * len(test)) > 0.7
    changed = own._replace(y=np.where(np.isin(np.arange(2000), test), 1 - own.y, own.y))
    again = trivial.predict_by_trees(changed, folds, seed=0)
    np.testing.assert_array_equal(again[test], said[test])  # of the test rows no label is known
    live, other = (
        trivial.predict_by_trees(known, folds, seed=0, live=True) for known in (own, changed)
    )
    assert live[test[0]] == other[test[0]] == said[test[0]]  # nothing came before it
    assert (live[test] != other[test]).mean() > 0.5


@pytest.mark.filterwarnings("ignore::UserWarning")  # that nothing was found to learn
def test_a_log_of_clicks_ranks_what_was_clicked_later(run, clicks):
    printed = run(clicks, *NAMES, "--epochs", "1")
    assert "\nthe last fifth in time:\n" in printed
    assert re.search(r"\n +NDCG@10 +recall@10 +AUC", printed)
    own = study_of(clicks)
    ((train, test),) = results.make_folds(own, "time", 2)
    model = results.make_model(own.roles, {"max_epochs": 1, "random_state": 0}, order="time")
    model.fit(own.X.iloc[train], own.y[train])
    ranked = results.rank_later_clicks(own, "DIN", model, train, test)
    before, later = (own.X.iloc[part][own.y[part] == 1] for part in (train, test))
    popular = before["i"].value_counts()
    ndcg = []
    for _, items in later.groupby("u")["i"]:  # by a loop over the users
        place = popular.rank(ascending=False)
        gains = sum(
            (items.unique() == item).any() / np.log2(1 + place[item])
            for item in popular.index
            if place[item] <= 10
        )
        ndcg.append(gains / sum(1 / np.log2(2 + n) for n in range(min(10, items.nunique()))))
    assert ranked["popularity"]["ndcg"] == pytest.approx(np.mean(ndcg), abs=0.15)  # of ties
    assert 0 < ranked["DIN"]["recall"] <= 1


@pytest.mark.usefixtures("without_folds")
@pytest.mark.filterwarnings("ignore::UserWarning")  # of few labels
def test_what_an_opponent_or_a_score_cannot_compute_costs_its_own_cells_alone(run, monkeypatch):
    chance = np.random.RandomState(0)
    frame = pd.DataFrame({"u": np.arange(400), "i": chance.randint(30, size=400)})
    frame["t"], frame["click"] = np.arange(400), chance.rand(400) < 0.3  # each user comes once
    options = ["log.csv", *NAMES, *FAST, "--label", "click", "--split", "time"]
    own = study_of(frame, "--label", "click")  # of which trees have columns without a value
    folds = results.make_folds(own, "time", 2)
    assert np.isfinite(trivial.predict_by_trees(own, folds, seed=0)[folds[0][1]]).all()

    class Refusing(trivial.HistGradientBoostingClassifier):
        def fit(self, *_, **__):
            raise ValueError("window shape")

    monkeypatch.setattr(trivial, "HistGradientBoostingClassifier", Refusing)
    printed = run(*options, "--picture", "attention.png")  # users of one label
    assert "all clicked or none, 80 of 80. RelaImpr" in printed
    note = "note: no GAUC: GAUC needs at least one group with both classes, got 80 groups of one"
    assert printed.count(note) == 1
    cells = {row.split("  ")[0]: row.split()[-2:] for row in printed.splitlines()}
    for name in (*trivial.RULES[1:], *results.MODELS):
        assert all(float(cell.rstrip("%")) > 0 for cell in cells[name][:1]), name
    assert f"note: no {trivial.TREES}: window shape" in printed
    assert f"note: no {trivial.TREES}, live: window shape" in printed
    assert f"\n{trivial.TREES} " in printed
    assert "attention of impression" in printed


def test_rare_clicks_are_ranked_by_trees_and_a_probability_of_zero_has_a_log_loss():
    chance = np.random.RandomState(0)
    frame = pd.DataFrame({"u": chance.randint(200, size=6000), "i": chance.randint(40, size=6000)})
    frame["t"], frame["click"] = np.arange(6000), chance.rand(6000) < 0.03 * (frame["i"] < 8)
    own = study_of(frame, "--label", "click")
    folds = results.make_folds(own, "time", 2)
    notes, tests = {}, [folds[0][1]]
    assert 20 < own.y[folds[0][0]].sum() < 60
    trees = results._score(own, trivial.predict_by_trees(own, folds, seed=0), tests, "", notes)
    assert trees["AUC"] > 0.7
    zeros = results._score(own, own.y * 0.0, tests, trivial.RULES[1], notes)
    assert zeros["log loss"] > 0.1
    base_rate = np.full(6000, own.y[tests[0]].mean())
    assert results._score(own, base_rate, tests, "", notes)["NE"] == pytest.approx(1)
    assert zeros["NE"] > 1 > trees["NE"]
    assert np.isnan(results._score(own, own.y * 9.0, tests, trivial.RULES[0], notes)["log loss"])
    assert not notes


@pytest.mark.parametrize("has_outcome", [False, True])
def test_a_live_row_is_told_of_those_before_it_and_a_frozen_one_of_training_alone(
    clicks, has_outcome
):
    told = clicks.assign(click=np.arange(72) % 5 < 2, stars=np.arange(72) % 3)
    told["seen"] = (pd.to_datetime(told["t"]) + pd.to_timedelta(np.arange(72) % 9, "h")).astype(str)
    options = ["--outcome", "stars", "--known", "seen"] if has_outcome else []
    own = study_of(told, "--label", "click", *options)
    ((train, test),) = results.make_folds(own, "time", 2)
    parameters = {"max_epochs": 1, "random_state": 0}
    model = results.make_model(own.roles, parameters, order="time")
    said, _ = results._fit_and_predict(own, results.MEMORY, model, train, test)
    X, y, names = own.X[["u", "t", "i"]], own.y, {"user": "u", "time": "t", "columns": ["i"]}
    if has_outcome:
        X = X.assign(stars=told["stars"], seen=pd.to_datetime(told["seen"]))
        assert (X["seen"].iloc[train] < X["t"].iloc[test].min()).all()
        names |= {"events": "all", "outcomes": ["stars"], "known": "seen"}
    memory = HistoryBuilder(**names, levels="auto")
    twin = Pipeline([("history", memory), *clone(model).steps]).fit(X.iloc[train], y[train])
    rest = np.setdiff1d(np.arange(72), train)
    for place, n in [*enumerate(test)][::3]:
        before = rest[(X["t"].iloc[rest] < X["t"].iloc[n]).to_numpy()]
        told = remember(twin, X.iloc[before], y[before]) if len(before) else twin
        models = {f"{results.MEMORY}, frozen": twin, f"{results.MEMORY}, live": told}
        for name, of_row in models.items():
            expected = of_row.predict_proba(X.iloc[[n]])[0, 1]
            own = said[name + results.WITH_TREES][place]
            np.testing.assert_allclose(own, expected, rtol=1e-5, err_msg=name)


def test_values_that_cannot_be_read_are_counted_and_can_be_dropped(refused, clicks, capsys):
    stars = pd.Series(np.arange(72) % 5 + 1).astype(str)
    stars[[3, 9]] = "90/100"
    clicks.loc[7, "t"] = "yesterday"
    by_stars = ["--label", "stars>=4"]
    message = refused(clicks.assign(stars=stars), *NAMES, *by_stars)
    assert message.startswith("--label stars>=4 compares numbers: Unable to parse string")
    assert "90/100" in message
    assert "of 'stars'. --drop-bad leaves out rows that hold none. Also: 't' must" in message
    message = refused("log.csv", *NAMES)
    assert "got 'yesterday' in row 8 (below the header), 1 of 72 such rows in all" in message
    own = study_of("log.csv", *by_stars, "--drop-bad")
    printed = capsys.readouterr().out
    assert "note: 2 of 72 rows left out, which lack a value: 2 in 'stars'" in printed
    assert "note: 1 of 70 rows left out, whose 't' is no time such as '2024-01-01" in printed
    kept = np.setdiff1d(np.arange(72), [3, 7, 9])
    np.testing.assert_array_equal(own.y, stars[kept].astype(int) >= 4)


@pytest.mark.parametrize(("separator", "options", "said"), [
    ("\t", [], "is separated by '\\t' (--sep"),
    (";", [], "is separated by ';' (--sep"),
    ("|", [], "is separated by '|' (--sep"),
    ("\t", ["--sep", "\\t"], ""),
    ("\t", ["--sep", "tab"], ""),
    ("::", ["--sep", "::"], ""),
])  # fmt: skip
def test_the_separator_is_found_in_the_header_or_given(clicks, capsys, separator, options, said):
    text = clicks.to_csv(index=False, lineterminator="\n").replace(",", separator)
    Path("log.dat").write_text(text)
    assert len(study_of("log.dat", *options).X) == 5 * 72
    out = capsys.readouterr().out
    assert said in out
    assert bool(said) == bool(out)


def test_decimals_of_a_database_are_integers_or_floats():
    cells = {"id": [7, None, 2**60 + 1], "price": ["1.5", "2", None], "long": [10**30] * 3}
    frame = pd.DataFrame({n: [None if c is None else Decimal(c) for c in cells[n]] for n in cells})
    frame.to_parquet("log.parquet")
    table = read_table(Path("log.parquet"), [], Options(sep=None, encoding=None, text=[]))
    expected = pd.DataFrame({"id": pd.array(cells["id"], "Int64"), "price": [1.5, 2, np.nan]})
    pd.testing.assert_frame_equal(table, expected.assign(long=frame["long"]))


def test_an_encoding_may_be_given(refused, clicks):
    clicks.assign(i="é" + clicks["i"]).to_csv("log.csv", index=False, encoding="latin-1")
    assert "or its --encoding, such as latin-1" in refused("log.csv", *NAMES)
    assert study_of("log.csv", "--encoding", "latin-1").X["i"].str.startswith("é").all()


@pytest.mark.parametrize(("times", "arguments", "read"), [
    (["13/02/2024", "01/02/2024"], [], ["2024-02-13", "2024-02-01"]),
    (["01/02/2024", "13/02/2024"], [], ["2024-02-01", "2024-02-13"]),
    (["01/02/2024", "02/13/2024"], [], ["2024-01-02", "2024-02-13"]),
    (["01.02.24 10:05", "13.02.24 9:00"], [], ["2024-02-01 10:05:00", "2024-02-13 09:00:00"]),
    (["2/13/24 1:05 PM", "2/1/24 1:05 AM"], [], ["2024-02-13 13:05:00", "2024-02-01 01:05:00"]),
    (["2024-01-02T10:00+01:00"], [], ["2024-01-02 09:00:00+00:00"]),
    (["20240102", "20240201"], ["--time-format", "%Y%d%m"], ["2024-02-01", "2024-01-02"]),
    (["2 Jan 2024", "13 Feb 2024"], [], ["2024-01-02", "2024-02-13"]),
    (["01/02/2024", "03/04/2024"], [], ["2024-01-02", "2024-03-04"]),  # that is said
])  # fmt: skip
def test_times_are_read_as_they_are_written(capsys, times, arguments, read):
    frame = pd.DataFrame({"u": 1, "i": [*"abcdefgh"][: len(times)], "t": times})
    frame.loc[len(frame)] = [2, "z", times[0]]
    X = study_of(frame, "--negatives", "1", *arguments).X
    assert X["t"].iloc[:-2:2].astype(str).tolist() == read
    out = capsys.readouterr().out
    assert ("such as 01/02/2024, could begin with the day" in out) == (times[1:] == ["03/04/2024"])
    assert bool(out) == (times[1:] == ["03/04/2024"])


def test_rows_without_a_user_item_or_time_are_counted_and_can_be_dropped(refused, clicks, capsys):
    clicks.loc[3, "i"] = clicks.loc[[3, 4], "t"] = None
    clicks.loc[5, "c"] = None
    message = "has 2 rows without a value: 1 in 'i', 2 in 't'. --drop-bad leaves them out."
    assert message in refused(clicks, *NAMES)
    own = study_of("log.csv", "--category", "c", "--drop-bad")
    assert "note: 2 of 72 rows left out" in capsys.readouterr().out
    assert own.y.sum() == 70
    assert own.X["c"].dtype == "Int64"
    assert own.X["c"].isna().any()


def test_long_ids_that_lost_digits_are_refused(refused, clicks):
    clicks["u"] = clicks["u"].astype(object) + 2**60
    clicks.loc[0, "u"] = None
    assert refused(clicks, *NAMES).startswith("'u' has missing values beside ids of more than 15")
    log = clicks.assign(u=1, c=clicks["u"])
    assert "ids of more than 15 digits" in refused(log, *NAMES, "--category", "c")


@pytest.mark.parametrize("name", ["log.csv.gz", "log.csv.xz", "log.csv.zip", "log.parquet"])
def test_damaged_files_are_refused(refused, name):
    Path(name).write_bytes(b"\x1f\x8b\x08\x00nothing of the kind")
    assert refused(name, *NAMES)


CATEGORY = ["--category", "c", "--folds", "3", "--drop-bad"]
BY_DAY, BY_Q = ["--time-format", "%Y-%m-%d"], ["--time-format", "%Q"]
ONCE = np.arange(72) == 0


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"t": ["2024-01-01", "yesterday"]}, [], "as '2024-01-01', got 'yesterday' in row 2"),
        ({"t": ["13/01/2024", "01/13/2024"]}, [], "the day first in 36 rows, such as '13/01/2024'"),
        ({"t": ["17", "later"]}, [], "such as '17', got 'later' in row 2"),
        ({"t": ["soon", "later"]}, [], "'t' must hold times such as 'soon', got 'soon' in row 1"),
        ({"t": ["01/02/2024 noon", "x"]}, [], "must hold times such as '01/02/2024 noon', got"),
        ({"t": ["2024-01-01", "2024-31-01"]}, BY_DAY, "got '2024-31-01' in row 2"),
        ({"t": ["2024-01-02T10:00Z", "2024-01-03T10:00"]}, [], "time zone in every row or in none"),
        ({"t": ["1", "2"]}, BY_Q, "bad directive"),
        ({"u": None}, CATEGORY, "every row of log.csv lacks a value: 72 in 'u'"),
        ({"c": 0.5}, CATEGORY, "'c' must hold ids, integers or text, got 0.5 in row 1. --text c"),
        ({"hist_i": "a"}, CATEGORY, "has columns ['hist_i'] of its own, but histories are made"),
        ({"u": [*"ab"], "i": range(72)}, CATEGORY, "--folds 3 needs at least 3 users, the log has"),
        ({"i": "one"}, CATEGORY, "has every item of the log, so there is no negative to sample"),
        ({"device": ["desktop", "phone"]}, ["--label", "device"],
         "'device' has 2 values, such as ['desktop', 'phone']. A condition says which rows are "
         "clicks: --label 'device==desktop' or --label 'device==phone'."),
        ({}, ["--label", "u"], "a column has one role, got ['u'] in several options"),
        ({"one": 1}, ["--label", "one"], "A log of clicks needs no --label"),
        ({"y": [0, 1], "i_rate": 0.5}, ["--label", "y", "--context", "i_rate"],
         "X already has columns ['i_rate'], which levels would add"),
        ({"rare": ONCE * 1}, ["--label", "rare"], "fold 1 of 1 by time has clicks alone or none"),
        ({"gap": np.where(ONCE, np.nan, np.arange(72) % 2)}, ["--label", "gap"],
         "has 1 rows without a value: 1 in 'gap'"),
        ("", [], "log.csv cannot be read as text in utf-8: No columns to parse from file"),
        ("u,i,t\n", [], "log.csv has no rows, only the names of its columns"),
        ("u,i,t\n1,a,5,6\n", [], "log.csv cannot be read as text in utf-8: Length of header"),
        ("user,i,t\n1,a,5\n", [], "log.csv has no column 'u'"),
        ('u,i,t\n1,"a,5\n', [], "row 1. Correct the file, or name its --sep"),
        *[({}, options, message) for options, message in [
            (["--folds", "1"], "--folds: must be a whole number of at least 2, got '1'"),
            (["--nonsense"], "unrecognized arguments: --nonsense"),
            (["--label", "device>4"], "--label device>4 compares numbers: Unable to parse"),
            (["--label", "c>=many"], "--label c>=many compares numbers: could not convert"),
            (["--label", "c>=0"],
             "--label c>=0 must be true of some rows and not of others, got 100%"),
            (["--split", "row"], "argument --split: invalid choice: 'row'"),
            (["--label", "c>=4", "--context", "c"], "has one role, got ['c']"),
            (["--label", "c", "--negatives", "2"],
             "--negatives is for a log of clicks, beside which"),
            (["--outcome", "c"], "--outcome and --known need --label, which says"),
            (["--context", "c", "c"], "a column has one role, got ['c']"),
            (["--context", "clicked", "--output", "o.csv"], "has columns ['clicked'] of its own"),
            (["--context", "devise"], "no column 'devise'; did you mean 'device'?"),
            (["--save", "no/model"], "--save no/model: there is no folder no. Make it first."),
            (["--save", "."], "--save . is a folder"),
            (["--output", "o.xlsx"], "--output must end in one of .parquet"),
            (["--output", "log.csv"], "--output log.csv is already read or written"),
            (["--output", "o.csv", "--save", "o.csv"], "o.csv is already read or written"),
            (["--picture", "no/a.png"], "--picture no/a.png: there is no folder no"),
            (["--picture", "a.txt"], "--picture must end in one of ."),
            (["--serve", "65536"], "--serve: must be a whole number from 0 to 65535"),
            (["--sep", ""], "log.csv cannot be read as text in utf-8: only single character"),
            (["--encoding", "utf-99"], "log.csv cannot be read as text in utf-99: unknown enc"),
        ]],
    ],
)  # fmt: skip
def test_wrong_options_and_logs_are_refused(refused, clicks, change, options, message):
    """A change is of columns, whose values are repeated, or the whole text of the file."""
    if isinstance(change, dict):
        lists = {n: np.resize(v, 72) if isinstance(v, list) else v for n, v in change.items()}
        as_text(clicks.assign(**lists))
    else:
        Path("log.csv").write_text(change)
    assert message in refused("log.csv", *NAMES, *options)


def test_missing_files_folders_and_names_and_options_of_text_for_parquet_are_refused(
    refused, clicks
):
    message = refused("nothing.csv", *NAMES)
    assert message == "argument log: no file nothing.csv: it does not exist"
    assert "no Parquet file in the folder" in refused(".", *NAMES)
    assert "it is a folder, not a file" in refused("predict", ".", clicks, "--output", "o.csv")
    message = "a log needs --user, --item and --time. log.csv has columns "
    assert refused("log.csv") == f"{message}{[*clicks]}."
    assert "--user, --drop-bad: only for a log" in refused("--user", "u", "--drop-bad")
    clicks.assign(day=pd.Timestamp("2024-01-01")).to_parquet("log.parquet")
    message = refused("log.parquet", *NAMES, "--context", "day")
    assert "--context cannot use dates, got ['day']" in message
    message = refused("log.parquet", *NAMES, "--sep", ";")
    assert message == "--sep and --encoding are for text, but log.parquet is Parquet."


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    make_clicks().to_csv(folder / "log.csv", index=False)
    own = study_of(folder / "log.csv")
    save(results.fit_final_model(own, {"max_epochs": 1, "random_state": 0}), folder / "model")
    return folder / "model"


@pytest.mark.parametrize(("change", "message"), [
    ({"probability": 1}, "log.csv has a column 'probability' of its own"),
    ({"hist_i": 1}, "log.csv has columns ['hist_i'] of its own"),
    ({"t": None}, "has 72 rows without a value: 72 in 't'"),
    ({"t": "never"}, "got 'never' in row 1"),
    ({"t": 5}, "must hold datetimes without a zone"),
    ({"u": "ann"}, "'u' must hold values of one kind"),
])  # fmt: skip
def test_rows_that_a_model_cannot_score_are_refused(saved, refused, clicks, change, message):
    log = clicks.assign(**change)
    assert message in refused("predict", saved, log, "--output", "scores.csv")


def test_what_is_no_model_is_refused(refused, clicks):
    save(HistorySequenceEncoder(), "encoder")
    arguments = [as_text(clicks), "--output", "scores.csv"]
    message = refused("predict", "log.csv", *arguments)
    assert "'log.csv' is no whole, unchanged file that sklearn_din.save wrote" in message
    message = refused("predict", "encoder", *arguments)
    assert "encoder is no model that --save wrote, but a HistorySequenceEncoder" in message
    assert "no file none" in refused("predict", "none", *arguments)
    assert "--output" in refused("predict", "encoder", "log.csv")


def test_without_matplotlib_a_picture_is_refused(refused, clicks, monkeypatch):
    monkeypatch.setattr(results.importlib.util, "find_spec", lambda name: None)
    message = refused(clicks, *NAMES, "--picture", "a.png")
    assert "pip install 'sklearn-din[plot]'" in message


def test_warnings_are_notes_and_the_version_is_the_packages(capsys):
    command._show_warning(UserWarning("two\n  lines"), UserWarning, "file.py", 1)
    assert capsys.readouterr().err == "note: two lines\n"
    with pytest.raises(SystemExit) as stop:
        command.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"sklearn-din {sklearn_din.__version__}\n"


def test_all_that_is_wrong_with_a_log_is_said_at_once_before_torch(clicks):
    code = "import sys; from sklearn_din.__main__ import main\ntry: main(sys.argv[1:])\nfinally: "
    code += "assert not {'torch', 'skorch'} & {*sys.modules}"
    options = [as_text(clicks.assign(t="soon")), *NAMES, "--label", "c"]
    command = [sys.executable, "-c", code, *options]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.returncode == 2
    assert "--label needs" in child.stderr
    assert "Also: 't' must hold times" in child.stderr


def test_ids_that_look_like_numbers_are_read_as_text(clicks):
    clicks["u"] = clicks["u"].map("93779.{}0".format)
    clicks.assign(u=clicks["u"].astype(float)).to_parquet("log.parquet")
    for log in (clicks, "log.parquet"):
        own = study_of(log, "--text", "u")
        assert own.users.str.startswith("93779.").all()
