"""Which part each column plays, by name and by the rules."""

import ast
import io
import pickle
import re
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sklearn_din import (
    DINClassifier,
    HistorySequenceEncoder,
    attach_history,
    scan_parquet,
)
from sklearn_din.encoding.cells import factorize
from sklearn_din.encoding.column import Part
from sklearn_din.encoding.ids import IdColumn
from sklearn_din.encoding.roles import assign_roles
from tests.click_frames import as_lists, encoder, make_log, with_windows


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


PRICED = pd.DataFrame({"item": ["a", "b"] * 20, "hist_item": [["a", "b"], ["b"]] * 20})
CENTS, WHOLE, GONE = [199, 250] * 20, [2.0, 3.0] * 20, [2.0, None] * 20
OF_CENTS, OF_WHOLE = [[199, 250], [250]] * 20, [[2.0, 3.0], [3.0]] * 20
EUROS, OF_EUROS = [1.99, 2.5] * 20, [[1.99, None], [2.5]] * 20
PAIRED = {"histories": {("hist_item", "hist_price"): ("item", "price")}}
ALONE = {"histories": {("hist_item", "hist_price"): ("item", None)}}


@pytest.mark.parametrize(("price", "past", "parameters", "kinds"), [
    (EUROS, OF_EUROS, {}, "compared"),
    (EUROS, OF_WHOLE, {}, "compared"),
    (WHOLE, OF_EUROS, {}, "compared"),
    (CENTS, OF_EUROS, {}, "compared"),  # either has fractions: both are quantities
    (CENTS, OF_CENTS, {}, "ids"),  # nothing tells them from ids
    (CENTS, OF_CENTS, {"numeric": ["price"]}, "compared"),
    (CENTS, OF_CENTS, {"numeric": ["price"], **PAIRED}, "compared"),
    (CENTS, OF_CENTS, PAIRED, "ids"),
    (GONE, OF_WHOLE, {"numeric": ["price"]}, "compared"),
    (EUROS, OF_EUROS, PAIRED, "compared"),
    (EUROS, OF_EUROS, ALONE, "numbers"),
    (EUROS, OF_EUROS, {"drop": ["price"]}, "numbers"),
    (EUROS, OF_EUROS, {"elapsed": ["hist_price"]}, "numbers"),
])  # fmt: skip
def test_numbers_of_events_are_compared_with_the_impressions(price, past, parameters, kinds):
    frame = PRICED.assign(price=price, hist_price=past)
    X = encoder(**{"drop": None, **parameters}).fit_transform(frame)
    field, (events,) = X.schema["hist_price"], X.schema.behaviours
    assert (events.numbers == ("hist_price",)) == (kinds != "ids")
    assert field.candidate == ("price" if kinds == "compared" else "")
    assert (events.candidate_of.get("hist_price") == "price") == (kinds == "ids")
    assert ("price" in repr(X.schema).split("hist_price")[1]) == (kinds != "numbers")
    if kinds == "compared":
        assert X.schema["price"].kind == "numeric"
        assert np.isnan(X["hist_price"]).any() == (past is OF_EUROS)


def test_a_number_that_one_history_is_compared_with_is_no_id_of_another():
    frame = PRICED.assign(view_item=PRICED["hist_item"], price=CENTS, view_price=OF_CENTS)
    for past, named in ((OF_EUROS, "auto"), (OF_CENTS, ["hist_price"])):
        schema = encoder(drop=None, numeric=named).fit(frame.assign(hist_price=past)).schema_
        assert schema["price"].kind == "numeric"
        assert {schema[name].candidate for name in ("hist_price", "view_price")} == {"price"}


def test_numbers_under_any_prefix_are_compared_and_other_lists_of_numbers_are_not():
    log = make_log()
    options = {"user": "user", "time": "time", "columns": ["item", "price"], "prefix": "buy_"}
    frame = attach_history(log, log, **options)
    assert encoder().fit(frame).schema_["buy_price"].candidate == "price"
    frame = frame.rename(columns={"buy_price": "buy_weight"})
    assert encoder().fit(frame).schema_["buy_weight"].candidate == ""


def behaviours_of(frame, **parameters):
    behaviours = encoder(**parameters).fit(frame).schema_.behaviours
    return [(*behaviour.histories, *behaviour.numbers) for behaviour in behaviours]


