"""What looks like something else is said once, or refused; never taken for another meaning."""

import logging
import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from sklearn_din.utils.spelling import find_respelling
from tests.tables import said


def impressions(**columns):
    return pd.DataFrame({"item": [1, 2, 3] * 10} | columns)


@pytest.mark.parametrize(
    ("cells", "shown", "keep"),
    [([5, 6, 7], "5", "categorical"), ([0.5, 1.5, 2.5], "0.5", "numeric")],
)
def test_histories_that_are_none_or_without_a_candidate_are_said(cells, shown, keep):
    frame = impressions(hist_item=cells * 10)
    message = f"hist_item holds one value per cell, such as {shown}, .* column item mean a history"
    with pytest.warns(UserWarning, match=message):
        encoder = HistorySequenceEncoder().fit(frame)
    assert not encoder.schema_.behaviours
    HistorySequenceEncoder(**{keep: ["hist_item"]}).fit(frame)  # the user knows: nothing is said
    HistorySequenceEncoder(drop=["hist_item"]).fit(frame)
    HistorySequenceEncoder().fit(frame.rename(columns={"hist_item": "hist_other"}))  # no such item
    frame = impressions(hist_other=[[1], [2], []] * 10)
    with pytest.warns(UserWarning, match="hist_other have no candidate"):
        HistorySequenceEncoder().fit(frame)
    with pytest.warns(UserWarning, match="hist_other have no candidate"):
        HistorySequenceEncoder().fit(frame[1:])  # another fold reports it as well


@pytest.mark.parametrize(("column", "now", "message"), [
    ("item", "hat", "item was learnt as integers and now holds text: all of them are unknown"),
    ("item", True, "item was learnt as integers and now holds booleans"),
    ("shop", 3, "shop was learnt as text and now holds integers"),
    ("shop", pd.Timestamp("2024-01-01"), "shop was learnt as text and now holds dates"),
    ("shop", b"a", "shop was learnt as text and now holds bytes"),
])  # fmt: skip
def test_ids_of_another_kind_at_transform_are_unknown_and_that_is_said(column, now, message):
    fitted = HistorySequenceEncoder().fit(impressions(price=0.5, shop="a"))
    with pytest.warns(UserWarning, match=message):
        X = fitted.transform(impressions(price=0.5, shop="a").assign(**{column: now}))
    assert (X[column] == 1).all()
    for kind in (str, Decimal):  # text that spells the integers, and numbers of a database
        same = impressions(price=0.5, shop="a", item=[*map(kind, [1, 2, 3] * 10)])
        assert fitted.transform(same)["item"][:3].tolist() == [2, 3, 4]


def test_an_array_that_was_a_frame_with_histories_says_what_to_set():
    frame = impressions(hist_item=[[1], [2, 3], []] * 10, price=0.5)
    columns = ColumnTransformer([("scale", "passthrough", ["price"])], remainder="passthrough")
    message = r"lists such as \[1\] in its cells.* ColumnTransformer .*set_output\(transform='pan"
    with pytest.raises(ValueError, match=message):
        make_pipeline(columns, HistorySequenceEncoder()).fit(frame)
    columns.set_output(transform="pandas")
    schema = make_pipeline(columns, HistorySequenceEncoder()).fit(frame)[-1].schema_
    assert schema.behaviours[0].candidates == ("remainder__item",)


def test_times_from_1970_as_integers_are_said_and_the_advice():
    seconds = 1_400_000_000 + 3600 * np.arange(30)
    frame = impressions(at=np.tile(seconds, 1))
    message = "at holds integers that look like times in s since 1970, .* Name it, time='at'"
    with pytest.warns(UserWarning, match=message):
        HistorySequenceEncoder().fit(frame)
    for parameters in ({"time": "at"}, {"drop": ["at"]}, {"categorical": ["at"]}):
        HistorySequenceEncoder(**parameters).fit(frame)


@pytest.mark.parametrize("make", [int, "r{}".format])
def test_ids_that_number_the_rows_are_said_and_the_advice(make):
    frame = pd.DataFrame({"item": [1, 2] * 100, "request": [make(row) for row in range(200)]})
    message = r"request has 200 different (values|integers) in .*drop=\['request'\].*, in categori"
    with pytest.warns(UserWarning, match=message):
        HistorySequenceEncoder().fit(frame)
    for parameters in ({"drop": ["request"]}, {"categorical": ["request"]}):
        HistorySequenceEncoder(**parameters).fit(frame)
    HistorySequenceEncoder().fit(frame.assign(hist_request=[[make(1)]] * 200))
    frame.loc[:30, "request"] = make(0)
    HistorySequenceEncoder().fit(frame)


def make_frame(spell_item=str, spell_event=str, n_items=60):
    chance = np.random.default_rng(0)
    log = pd.DataFrame({"user": np.arange(400) % 20, "item": chance.integers(1, n_items + 1, 400)})
    log["time"] = np.arange(400)
    events = log.assign(item=[spell_event(item) for item in log["item"]])
    shown = log.assign(item=[spell_item(item) for item in log["item"]])
    return attach_history(shown, events, user="user", time="time", columns="item")


