"""The online model of a memory: equal to plain loops whatever the order of updates."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sklearn_din import HistoryBuilder
from sklearn_din.logs import online_model, online_updates
from sklearn_din.logs.online_model import OnlineModel
from sklearn_din.logs.online_updates import History, Questions, Rows, State
from sklearn_din.logs.row_memory import RowMemory
from sklearn_din.utils.keys import mix_hashes

KEYS = (("user",), ("item",), ("user", "item"))
VARIANCES = (0.3, 0.1, 0.03)


def plain_rates(entries, questions, variances, half_life):
    """Return rates by plain loops over all labelled rows, for each question from the start.

    entries : of each row its keys, the hash of its columns, and its labels as (label time, label)
    questions : of each its keys and its time
    """
    rates = []
    for keys_asked, now in questions:
        weights = {}

        def read(keys, time, weights=weights):
            result = []
            for column, key in enumerate([*keys, "bias"]):
                prior = variances[column] if column < len(variances) else 1.0
                precision, shift, last = weights.get((column, key), (None, 0.0, 0.0))
                if key is None or precision is None:
                    result.append((0.0, prior))
                    continue
                if half_life and key != "bias":
                    kept = 0.5 ** (max(time - last, 0.0) / half_life)
                    precision = 1 / prior + (precision - 1 / prior) * kept
                    shift *= kept
                result.append((shift / precision, 1 / precision))
            return result

        known = [entry for entry in entries if entry[2] and entry[2][0][0] < now]
        for keys, _, labels in sorted(known, key=lambda e: (e[2][0][0], e[1], e[2][0][1])):
            label = [label for when, label in labels if when < now][-1]
            time, sign = labels[0][0], 1 if label else -1
            read_now = read(keys, time)
            spread = math.sqrt(1 + sum(v for _, v in read_now))
            z = sign * sum(m for m, _ in read_now) / spread
            v = math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / (0.5 * math.erfc(-z / math.sqrt(2)))
            w = v * (v + z)
            for column, (key, (mean, variance)) in enumerate(
                zip([*keys, "bias"], read_now, strict=True)
            ):
                if key is not None:
                    mean += sign * variance / spread * v
                    variance *= max(1 - variance / spread**2 * w, 1e-9)
                    weights[column, key] = (1 / variance, mean / variance, time)
        read_now = read(keys_asked, now)
        spread = math.sqrt(1 + sum(v for _, v in read_now))
        rates.append(0.5 * math.erfc(-sum(m for m, _ in read_now) / spread / math.sqrt(2)))
    return rates


def keys_of(user, item):
    user = None if pd.isna(user) else user
    return user, item, None if user is None else (user, item)


def empty_memory(half_life):
    model = OnlineModel(KEYS, VARIANCES, half_life)
    memory = RowMemory.empty(["user", "item"], KEYS, [""], of_clicks=True)
    return replace(memory, online=model)


def append(memory, rows):
    frame = pd.DataFrame(rows, columns=["user", "item", "time", "known", "label"])
    frame["user"] = frame["user"].astype("Int64")
    values = frame[["label"]].to_numpy(np.float64)
    return memory.append(frame, "time", values, known="known")[0]


def rates_of(memory, questions):
    asked = pd.DataFrame(questions, columns=["user", "item", "time"]).astype({"user": "Int64"})
    return memory.levels(asked, "time")["online_rate"]


def random_history(chance):
    """Return entries to append, in any order, with ties, late labels and corrections."""
    rows, n_equal = [], {}
    for _ in range(chance.randint(1, 14)):
        user = [None, 0, 1, 2][chance.randint(4)]
        item, time = int(chance.randint(3)), int(chance.randint(6))
        n_equal[user, item, time] = n_equal.get((user, item, time), 0) + 1
        if n_equal[user, item, time] > 1:
            continue  # equal rows are interchangeable: their corrections have no fixed order
        known = time + int(chance.randint(4))
        label = None if chance.rand() < 0.2 else int(chance.randint(2))
        told = [(user, item, time, known, label)]
        for _ in range(chance.randint(3)):
            known += 1 + int(chance.randint(4))
            told.append((user, item, time, known, int(chance.randint(2))))
        rows.append(told)
    return rows


def as_entries(memory, rows):
    """Return the rows for :func:`plain_rates`: a correction counts from its label time on."""
    entries = []
    for told in rows:
        user, item, time = told[0][:3]
        columns = [
            memory.hash_column(name, pd.Series([value], dtype=kind))
            for name, value, kind in (("user", user, "Int64"), ("item", item, "int64"))
        ]
        own = mix_hashes([*columns, np.array([time]).view(np.uint64)])[0]
        labels = [(known, label) for *_, known, label in told if label is not None]
        entries.append((keys_of(user, item), int(own), labels))
    return entries


@pytest.mark.parametrize("half_life", [0.0, 3.0])
@pytest.mark.parametrize("tail", [2, 10_000])
def test_500_random_histories_equal_plain_loops(monkeypatch, half_life, tail):
    monkeypatch.setattr(online_model, "TAIL_ROWS", tail)  # small: many segments
    chance = np.random.RandomState(0)
    for _ in range(125):
        rows = random_history(chance)
        questions = [
            ([None, 0, 1, 9][chance.randint(4)], int(chance.randint(4)), int(chance.randint(16)))
            for _ in range(6)
        ]
        told = [entry for own in rows for entry in own]
        memory, whole = empty_memory(half_life), empty_memory(half_life)
        for entry in sorted(told, key=lambda entry: entry[3]):  # in the order of label times
            memory = append(memory, [entry])
            if chance.rand() < 0.5:
                rates_of(memory, questions[:1])  # what is computed before is used again
        n_calls = max(map(len, rows))
        for number in range(n_calls):
            whole = append(whole, [own[number] for own in rows if len(own) > number])
        # An earlier label than that of another row's comes later here: as late rows do.
        shuffled = empty_memory(half_life)
        for number in chance.permutation(len(rows)):
            for entry in rows[number]:
                shuffled = append(shuffled, [entry])
        expected = plain_rates(
            as_entries(memory, rows),
            [(keys_of(user, item), time) for user, item, time in questions],
            VARIANCES,
            half_life,
        )
        rates = rates_of(memory, questions)
        np.testing.assert_allclose(rates, expected, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(rates_of(whole, questions), rates)
        np.testing.assert_array_equal(rates_of(shuffled, questions), rates)
        one = [rates_of(memory, [question])[0] for question in questions]
        np.testing.assert_array_equal(one, rates)


def test_forgotten_users_leave_no_trace():
    chance = np.random.RandomState(1)
    for _ in range(30):
        rows = random_history(chance)
        told = [entry for own in rows for entry in own]
        memory, other = empty_memory(4.0), empty_memory(4.0)
        memory = append(memory, told[:0])
        for entry in told:
            memory = append(memory, [entry])
        for own in rows:
            for entry in own:
                if own[0][0] != 1:
                    other = append(other, [entry])
        gone = memory.hash_column("user", pd.Series([1], dtype="Int64"))
        left = memory.take(np.flatnonzero(memory.hashes[0] != gone[0]))
        questions = [(1, 0, 20), (0, 1, 20), (2, 2, 5)]
        np.testing.assert_array_equal(rates_of(left, questions), rates_of(other, questions))


@pytest.mark.parametrize("half_life", [0.0, 7.0])
def test_native_code_has_the_bits_of_python(half_life):
    rng, n, n_asked, n_keys = np.random.RandomState(0), 400, 150, (20, 7)
    keys = [rng.randint(-1, k, size=n) for k in n_keys]
    rows = Rows(np.array(keys), np.sort(rng.randint(90, size=n)) * 1.0, rng.randint(2, size=n))
    asked_keys = np.array([rng.randint(-1, k, size=n_asked) for k in n_keys])
    asked = Questions(asked_keys, np.sort(rng.randint(n + 1, size=n_asked)), np.full(n_asked, 95.0))
    priors = np.array([0.3, 0.01, 1.0])
    state, twin = State.of_new_keys(n_keys), State.of_new_keys(n_keys)
    rates, history = online_updates.update(
        rows, priors, half_life, state, questions=asked, with_history=True
    )
    twin_rates, twin_history = np.empty(n_asked), History(*np.zeros((2, 3, n)))
    online_updates.update_in_python(rows, priors, half_life, twin, asked, twin_rates, twin_history)
    np.testing.assert_array_equal(rates, twin_rates)
    np.testing.assert_array_equal(history, twin_history)
    np.testing.assert_array_equal(state.precisions, twin.precisions)
    np.testing.assert_array_equal(state.updated, twin.updated)


def make_log(seed, n_rows=3_000, n_users=60, n_items=40, spread=(1.0, 0.0)):
    rng = np.random.RandomState(seed)
    user, item = rng.randint(n_users, size=n_rows), rng.randint(n_items, size=n_rows)
    odds = spread[0] * rng.normal(size=n_users)[user] + spread[1] * rng.normal(size=n_items)[item]
    X = pd.DataFrame({"user": user, "item": item, "time": np.arange(n_rows) // 3})
    return X, (rng.random_sample(n_rows) < 1 / (1 + np.exp(1 - odds))).astype(int)


def fit(X, y, **options):
    options = {"levels": "auto", "online_model": True, **options}
    return HistoryBuilder(user="user", time="time", columns="item", **options).fit(X, y)


def test_variances_are_those_of_keys_that_matter():
    builder = fit(*make_log(0))
    assert builder.memory_.online.keys == (("user",),)
    assert builder.memory_.online.variances[0] >= 0.1
    builder = fit(*make_log(0, spread=(0.0, 1.0)))
    assert builder.memory_.online.keys == (("item",),)
    assert fit(*make_log(0, spread=(0.0, 0.0))).memory_.online.keys == ()


def test_builder_updated_in_parts_equals_one_that_saw_all():
    X, y = make_log(3, spread=(1.0, 0.7))
    builder = fit(X[:2000], y[:2000])
    asked = pd.concat([X[1000:], X[-50:].assign(time=2000)])
    for begin in range(2000, 3000, 125):
        builder.partial_fit(X[begin : begin + 125], y[begin : begin + 125])
        builder.transform(asked[:10])
    whole = fit(X, y)
    whole.memory_ = replace(whole.memory_, online=builder.memory_.online)
    for rows in (asked, asked[:1]):
        parts, all_at_once = builder.transform(rows), whole.transform(rows)
        np.testing.assert_array_equal(parts["online_rate"], all_at_once["online_rate"])
    fitted = fit(X[:2000], y[:2000])
    np.testing.assert_array_equal(
        fitted.transform(X[:2000])["online_rate"], builder.transform(X[:2000])["online_rate"]
    )


def test_rates_are_nearer_to_the_truth_than_running_rates():
    X, y = make_log(5, n_rows=6000, spread=(1.0, 1.0))
    shown = fit(X[:4000], y[:4000]).partial_fit(X[4000:], y[4000:]).transform(X[4000:])
    loss = {}
    for name in ("online_rate", "user_rate", "item_rate"):
        rate = shown[name].fillna(0.5).clip(0.01, 0.99)
        loss[name] = -np.log(np.where(y[4000:] == 1, rate, 1 - rate)).mean()
    assert loss["online_rate"] < min(loss["user_rate"], loss["item_rate"]) - 0.02


def test_what_it_needs_is_said():
    X, y = make_log(0)
    with pytest.raises(ValueError, match="levels=None names none: set levels='auto'"):
        fit(X, y, levels=None)
    with pytest.raises(ValueError, match="needs one label of two classes in y, got numbers"):
        fit(X, np.arange(len(X)) / 7, events="all")
    with pytest.raises(ValueError, match="needs one label of two classes in y, got 2 labels"):
        fit(X, np.column_stack([y, y]))
