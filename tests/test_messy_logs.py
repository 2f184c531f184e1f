"""What people do to logs by mistake is said; honest logs that look like it are silent."""

import re
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    Ranker,
    TimeSplit,
    attach_aggregates,
    check,
    predict_to_parquet,
    sample_negatives,
)
from sklearn_din.datasets import make_click_log
from sklearn_din.training.label_means import find_label_means
from sklearn_din.training.leaks import warn_of_leaks
from sklearn_din.training.wrong_histories import find_guests
from tests.click_frames import attach, encode
from tests.tables import as_scan, said

pytestmark = pytest.mark.slow

# Impressions with histories, in the order of time, and labels
MADE = make_click_log(n_users=200, n_items=300, n_categories=8, random_state=0)
X, Y = attach(MADE.impressions, MADE.events), pd.Series(MADE.y)
OWN = ["user", "item", "category", "time"]


def leaks_said(X, y):
    """What ``fit`` says of encoded rows, after ``check`` has said the same of the frame."""
    messages = said(lambda: warn_of_leaks(encode(X), np.asarray(y, dtype=np.float32)))[0]
    if not messages:
        return []
    table = check(X, np.asarray(y), user="user", time="time")
    findings = [f"{verdict} {advice}" for _, verdict, advice in table.itertuples(index=False)]
    assert {*messages} <= {*findings}
    return messages


def of_user(X, y):
    return y.groupby(X["user"])


OWN_COUNTS = {
    "clicks so far": lambda X, y: of_user(X, y).cumsum(),  # integers: ids to the encoder
    "mean so far": lambda X, y: of_user(X, y).transform(lambda own: own.expanding().mean()),
    "of three rows": lambda X, y: of_user(X, y).transform(lambda own: own.rolling(3).mean()),
    "clicks of the item": lambda X, y: y.groupby(X["item"]).cumsum().astype(float),
    "of both": lambda X, y: y.groupby([X["user"], X["category"]]).cumsum().astype(float),
    "budget left": lambda X, y: 100 - of_user(X, y).cumsum() * 2.5,
}


@pytest.mark.parametrize("count", OWN_COUNTS)
def test_counts_that_include_the_own_row_are_said_once(count):
    (message,) = leaks_said(X.assign(so_far=OWN_COUNTS[count](X, Y)), Y)
    assert message.startswith("so_far changes with the row's own label (AUC ")
    assert "HistorySequenceEncoder(drop=['so_far'])" in message
    assert leaks_said(X, Y) == []  # the advice


def before(X, y, key, how):
    return y.groupby(X[key]).transform(lambda own: how(own.shift()))


HONEST_COUNTS = {
    "clicks so far": lambda X, y: (of_user(X, y).cumsum() - y).astype(float),
    "mean so far": lambda X, y: before(X, y, "user", lambda past: past.expanding().mean()),
    "of three rows": lambda X, y: before(X, y, "user", lambda past: past.rolling(3).mean()),
    "clicks of the item": lambda X, y: y.groupby(X["item"]).cumsum() - y,
    "rows so far": lambda X, y: X.groupby("user").cumcount() + 1,
    "a good score": lambda X, y: y + np.random.default_rng(0).normal(size=len(y)),
    "a score in steps": lambda X, y: (
        (2 * y + np.random.default_rng(0).normal(size=len(y))).round().astype(int)
    ),
}


@pytest.mark.parametrize("count", HONEST_COUNTS)
def test_counts_of_earlier_rows_and_scores_are_silent(count):
    assert leaks_said(X.assign(so_far=HONEST_COUNTS[count](X, Y)), Y) == []


@pytest.mark.parametrize("fit", [
    lambda X, y: HistorySequenceEncoder().fit(X, y),
    lambda X, y: HistorySequenceEncoder().fit_transform(X, y),
    lambda X, y: HistorySequenceEncoder().fit(X).partial_fit(X, y),
    lambda X, y: next(TimeSplit(3, time="price").split(X, y)),
], ids=["fit", "fit_transform", "partial_fit", "split"])  # fmt: skip
def test_labels_in_another_order_than_the_rows_are_an_error_and_the_advice(fit):
    rows = X.drop(columns=["user", "time"])
    y = Y.sample(frac=1, random_state=0)
    sentence = r"got the same index labels in two: .* 0 in X and \d+ in y\. .* y\.loc\[X\.index"
    with pytest.raises(ValueError, match=sentence):
        fit(rows, y)
    turned = rows[::-1]
    with pytest.warns(UserWarning, match=r"label of row 0 is 3999 in X and 0 in y.*y\.to_numpy"):
        fit(turned, Y)
    table = check(turned, Y)
    assert table["verdict"].str.startswith("X and y have the same index labels").sum() == 1
    for labels in (Y.loc[turned.index], Y.to_numpy(), list(Y)):  # the advice
        fit(turned, labels)