def encoder(**parameters):
    return HistorySequenceEncoder(user="user", time="time", **parameters)


@pytest.mark.parametrize(("spell_item", "spell_event", "words"), [
    ("{:05d}".format, str, "which seem to be the same"),
    ("sku{}".format, "SKU{}".format, "which seem to be the same"),
    ("a{} ".format, "a{}".format, "which seem to be the same"),
    (str, "{}.0".format, "which seem to be the same"),
    (int, lambda item: item + 1_000, r"\d+ and \d+"),  # as they are typed
], ids=["leading zeros", "upper case", "spaces", "floats", "numbers"])  # fmt: skip
def test_a_candidate_and_a_history_that_share_no_id_and_the_advice(spell_item, spell_event, words):
    frame = make_frame(spell_item, spell_event)
    (message,), _ = said(lambda: encoder().fit(frame))
    expected = f"share 0% of their ids, such as .*{words}: next to nothing of a history can match"
    assert re.search(expected, message)
    assert said(lambda: encoder().fit(make_frame(spell_item, spell_item)))[0] == []  # in one way


def test_catalogues_that_share_no_id_are_said_unless_they_are_small():
    frame = make_frame("film {}".format, "song {}".format)
    (message,), _ = said(lambda: encoder().fit(frame))
    assert "seem to be the same" not in message
    assert message.endswith("or name the column that the history belongs to in histories.")
    assert said(lambda: encoder(histories={"hist_item": None}).fit(frame))[0] == []  # the advice
    assert said(lambda: encoder().fit(make_frame(lambda i: i, lambda i: i + 50)))[0] == []
    few = make_frame("{:02d}".format, "x{}".format, n_items=9)
    assert said(lambda: encoder().fit(few))[0] == []
    known = np.array(["7", "42", "x"], dtype=object)  # most values must have another spelling
    assert find_respelling(np.array(["07", "new"], dtype=object), known) is None
    assert find_respelling(np.array(["07", "X", "new"], dtype=object), known) == ("07", "7")


def test_new_items_new_users_and_single_rows_are_no_mistake():
    frame = make_frame()
    frame["shop"] = "s" + frame["user"].astype(str)
    fitted = encoder().fit(frame)
    new_items = [str(int(i) + 1000 * (int(i) % 3 > 0)) for i in frame["item"]]
    assert said(lambda: fitted.transform(frame.assign(item=new_items)))[0] == []
    assert said(lambda: fitted.transform(frame.assign(shop=frame["shop"] + "b")))[0] == []
    row = frame.iloc[:3].assign(item="new", hist_item=[["other"]] * 3)
    assert said(lambda: fitted.transform(row))[0] == []


@pytest.mark.parametrize(("respell", "example"), [
    ("new-{}".format, " for 'new-"),
    ("{} ".format, " for '"),
    (lambda item: f"{int(item) + 1000}", "'1', and"),
], ids=["a prefix", "a space", "strangers"])  # fmt: skip
def test_a_catalogue_of_strangers_and_the_respelling_that_makes_it_known(respell, example):
    frame = make_frame()
    fitted = encoder().fit(frame)
    strangers = [respell(item) for item in frame["item"]]
    strangers[0] = frame["item"][0] if "for" in example else strangers[0]  # one right row hides it
    (message,), _ = said(lambda: fitted.transform(frame.assign(item=strangers)))
    assert "of item " in message
    assert example in message


def test_a_number_and_text_that_spells_it_in_one_column_are_said_and_the_advice():
    log = pd.DataFrame({"item": [1, "1", "A12", 2] * 3, "user": [7, "7", 8, "x"] * 3})
    log["time"] = range(12)
    both = "which are two ids. Write all in one way, {0} = {0}.astype(str)."
    with pytest.raises(ValueError, match=r"events\['user'\] holds 7 and '7', which are two ids"):
        attach_history(log, log, user="user", time="time", columns="item")
    log["user"] = log["user"].astype(str)
    (message,), _ = said(lambda: encoder().fit(log))
    assert message == "X['item'] holds 1 and '1', " + both.format("X['item']")
    log["item"] = log["item"].astype(str)
    assert said(lambda: encoder().fit(log))[0] == []


def test_each_fit_reports_its_findings_once_also_in_cross_validation(caplog):
    chance = np.random.RandomState(0)
    numbers, y = chance.rand(60, 3), np.arange(60) % 2
    classifier = DINClassifier(max_epochs=1, random_state=0)

    def n_reports():
        return sum("was given numbers alone" in record.message for record in caplog.records)

    with caplog.at_level(logging.WARNING, logger="sklearn_din"):
        classifier.fit(numbers, y)
        assert n_reports() == 1
        classifier.predict_proba(numbers)
        classifier.fit(numbers, y)
        assert n_reports() == 2
        cross_val_score(classifier, numbers, y, cv=3)
        assert n_reports() == 5
