"""Ids that are written in two ways and never meet are said; new ids are not."""

import numpy as np
import pandas as pd
import pytest

from sklearn_din import HistorySequenceEncoder, attach_history
from sklearn_din.encoding.notices import find_respelling
from tests.tables import said


def make_frame(spell_item=str, spell_event=str, n_items=60):
    chance = np.random.default_rng(0)
    log = pd.DataFrame({"user": np.arange(400) % 20, "item": chance.integers(1, n_items + 1, 400)})
    log["time"] = np.arange(400)
    events = log.assign(item=[spell_event(item) for item in log["item"]])
    shown = log.assign(item=[spell_item(item) for item in log["item"]])
    return attach_history(shown, events, user="user", time="time", columns="item")


def encoder(**parameters):
    return HistorySequenceEncoder(user="user", time="time", **parameters)


@pytest.mark.parametrize(
    ("spell_item", "spell_event"),
    [
        ("{:05d}".format, str),
        ("sku{}".format, "SKU{}".format),
        ("a{} ".format, "a{}".format),
        (str, "{}.0".format),
    ],
    ids=["leading zeros", "upper case", "spaces", "floats"],
)
def test_a_candidate_and_a_history_that_share_no_id_and_the_advice(spell_item, spell_event):
    frame = make_frame(spell_item, spell_event)
    (message,), _ = said(lambda: encoder().fit(frame))
    assert "share 0% of their ids, such as" in message
    assert ", which seem to be the same: next to nothing of a history can match its" in message
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


def test_ids_that_are_all_unknown_at_predict_are_said_once_for_each_column():
    fitted = encoder().fit(make_frame("sku{}".format, "sku{}".format))
    upper = make_frame("SKU{}".format, "SKU{}".format)
    messages, _ = said(lambda: [fitted.transform(upper) for _ in range(3)])
    assert messages == [
        f"no id of {name} is known from fit, where they were such as 'sku{item}' for 'SKU{item}', "
        "and 0% were new late in training: all others have the unknown id. Write them as they were "
        "written at fit (upper case, prefixes, leading zeros, spaces)."
        for name, item in (("item", messages[0].split("'sku")[1].split("'")[0]),
                           ("hist_item", messages[1].split("'sku")[1].split("'")[0]))
    ]  # fmt: skip
    lower = upper.assign(item=upper["item"].str.lower())
    lower["hist_item"] = [[item.lower() for item in cell] for cell in upper["hist_item"]]
    assert said(lambda: fitted.transform(lower))[0] == []  # the advice


def test_new_items_new_users_and_single_rows_are_no_mistake():
    frame = make_frame()
    frame["shop"] = "s" + frame["user"].astype(str)
    fitted = encoder().fit(frame)
    new_items = [str(int(i) + 1000 * (int(i) % 3 > 0)) for i in frame["item"]]
    assert said(lambda: fitted.transform(frame.assign(item=new_items)))[0] == []
    assert said(lambda: fitted.transform(frame.assign(shop="t" + frame["shop"])))[0] == []
    row = frame.iloc[:3].assign(item="new", hist_item=[["other"]] * 3)
    assert said(lambda: fitted.transform(row))[0] == []


@pytest.mark.parametrize(
    ("respell", "example"),
    [
        ("new-{}".format, " for 'new-"),
        ("{} ".format, " for '"),
        (lambda item: f"{int(item) + 1000}", "'1', and"),
    ],
    ids=["a prefix", "a space", "strangers"],
)
def test_a_catalogue_of_strangers_and_the_respelling_that_makes_it_known(respell, example):
    frame = make_frame()
    fitted = encoder().fit(frame)
    strangers = [respell(item) for item in frame["item"]]
    strangers[0] = frame["item"][0] if "for" in example else strangers[0]  # one right row hides it
    (message,), _ = said(lambda: fitted.transform(frame.assign(item=strangers)))
    assert "of item " in message
    assert example in message


def test_where_new_ids_are_common_late_in_training_they_are_no_mistake():
    frame = make_frame()
    late = [f"i{n}" if n >= 320 else item for n, item in enumerate(frame["item"])]
    launched = frame.assign(item=late)
    fitted = encoder().fit(launched)
    assert fitted._learnt.late_unknown["item"] == 1
    news = frame.assign(item=[f"x{n % 70}" for n in range(400)])
    assert said(lambda: fitted.transform(news))[0] == []
    shuffled = launched.sample(frac=1, random_state=0, ignore_index=True)
    assert encoder().fit(shuffled)._learnt.late_unknown == fitted._learnt.late_unknown


def test_a_number_and_text_that_spells_it_in_one_column_are_said_and_the_advice():
    log = pd.DataFrame({"item": [1, "1", "A12", 2] * 3, "user": [7, "7", 8, "x"] * 3})
    log["time"] = range(12)
    both = "which are two ids. Write all in one way, {0} = {0}.astype(str)."
    (message,), _ = said(lambda: attach_history(log, log, user="user", time="time", columns="item"))
    assert message == "events['user'] holds 7 and '7', " + both.format("events['user']")
    log["user"] = log["user"].astype(str)
    (message,), _ = said(lambda: encoder().fit(log))
    assert message == "X['item'] holds 1 and '1', " + both.format("X['item']")
    log["item"] = log["item"].astype(str)
    assert said(lambda: encoder().fit(log))[0] == []