def test_rows_and_labels_with_other_labels_are_paired_by_position_in_silence():
    rows, y = X.iloc[:500], Y.iloc[:500]
    encoder = HistorySequenceEncoder()
    encoder.fit(rows[y == 1], pd.Series(1, range(int(y.sum()))))  # filtered rows, new labels
    encoder.fit(rows.set_axis(rows["user"] * 0, axis=0), y)  # labels that repeat
    encoder.fit(rows.set_axis(rows["time"], axis=0), y)
    encoder.fit(rows.to_numpy()[:, 4:5].astype(float), y[::-1])


# Ids written in another way ------------------------------------------------------------------

WORDS = ["comedy", "crime", "drama", "horror", "news", "sport", "travel", "western"]


# The same with ids of text: "i21", and categories that are words
SPELL = {"item": "i{}".format, "category": WORDS.__getitem__}
SPELT = X.assign(**{name: X[name].map(spell) for name, spell in SPELL.items()})
for name, spell in SPELL.items():
    SPELT[f"hist_{name}"] = [[*map(spell, cell)] for cell in X[f"hist_{name}"]]


def later_said(X, later):
    with warnings.catch_warnings(action="ignore"):
        encoder = HistorySequenceEncoder(user="user", time="time").fit(X)
    return said(lambda: encoder.transform(later))[0]


def respell(X, **spellings):
    return X.assign(**{name: X[name].map(spell) for name, spell in spellings.items()})


