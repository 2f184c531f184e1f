"""The command line, on small logs."""

import pandas as pd
import pytest

import sklearn_din.__main__ as command
from sklearn_din.datasets import make_click_log


@pytest.fixture
def small_log(monkeypatch):
    log = make_click_log(n_users=60, n_items=40, n_categories=6, random_state=0)
    monkeypatch.setattr(command, "make_click_log", lambda random_state: log)
    monkeypatch.setattr(
        command,
        "MODELS",
        {
            "base model (sum pooling)": {"pooling": "sum", "max_epochs": 12},
            "DIN": {"max_epochs": 1},
        },
    )
    return log


def test_the_embedded_log_gives_a_table_beside_the_ceiling_and_a_picture(
    small_log, tmp_path, capsys
):
    picture = tmp_path / "attention.png"
    assert command.main(["--folds", "2", "--picture", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "base model (sum pooling), fold 1 of 2: AUC" in printed
    assert "best possible" in printed
    assert "RelaImpr" in printed
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_own_log_of_clicks_gets_sampled_negatives(small_log, tmp_path, capsys, suffix):
    path = tmp_path / f"log{suffix}"
    events = small_log.events.rename(columns={"user": "u", "item": "i", "time": "t"})
    events.to_csv(path, index=False) if suffix == ".csv" else events.to_parquet(path)
    names = ["--user", "u", "--item", "i", "--time", "t", "--category", "category"]
    command.main([str(path), *names, "--folds", "2", "--picture", str(tmp_path / "a.png")])
    printed = capsys.readouterr().out
    assert "20.0% clicked" in printed
    assert "best possible" not in printed


def test_an_own_log_with_labels_uses_its_impressions(small_log, tmp_path):
    path = tmp_path / "log.csv"
    small_log.impressions.assign(click=small_log.y).to_csv(path, index=False)
    options = command.parse(
        [str(path), "--user", "user", "--item", "item", "--time", "time", "--label", "click"]
    )
    study = command.own_study(options)
    assert len(study.X) == len(small_log.y)
    assert study.y.sum() == small_log.y.sum()
    assert list(study.X) == ["user", "time", "item", "hist_item"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["--user", "nobody", "--item", "item", "--time", "time"],
            r"no column \['nobody'\]; it has",
        ),
        (
            ["--user", "user", "--item", "item", "--time", "time", "--label", "item"],
            "--label needs two values, 'item' has",
        ),
    ],
)
def test_wrong_names_say_what_the_log_has(small_log, tmp_path, names, message):
    path = tmp_path / "log.csv"
    small_log.events.to_csv(path, index=False)
    with pytest.raises(SystemExit, match=message):
        command.own_study(command.parse([str(path), *names]))


def test_a_missing_file_and_missing_names_are_said(tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"no file .*nothing\.csv"):
        command.read_log(tmp_path / "nothing.csv")
    with pytest.raises(SystemExit):
        command.parse(["log.csv"])
    assert "a log needs --user, --item and --time" in capsys.readouterr().err


def test_a_log_without_dates_may_count_its_time(tmp_path):
    path = tmp_path / "log.csv"
    frame = pd.DataFrame({"u": [1, 1, 2, 2], "i": list("abcd"), "t": [1, 2, 1, 2]})
    frame.to_csv(path, index=False)
    study = command.own_study(
        command.parse([str(path), "--user", "u", "--item", "i", "--time", "t"])
    )
    assert len(study.X) == 20