def test_auto_joins_histories_of_the_same_events_and_no_others():
    frame = with_windows(columns=["item"])
    frame["hist_category"] = with_windows(columns=["category"])["hist_category"]
    assert behaviours_of(frame) == [("hist_item", "hist_category")]  # two calls on one log
    shorter = frame.assign(hist_category=[cell[1:] for cell in frame["hist_category"]])
    assert behaviours_of(shorter) == [("hist_item",), ("hist_category",)]
    tagged = frame.assign(tags=[list(cell) for cell in frame["hist_category"]])
    assert ("tags",) in behaviours_of(tagged.drop(columns=["hist_category", "category"]))


def with_purchases(prefix="buy_", **options):
    """Two behaviours: clicks with two attributes and times elapsed, and purchases."""
    clicks = make_log(n_events=90)
    names = {"user": "user", "time": "time", "columns": ["item", "category"]}
    frame = attach_history(clicks, clicks, **names, elapsed="ago")
    return attach_history(frame, clicks.iloc[::3], **names | {"prefix": prefix} | options)


PAIR = ("hist_item", "hist_category")
BOTH = [
    ((*PAIR, "ago"), ("item", "category", None)),
    (("buy_item", "buy_category"), ("item", "category")),
]


def pairs_of(schema):
    """Histories and their candidates, by behaviour; a number of the events has None."""
    its = schema.behaviours
    return [((*b.histories, *b.numbers), (*b.candidates, *[None] * len(b.numbers))) for b in its]


def test_histories_of_any_prefix_are_paired_as_attached_and_through_a_file():
    frame = with_purchases()
    for other in (frame, *trips(frame)):
        assert pairs_of(encoder().fit(other).schema_) == BOTH


INTEGERS = ["int32", "uint8", "Int64", "int64[pyarrow]", "category", "object"]
FLOATS = ["float64", "double[pyarrow]"]  # ids where some are missing, else perhaps quantities
SOME_MISSING = [(d, where) for d in INTEGERS + FLOATS for where in ("in the log", "everywhere")]


