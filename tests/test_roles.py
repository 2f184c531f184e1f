"""Which part each column plays, by name and by the rules."""

import numpy as np
import pandas as pd

from sklearn_din.transformers import HistorySequenceEncoder
from tests.click_frames import as_lists, encoder, with_windows


def test_auto_finds_every_part():
    frame = with_windows(elapsed="hist_elapsed", columns=["item", "category", "price"])
    frame["tags"] = [["a", "b"], []] * 30
    frame["is_new"] = [True, False] * 30
    frame["when"] = pd.Timestamp("2020-01-01")
    schema = encoder().fit(frame).schema_

    assert [(field.name, field.kind, field.vocabulary) for field in schema.fields] == [
        ("item", "categorical", "item"),
        ("category", "categorical", "category"),
        ("price", "numeric", ""),
        ("hist_item", "history", "item"),
        ("hist_category", "history", "category"),
        ("hist_price", "numeric_history", ""),
        ("hist_elapsed", "numeric_history", ""),
        ("tags", "history", "tags"),
        ("is_new", "categorical", "is_new"),
    ]
    clicks, tags = schema.behaviours
    assert clicks.name == "hist_item+hist_category"
    assert clicks.candidates == ("item", "category")
    assert clicks.numbers == ("hist_price", "hist_elapsed")
    assert tags.is_bag


def test_auto_joins_only_columns_of_one_call():
    frame = with_windows(columns=["item"])
    frame["hist_category"] = with_windows(columns=["category"])["hist_category"]

    names = [behaviour.name for behaviour in encoder().fit(frame).schema_.behaviours]
    assert names == ["hist_item", "hist_category"]
    names = [b.name for b in encoder().fit(as_lists(with_windows())).schema_.behaviours]
    assert names == ["hist_item", "hist_category"]


def test_a_joint_history_without_candidate_stays_in_its_behaviour():
    schema = encoder().fit(with_windows().drop(columns="category")).schema_

    assert schema.behaviours[0].histories == ("hist_item", "hist_category")
    assert schema.behaviours[0].candidates == ("item", None)
    assert schema["hist_category"].vocabulary == "hist_category"


def test_a_float_candidate_of_a_history_of_ids_is_categorical():
    frame = pd.DataFrame({"item": [7.0, np.nan], "hist_item": [[7, 8], [8]]})
    X = HistorySequenceEncoder().fit_transform(frame)

    assert X["item"].tolist() == [2, 1]
    assert X["hist_item"].tolist() == [[2, 3], [3, 0]]


def test_integer_ids_that_missing_values_made_floats_stay_ids():
    frame = pd.DataFrame({"item": [7, 8], "hist_item": [np.array([7.0, np.nan]), np.array([8.0])]})

    assert HistorySequenceEncoder().fit_transform(frame)["hist_item"].tolist() == [[2, 1], [3, 0]]


def test_two_histories_may_share_one_candidate():
    frame = pd.DataFrame({"item": [1, 2], "clicks": [[3], [1]], "purchases": [[2], [4]]})
    histories = {"clicks": "item", "purchases": "item"}
    X = HistorySequenceEncoder(histories=histories).fit_transform(frame)

    assert X["purchases"].tolist() == [[3], [5]]
    assert X.schema.vocabulary_sizes == {"item": 6}


def test_naming_one_part_leaves_the_rules_to_the_others():
    frame = with_windows()
    frame["age"] = 30

    fitted = encoder(numeric=["age"]).fit(frame)
    assert fitted.schema_.names("numeric") == ["age"]
    assert fitted.schema_.names("categorical") == ["item", "category"]
    fitted = encoder(histories={"hist_item": "item"}, categorical=[]).fit(frame)
    assert fitted.schema_.names("categorical", "history") == ["item", "hist_item"]