UNKNOWN = {
    "upper case": lambda X: respell(X, category=str.upper),
    "a prefix": lambda X: respell(X, category="genre/{}".format),
    "all but a few": lambda X: pd.concat([respell(X[:300], category=str.title), X[300:400]]),
    "a ranking": lambda X: respell(X.drop_duplicates("item"), item="shop:{}".format),
    "no known item": lambda X: respell(X, item="shop:{}".format),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_column_that_is_unknown_as_a_whole_is_said_with_its_other_spelling(case):
    (message,) = later_said(SPELT[:3000], UNKNOWN[case](SPELT[3000:]))
    assert re.search("known from fit, where they were such as '(.+)' for '.*', and", message)


NEW = {
    "as at fit": lambda X: X,
    "new cities": lambda X: respell(X, category="{}ville".format),
    "tomorrow's news": lambda X: respell(X, item="{}b".format),
    "one row of a new kind": lambda X: respell(X[:1], category=str.upper),
}


@pytest.mark.parametrize("case", NEW)
def test_values_that_are_new_are_silent(case):
    rows = SPELT
    if case == "tomorrow's news":  # as at fit, where the items of each day are new
        rows = rows.assign(item=rows["item"] + rows["time"].dt.strftime("-%d"))
    assert later_said(rows[:3000], NEW[case](rows[3000:])) == []


def log_twice(X, y, *, share=1.0, seconds=2, redraw=0.0):
    """Repeat a share of the rows seconds later; some with a label drawn anew."""
    chance = np.random.default_rng(0)
    again = X[chance.random(len(X)) < share]
    labels = y[again.index].where(chance.random(len(again)) >= redraw, chance.random() < y.mean())
    again = again.assign(time=again["time"] + pd.Timedelta(seconds=seconds))
    both = pd.concat([X, again], ignore_index=True)
    order = both["time"].argsort(kind="stable")
    return both.iloc[order], pd.concat([y, labels], ignore_index=True).iloc[order]


def test_an_impression_beside_its_click_is_said_and_the_advice():
    shown = pd.concat([X, X[Y == 1]], ignore_index=True)
    rows = shown.assign(click=np.append(np.zeros(len(X)), np.ones(int(Y.sum()))))
    rows = rows.sample(frac=1, random_state=0)
    (message,) = leaks_said(rows.drop(columns="click"), rows["click"])
    assert "clicks have a row without a click beside them, of the same user, item and" in message
    advice, names = re.search(r"(rows\.sort.*)\.$", message)[1], {"user": "user", "time": "time"}
    kept = eval(advice, {"rows": rows, "label": "click", **names})
    n_shown = len(X.drop_duplicates(["user", "time", "item"]))
    assert (len(kept), kept["click"].sum()) == (n_shown, Y.sum())
    assert leaks_said(kept.drop(columns="click"), kept["click"]) == []


@pytest.mark.parametrize("honest", ["twice a day", "some clicks", "no pairs"])
def test_items_shown_twice_at_one_moment_are_not_said(honest):
    """As of a day, with one click at most; two rows of a few clicks alone; of none."""
    again = {"twice a day": Y >= 0, "some clicks": (Y == 1) & (X.index % 5 == 0)}
    again = again.get(honest, Y < 0)
    shown = pd.concat([X, X[again]], ignore_index=True)
    labels = np.append(Y, np.zeros(again.sum(), dtype=int))
    assert leaks_said(shown, pd.Series(labels)) == []


@pytest.mark.parametrize(("share", "rare"), [(1.0, 1), (0.2, 1), (1.0, 10)])
def test_rows_logged_twice_are_said_and_the_advice(share, rare):
    y = Y * (np.arange(len(Y)) % rare == 0)
    (message,) = leaks_said(*log_twice(X, y, share=share))
    assert "of the rows repeat a row of the same user and item from moments before" in message
    assert leaks_said(X, y) == []  # the advice


@pytest.mark.parametrize("twice", [{"redraw": 0.7}, {"seconds": 777_600}, {"share": 0.01}])
def test_items_shown_again_are_silent(twice):
    assert leaks_said(*log_twice(X, Y, **twice)) == []


def test_rows_without_an_item_do_not_repeat_each_other_moments_later():
    rows, y = log_twice(X, Y)
    assert leaks_said(rows, y) != []
    assert leaks_said(rows.assign(item=None).astype({"item": object}), y) == []


def test_rows_without_an_item_are_no_impression_beside_its_click():
    """Two banners on each page, one of which is clicked."""
    banners = [X.assign(item=None, category=None)] * 2
    rows = pd.concat([X, *banners]).astype({"item": "Int64", "category": "Int64"})
    clicks = np.arange(len(X)) % 2
    assert leaks_said(rows, np.concatenate([Y, clicks, 1 - clicks])) == []


def sample(shown, events):
    columns = {"item_columns": ["category", "price"], "time": "time", "random_state": 0}
    return sample_negatives(events, item="item", **columns)


@pytest.mark.parametrize("use", [attach, sample])
def test_a_log_of_rows_with_and_without_a_click_is_said_and_the_advice(use):
    shown = X[[*OWN, "price"]]
    rows = shown.assign(click=Y)
    line = said(lambda: use(shown, rows))[1][0]
    assert line.startswith("events['click'] holds 0 in 70% of the events, and each event counts as")
    lines = said(lambda: use(shown, rows[rows["click"] == 1]))[1]  # the advice
    assert not [line for line in lines if "events['click']" in line]
    assert said(lambda: attach(shown, rows, columns=["item", "click"]))[1] == []  # past answers
    assert said(lambda: attach(rows.assign(is_new=1), rows))[1] == []  # a column of both


@pytest.mark.parametrize("respell", ["{} ", "0{}", "user-{}"])
def test_users_written_in_two_ways_are_said_and_the_advice(respell):
    shown, events = (X[OWN].astype({"user": str}),) * 2
    other = events.assign(user=events["user"].map(respell.format))
    (message,), _ = said(lambda: attach(shown, other))
    assert "have no events, and" in message
    half = shown.assign(user=shown["user"].where(np.arange(len(shown)) % 2 > 0, other["user"]))
    (message,), _ = said(lambda: attach(half, events))
    assert message.startswith("users of impressions such as ")
    strangers = shown.assign(user="x" + shown["user"] + "y")
    assert said(lambda: attach(pd.concat([shown, strangers]), events))[0] == []


def fit_said(X, **parameters):
    messages, lines = said(lambda: HistorySequenceEncoder(**parameters).fit(X))
    return [*messages, *lines]


def test_a_datetime_that_is_not_used_is_logged_once():
    rows = X[["price", "time"]]
    (line,) = fit_said(rows)
    assert line.startswith("datetimes are not used, here of time.")
    assert fit_said(rows, time="time") == fit_said(rows, drop=["time"]) == []


def test_labels_of_odd_kinds_are_said_or_refused_in_words():
    encoded, y = encode(X), Y.to_numpy()
    fit = DINClassifier(max_epochs=1, early_stopping=False).fit
    (message,), _ = said(lambda: fit(encoded, np.eye(2)[y]))
    assert message.startswith("y has 2 columns of zeros and ones of which each row has one 1: one ")
    both = np.column_stack([y, y & (np.arange(len(y)) % 2)])  # a click, and a purchase
    assert said(lambda: fit(encoded, both))[0] == []
    with pytest.raises(TypeError, match=r"Sparse data was passed for y"):
        fit(encoded, csr_matrix(np.eye(2)[y]))
    message = r"labels of one kind, got the text 'yes' and 0\. Give \(y"
    with pytest.raises(ValueError, match=message):
        fit(encoded, pd.Series(["yes" if label else 0 for label in y]))


@pytest.mark.parametrize("by_time", [False, True])
def test_a_catalogue_with_two_prices_of_an_item_is_an_error_and_the_advice(by_time):
    events = X[["user", "item", "time", "price"]]
    items = events.drop_duplicates("item").assign(time=pd.Timestamp(2023, 1, 1))
    moments = {"time": "time", "catalogue_time": "time"} if by_time else {"time": "time"}
    options = {"item": "item", "item_columns": ["price"], "random_state": 0} | moments
    two = pd.concat([items, items[:1].assign(price=9.5)])
    item, price = items["item"].iloc[0], items["price"].iloc[0].item()
    message = f"one row per item, got 'price' {price} and 9.5 for {item}, by which negatives"
    with pytest.raises(ValueError, match=message):
        sample_negatives(events, catalogue=two, **options)
    later = two.assign(time=pd.date_range("2023-01-01", periods=len(two)))
    for fine in [pd.concat([items, items[:9]]), *([later] if by_time else [])]:
        sample_negatives(events, catalogue=fine, **options)


@pytest.mark.parametrize("other", ["category", "item"])
def test_means_of_few_rows_of_user_and_category_or_item_are_said(other):
    pairs = [X["user"], X[other] if other == "category" else X[other] % 12]
    rows = X.assign(item=pairs[1] if other == "item" else X["item"])
    total, count = (Y.groupby(pairs).transform(how) for how in ("sum", "count"))
    rate = (total + 2 * Y.mean()) / (count + 2)
    (message,) = leaks_said(rows.assign(rate=rate), Y)
    assert message.startswith("rate predicts how often each pair of user and ")
    earlier = {"rate": (("user", other), "y", "mean")}
    rows = attach_aggregates(rows, rows.assign(y=Y), time="time", aggregates=earlier)
    assert leaks_said(rows, Y) == []  # the advice


def test_a_count_of_rows_is_no_mean_where_sessions_end_with_a_click():
    chance = np.random.default_rng(0)
    lengths = chance.integers(1, 14, 600) + chance.integers(0, 9, 600)
    rows = pd.DataFrame({"user": np.repeat(np.arange(600), lengths)})
    rows["time"] = np.arange(len(rows))
    rows["item"] = chance.integers(0, 50, len(rows))
    user_count = rows.groupby("user").cumcount().astype(float)
    y = (~rows["user"].duplicated(keep="last")).astype(int)
    assert [*find_label_means(encode(rows.assign(user_count=user_count)), y.to_numpy())] == []


def make_own_clicks():
    """Impressions whose histories are the users' own clicks."""
    chance = np.random.default_rng(0)
    shown = pd.DataFrame({"user": chance.integers(0, 100, 4000), "time": np.arange(4000)})
    shown["item"], shown["category"] = chance.integers(0, 300, (2, 4000)) % [[300], [8]]
    y = pd.Series((chance.random(4000) < 0.3).astype(int))
    return attach(shown, shown[y == 1]), y


WITH_CLICKS, CLICKS = make_own_clicks()


def cut(X, part):
    return X.assign(**{n: [cell[part] for cell in X[n]] for n in ("hist_item", "hist_category")})


def test_histories_that_keep_the_oldest_events_are_said_and_the_advice():
    (message,) = leaks_said(cut(WITH_CLICKS, slice(3)), CLICKS)
    assert message.startswith("clicks enter histories of hist_item until these hold 3 events, and")
    assert leaks_said(cut(WITH_CLICKS, slice(-3, None)), CLICKS) == []


HONEST_HISTORIES = {
    "the own item removed": lambda X: X.drop(columns="hist_category").assign(
        hist_item=[[e for e in c if e != i][-3:] for c, i in zip(X["hist_item"], X["item"])]  # noqa: B905
    ),
    "another log": lambda X: attach(X[OWN], X[OWN].sample(frac=0.4, random_state=1), max_length=3),
    "sampled events": lambda X: cut(X, slice(1, None, 2)),
    "a list that stands still": lambda X: X.assign(
        hist_item=[[u % 300, 7 * u % 300, 5] for u in X["user"]],
        hist_category=[[1, u % 8, 3] for u in X["user"]],
    ),
    "as attached": lambda X: X,
}


@pytest.mark.parametrize("case", HONEST_HISTORIES)
def test_histories_of_the_newest_events_or_of_another_log_are_silent(case):
    assert leaks_said(HONEST_HISTORIES[case](WITH_CLICKS), CLICKS) == []


def test_guests_that_are_one_user_are_said_and_the_advice():
    users, guests = WITH_CLICKS["user"], np.arange(len(CLICKS)) % 3 == 0
    (message,) = leaks_said(WITH_CLICKS.assign(user=users.where(~guests, 0)), CLICKS)
    assert message.startswith("user 0 has 34% of the rows, more than ten times as many as any ")
    assert leaks_said(WITH_CLICKS.assign(user=users.where(~guests)), CLICKS) == []
    assert find_guests(encode(WITH_CLICKS.assign(user=users // 34))) is None  # three users


def test_negatives_that_nobody_ever_clicks_are_said():
    item = WITH_CLICKS["item"]
    (message,) = leaks_said(
        WITH_CLICKS.assign(item=item.where(CLICKS == 1, item % 30 + 300)), CLICKS
    )
    assert message.startswith("100% of the rows without a click show a value of item that nobody")
    tail = item.where((CLICKS == 1) | (item % 2 == 0), item + 300)
    assert leaks_said(WITH_CLICKS.assign(item=tail), CLICKS) == []  # of a catalogue that few click


def test_early_rows_of_fit_have_short_histories_and_nothing_is_said(tmp_path):
    encoder = HistorySequenceEncoder(user="user", time="time").fit(WITH_CLICKS)
    first = WITH_CLICKS.drop_duplicates("user")  # as users of a ranking
    assert said(lambda: encoder.transform(first))[0] == []
    model = make_pipeline(encoder, DINClassifier(max_epochs=1, early_stopping=False))
    model.fit(WITH_CLICKS, CLICKS)
    for table in (WITH_CLICKS, as_scan(WITH_CLICKS, tmp_path)):
        path = tmp_path / f"{type(table).__name__}.parquet"
        calls = partial(predict_to_parquet, model, table, path, columns=["item"])
        assert said(calls) == ([], [])
    late = cut(WITH_CLICKS[3500:], slice(0))
    (message,), _ = said(lambda: encoder.transform(late.assign(time=late["time"] + 500)))
    assert "hold none of the events that they held at fit" in message


def test_sessions_that_are_split_by_time_are_said_once_and_not_as_users():
    rows = pd.DataFrame({"session": np.arange(1200) // 4, "time": np.arange(1200)})
    rows["item"], keys = rows["time"] % 7, {"user": "session", "time": "time"}
    builder = HistoryBuilder(**keys, columns="item", events="all")
    steps = make_pipeline(builder, HistorySequenceEncoder(**keys)).fit(rows[:800])
    messages, _ = said(lambda: [steps.transform(rows[800:]) for _ in range(2)])
    assert [text[:37] for text in messages] == ["histories of hist_item hold none of t"]


def test_one_users_bad_date_is_not_the_unit_of_all_times():
    rows = WITH_CLICKS[["user", "item", "time"]]
    rows = rows.assign(time=pd.Timestamp(2024, 1, 1) + pd.to_timedelta(rows["time"], unit="h"))
    builder = HistoryBuilder(user="user", time="time", columns="item", events="all").fit(rows)
    bad = rows[:1].loc[[rows.index[0]] * 50].assign(time=pd.Timestamp(1970, 1, 1))
    assert said(lambda: builder.transform(bad))[0] == []
    many = rows.assign(time=rows["time"] - pd.Timedelta(days=54 * 365.25))
    assert "are about 1970" in said(lambda: builder.transform(many))[0][0]


def test_a_catalogue_with_prefixes_is_said_by_a_ranker():
    encoder = HistorySequenceEncoder(user="user", time="time")
    model = make_pipeline(encoder, DINClassifier(max_epochs=1, early_stopping=False)).fit(SPELT, Y)
    items = SPELT[["item", "category", "price", "device"]].drop_duplicates("item")
    assert said(lambda: Ranker(model, items))[0] == []
    (message,), _ = said(lambda: Ranker(model, respell(items, item="shop:{}".format)))
    assert "'shop:i" in message