@pytest.mark.parametrize(
    ("dtype", "missing", "prefix"),
    [(d, "none", prefix) for d in INTEGERS for prefix in ("hist_", "buy_")]
    + [(*kind, ("hist_", "buy_")[n // 2 % 2]) for n, kind in enumerate(SOME_MISSING)],
)
def test_an_id_pairs_with_its_history_however_it_is_stored(dtype, missing, prefix, tmp_path):
    log = make_log(n_events=90)
    ids, at = log["item"].astype("Int64"), log.index % 9 == 4

    def as_stored(values):
        is_plain = dtype in ("int32", "uint8")  # pandas makes floats of them where some are missing
        return values.astype("float32" if is_plain and values.hasnans else dtype)

    events = log.assign(item=as_stored(ids if missing == "none" else ids.mask(at)))
    log["item"] = as_stored(ids.mask(at) if missing == "everywhere" else ids)
    options = {"user": "user", "time": "time", "columns": "item", "prefix": prefix}
    frame = attach_history(log, events, **options)[["item", f"{prefix}item"]]
    path = tmp_path / "stored.parquet"
    frame.to_parquet(path)
    tables = [frame, scan_parquet(path), pd.read_parquet(path)]
    tables.append(pd.read_parquet(path, dtype_backend="pyarrow"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "item and .* hold whole numbers as floats")
        encoded = [encoder(drop=None).fit_transform(table) for table in tables]
    expected = encoded[0]
    assert pairs_of(expected.schema) == [((f"{prefix}item",), ("item",))]
    for other in encoded[1:]:
        assert other.schema == expected.schema
        for name in expected:
            np.testing.assert_array_equal(other[name], expected[name])


def test_a_named_bag_takes_no_other_history_and_a_list_needs_a_column_of_its_kind():
    frame = with_purchases()
    schema = encoder(histories={"hist_item": None}).fit(frame).schema_
    assert pairs_of(schema)[0] == (("hist_item",), (None,))
    assert (("hist_category", "ago"), ("category", None)) in pairs_of(schema)
    frame = with_windows(columns=["item"])
    frame["old_item"] = [["blue", "red"]] * len(frame)  # items are integers
    frame["old_price"] = [[0.5, 1.5]] * len(frame)
    frame["tags"] = [["red"]] * len(frame)
    schema = encoder(drop=["user", "time", "old_price"]).fit(frame).schema_
    assert pairs_of(schema)[1:] == [(("old_item",), (None,)), (("tags",), (None,))]


def test_the_advice_for_a_history_without_a_candidate_on_the_frame_that_raised_it():
    frame = with_purchases(prefix="buy", columns=["item"])
    frame["item"] = [f"i{item}" for item in frame["item"]]
    for name in ("hist_item", "buyitem"):
        frame[name] = [[f"i{item}" for item in cell] for cell in frame[name]]
    with pytest.warns(UserWarning, match="buyitem have no candidate") as caught:
        encoder().fit(frame)
    advice = ast.literal_eval(re.search(r"histories=(\{.*?\})", str(caught[0].message))[1])
    assert advice == {"buyitem": "item"}
    pairs = pairs_of(encoder(histories=advice).fit(frame).schema_)
    assert dict(pairs)["buyitem",] == ("item",)
    assert dict(pairs)[(*PAIR, "ago")] == ("item", "category", None)


def visits(kind="int", columns=("goods_id", "shop_id")):
    """Rows with the names of a shop: histories named otherwise than attach_history does."""
    goods, shop = columns
    names = {"item": goods, "category": shop}
    frame = with_windows(columns=["item", "category"])
    frame = frame.rename(columns={f"hist_{name}": f"visited_{new}s" for name, new in names.items()})
    frame = frame.rename(columns=names)
    for name in frame.columns if kind == "text" else ():
        if name.startswith("visited_"):
            frame[name] = [[f"g{value}" for value in cell] for cell in frame[name]]
        elif name in columns:
            frame[name] = "g" + frame[name].astype(str)
    return frame


@pytest.mark.parametrize("kind", ["int", "text"])
def test_histories_are_paired_by_the_words_of_names_and_shared_ids(kind, as_form):
    frame = visits(kind)
    if kind == "int":
        frame["other"] = np.arange(len(frame)) % 40  # integers that are also ids of goods and shops
    fitted = encoder(categorical=["other"] if kind == "int" else []).fit(as_form(frame))
    histories = "visited_goods_ids", "visited_shop_ids"
    assert pairs_of(fitted.schema_) == [(histories, ("goods_id", "shop_id"))]
    report = fitted.report(frame)
    assert report["candidate"].dropna().to_dict() == dict(
        zip(histories, ("goods_id", "shop_id"), strict=True)
    )
    named = encoder(histories={histories: ("goods_id", "shop_id")})
    assert named.fit(frame).schema_.behaviours == fitted.schema_.behaviours


def test_a_history_without_an_own_column_by_name_is_paired_by_its_ids():
    frame = with_windows(columns=["item"]).rename(columns={"item": "item_id"})
    assert pairs_of(encoder().fit(frame).schema_) == [(("hist_item",), ("item_id",))]


@pytest.mark.parametrize("tags", [
    [[n % 30, (n + 7) % 30] for n in range(60)],  # numbers of tags are small numbers of items
    [[f"t{n % 30}"] for n in range(60)],
])  # fmt: skip
def test_bags_whose_names_have_words_of_another_column_stay_bags(tags):
    frame = pd.DataFrame({"item": np.arange(60) * 9, "item_tags": tags})
    schema = encoder(drop=[], categorical=["item"]).fit(frame).schema_
    assert pairs_of(schema) == [(("item_tags",), (None,))]


def test_a_history_of_two_columns_that_hold_its_ids_is_an_error_with_both_ways_out():
    frame = visits()
    frame["goods"] = frame["goods_id"]
    with pytest.raises(ValueError, match="may be a history of goods or of goods_id") as error:
        encoder().fit(frame)
    for advice in re.findall(r"histories=(\{.*?\})", str(error.value)):
        histories = ast.literal_eval(advice)
        pairs = dict(pairs_of(encoder(histories=histories).fit(frame).schema_))
        [(history, candidate)] = histories.items()
        of = {h: c for names, cs in pairs.items() for h, c in zip(names, cs, strict=False)}
        assert of[history] == candidate
    frame["goods"] = frame["goods_id"].max() + 1 + frame["goods_id"]
    assert pairs_of(encoder().fit(frame).schema_)[0][1][0] == "goods_id"


def test_float_ids_with_a_history_are_ids_and_that_is_said():
    log = pd.DataFrame({"item": [12345.0, np.nan, 12346.0, 12345.0, 12347.0], "time": range(5)})
    log.insert(0, "user", 1)  # items that became floats because one of them is missing
    frame = attach_history(log, log, user="user", time="time", columns="item")
    with pytest.warns(UserWarning, match="item and hist_item hold whole numbers as floats, as ids"):
        X = encoder().fit_transform(frame)
    assert X.schema.names("categorical", "history") == ["item", "hist_item"]
    assert X["item"].tolist() == [2, 1, 3, 2, 4]
    assert X["hist_item"][3].tolist() == [2, 1, 3, 0]


@pytest.mark.parametrize("cells", [["[22 29 7]", "[]", None], ["['a', 'b']", "[]", "['c']"]])
def test_histories_that_a_csv_file_made_text_are_refused(cells):
    frame = pd.DataFrame({"item": [22, 29, 7], "hist_item": cells})
    message = r"hist_item holds text such as .* where lists .* Parquet.*separator='\|'"
    with pytest.raises(ValueError, match=message):
        HistorySequenceEncoder().fit(frame)
    message = r"hist_item holds lists as text, .*brackets.*str\.replace"
    for separator in (",", " "):
        with pytest.raises(ValueError, match=message):
            HistorySequenceEncoder(separator=separator).fit(frame)
    with pytest.warns(UserWarning, match="hist_item holds lists as text"):
        HistorySequenceEncoder().fit(frame.rename(columns={"item": "shown"}))


def test_a_separator_alone_applies_to_text_histories():
    frame = pd.DataFrame({"item": ["22", "7", "29"], "hist_item": ["22|29|7", None, "7"]})
    X = HistorySequenceEncoder(separator="|").fit_transform(frame)
    assert X["hist_item"].tolist() == [[2, 3, 4], [0, 0, 0], [4, 0, 0]]
    message = r"separator=';' splits nothing in hist_item.* '22\|29\|7'"
    with pytest.raises(ValueError, match=message):
        HistorySequenceEncoder(separator=";").fit(frame.iloc[[1, 0, 2]].fillna(""))
    with pytest.raises(ValueError, match=r"got text such as '22\|29\|7', and separator is None"):
        HistorySequenceEncoder(histories={"hist_item": "item"}).fit(frame)


def trips(frame):
    """The same table as attached, through files, and in other libraries."""
    table = pa.table({name: pa.array(frame[name]) for name in frame})
    parquet, feather = io.BytesIO(), io.BytesIO()
    frame.to_parquet(parquet)
    frame.to_feather(feather)
    yield pd.read_parquet(parquet)
    yield pd.read_feather(feather)
    yield pytest.importorskip("polars").from_arrow(table)
    yield table
    yield frame.astype({name: object for name in frame if name.startswith("hist_")})
    yield as_lists(frame)


def test_the_same_table_gives_the_same_network():
    columns = ["item", "category", "price"]
    frame = with_windows(n_events=120, columns=columns, elapsed="hist_elapsed")
    y = np.arange(len(frame)) % 3 == 0
    fitted = encoder().fit(frame)
    classifier = DINClassifier(max_epochs=2, random_state=0).fit(fitted.transform(frame), y)
    expected = classifier.predict_proba(fitted.transform(frame))
    for other in trips(frame):
        again = encoder().fit(other)
        assert again.schema_ == fitted.schema_
        trained = DINClassifier(max_epochs=2, random_state=0).fit(again.transform(other), y)
        np.testing.assert_array_equal(trained.predict_proba(again.transform(other)), expected)


def with_amounts(n_rows=2_000, **columns):
    """A log whose items, 80 texts, were sold for 1,400 whole amounts."""
    rng = np.random.default_rng(0)
    numbers, users = rng.integers(0, 80, n_rows), rng.integers(0, 60, n_rows)
    log = pd.DataFrame({"user": users, "item": "i" + pd.Series(numbers).astype(str)})
    log["amount"], log["time"] = 20 * numbers + rng.integers(0, 60, n_rows), np.arange(n_rows)
    log = log.assign(**{name: made(numbers) for name, made in columns.items()})
    columns = [name for name in log if name not in ("user", "time")]
    return attach_history(log, log, user="user", time="time", columns=columns)


KINDS_OF_ITEMS = {"kind": lambda item: "k" + pd.Series(item % 25).astype(str)}


@pytest.mark.parametrize("part", [None, 300])
@pytest.mark.parametrize(("columns", "drop", "named", "item"), [
    ({}, [], None, "item"),  # and not the amounts, which have far more ids
    ({}, [], "amount", "amount"),
    ({}, ["item"], None, "amount"),  # the only one
    ({"item": lambda item: item}, [], None, "amount"),  # as far as is known: name the item
    ({"item": lambda item: item}, [], "item", "item"),
    ({"item": lambda item: item, **KINDS_OF_ITEMS}, ["amount"], None, "item"),  # honest twins
    ({"item": lambda item: item, "kind": lambda item: "k" + pd.Series(item)
      .sample(frac=1, random_state=0, ignore_index=True).mod(15).astype(str)}, ["amount"], None,
     "item"),
    (KINDS_OF_ITEMS, ["amount", "hist_item"], None, "kind"),
    (KINDS_OF_ITEMS, ["amount", "hist_item"], "item", "item"),  # with which none is compared
])  # fmt: skip
def test_the_item_is_the_one_named_or_what_has_most_ids_and_is_no_amount(
    columns, drop, named, item, part, tmp_path
):
    X = as_lists(with_amounts(**columns))
    encoder = HistorySequenceEncoder(user="user", time="time", drop=drop, item=named)
    if part is not None:
        X.to_parquet(tmp_path / "rows.parquet", row_group_size=part)
        X = scan_parquet(tmp_path / "rows.parquet", memory="1MB")
    encoder.fit(X)
    assert encoder.schema_.item == item
    assert pickle.loads(pickle.dumps(encoder)).schema_.item == item
    assert encoder.transform(X).schema.item == item


def test_columns_follow_from_the_item_that_is_named_which_must_be_of_single_ids():
    X = with_amounts(**KINDS_OF_ITEMS)
    assert encoder(item="item").fit(X)._learnt.of_item == ("kind",)
    assert encoder(item="kind").fit(X)._learnt.of_item == ()
    X, said = with_amounts(), r"item must be a column of single ids, got 'hist_item'; those of X ar"
    with pytest.raises(ValueError, match=said + r"e \['item', 'amount'\]\. Name whole"):
        encoder(item="hist_item").fit(X)


@pytest.mark.parametrize("missing", [[None] * 2, [np.nan] * 2, pd.array([None] * 2, "Float64")])
def test_a_batch_of_new_users_has_empty_histories(missing):
    frame = with_windows(columns=["item"])
    fitted = encoder().fit(frame)
    batch = frame.iloc[:2].assign(hist_item=missing)
    assert fitted.transform(batch)["hist_item_mask"].sum() == 0
    nulls = pd.Series([None, None], dtype=pd.ArrowDtype(pa.null()))
    nothing = frame.iloc[:2].assign(hist_item=nulls)
    nothing.index = batch.index
    assert fitted.transform(nothing)["hist_item"].shape == (2, 0)


@dataclass(frozen=True, eq=False)
class WeekdayColumn(IdColumn):
    """A kind of columns for this test: one made of the moments of another one."""

    of: str = ""

    @property
    def sources(self):
        return (self.of,)

    def read(self, columns):
        return Part({self.name: factorize(columns.frame[self.of] // 24 % 7, name=self.name)})


def test_a_column_may_be_made_of_another_one(monkeypatch, caplog):
    frame = pd.DataFrame({"user": 7, "hour": range(2_000), "item": [*"abcd"] * 500})

    def assign(table, **options):
        columns, notices = assign_roles(table, **options)
        weekday = WeekdayColumn("weekday", "weekday", of="hour")
        return replace(columns, columns=(*columns.columns, weekday)), notices

    monkeypatch.setattr("sklearn_din.transformers.assign_roles", assign)
    fitted = HistorySequenceEncoder(user="user", drop=["hour"]).fit(frame)
    read = pickle.loads(pickle.dumps(fitted))
    assert [field.name for field in read.schema_.fields] == ["weekday", "item"]
    ids = read.transform(frame).columns["weekday"]
    assert read.inverse_transform_ids("weekday", ids).tolist() == [*(frame["hour"] // 24 % 7)]
    assert [*read.report(frame).index] == ["weekday", "item"]
    assert read._learnt.of_rows == ["hour", "item"]
    assert not read._learnt.without({"hour"}).ids.keys() - {"item"}
