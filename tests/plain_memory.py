"""What a memory shows of a row, by plain loops over all that was told: late, and told again."""

from collections import Counter

import numpy as np
import pandas as pd
from sklearn.pipeline import make_pipeline

from sklearn_din import LABEL, DINClassifier, HistoryBuilder, HistorySequenceEncoder
from tests.test_neighbours import plain_prior

KEYS = ["user", "item", ("user", "item")]
MAX_LENGTH = 3


def make_memory():
    """A memory of each kind of number: histories with outcomes, and levels, known late."""
    return HistoryBuilder(
        user="user",
        time="time",
        columns=["item"],
        max_length=MAX_LENGTH,
        events="all",
        levels=KEYS,
        known="known",
        outcomes=LABEL,
    )


def make_tellings(seed=0):
    """Return three calls of rows and labels, of few moments; the later ones tell rows again."""
    rng = np.random.RandomState(seed)
    rows = pd.DataFrame({name: rng.randint(n, size=90) for name, n in (("user", 4), ("time", 30))})
    rows["item"] = np.array(list("abcde"))[rng.randint(5, size=90)]
    rows = rows.drop_duplicates(ignore_index=True)
    rows["known"] = rows["time"] + rng.randint(4, size=len(rows))
    y = (rng.random_sample(len(rows)) < 0.2 + 0.1 * rows["user"]).to_numpy().astype(int)
    n, again = len(rows) - 15, slice(10, 40)
    later = pd.concat([rows[n:], rows[again].assign(known=rows["known"] + 3)], ignore_index=True)
    last = rows[20:60].assign(known=40)  # after all others
    return (rows[:n], y[:n]), (later, np.append(y[n:], 1 - y[again])), (last, y[20:60] * 0)


def make_calls(labels, *, is_known, seed):
    """Yield few rows and values: new and late ones, twins, retries, other values, missing ones."""
    rng, told = np.random.RandomState(seed), None
    for n in range(7):
        size = 25 if n == 0 else rng.randint(2, 9)
        rows = pd.DataFrame({"user": rng.randint(3, size=size)})
        rows["item"] = np.array(list("abc"))[rng.randint(3, size=size)]
        rows["time"] = rng.randint(12 * n + 13, size=size)
        if told is not None:
            rows = pd.concat([rows, told.sample(rng.randint(9), random_state=rng)])
        rows = pd.concat([rows, rows.sample(2, random_state=rng)], ignore_index=True)
        told = pd.concat([told, rows], ignore_index=True)
        known = rows["time"] + rng.randint(15, size=len(rows))
        values = rng.randint(2, size=(len(rows), 2)).astype(float)
        if labels in ("numbers", "outcomes"):
            values[:, 0] = rng.normal(size=len(rows)).round(2)
        if n == 0:
            values[:2] = [[0.0], [1.0]]
        else:
            values[rng.random_sample(values.shape) < 0.2] = np.nan
        n_labels = 2 if labels in ("several", "outcomes") else 1
        yield rows.assign(known=known) if is_known else rows, values[:, :n_labels]


def make_flights(n_rows=1_200, seed=0):
    """Rows whose label is likely what the user's last outcome was, which comes hours later."""
    rng = np.random.RandomState(seed)
    rows = pd.DataFrame({"user": rng.randint(40, size=n_rows).astype(str)})
    rows["item"] = np.array([f"flight {n}" for n in range(25)])[rng.randint(25, size=n_rows)]
    rows["time"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(n_rows), unit="h")
    rows["known"] = rows["time"] + pd.to_timedelta(rng.randint(1, 9, size=n_rows), unit="h")
    y = rng.randint(2, size=n_rows)
    return rows.assign(late=30.0 * y + rng.normal(size=n_rows)), y


def begin_with(memory, kind=DINClassifier, **parameters):
    """A Pipeline of a memory, an encoder and an estimator of one epoch."""
    encoder = HistorySequenceEncoder(user="user", time="time")
    parameters = {"max_epochs": 1, "early_stopping": False, "random_state": 0, **parameters}
    return make_pipeline(memory, encoder, kind(**parameters))


def make_asked(rows):
    """Return rows to ask for, at moments of those told and later, some of a stranger."""
    asked = rows.drop(columns="known").iloc[::4]
    late = asked.assign(time=50)
    return pd.concat([asked, late, late[:5].assign(user=10**6)], ignore_index=True)


class PlainMemory:
    """All that was told of rows, each with its tellings: their moments, and the values until then.

    ``names`` are the columns that tell rows of one moment apart, the user first, and the time last.
    """

    def __init__(self, names=("user", "item", "time"), keys=KEYS):
        self.names, self.keys = names, {(k,) if isinstance(k, str) else k: k for k in keys}
        self.rows = []  # (name, its tellings), in the order in which each was told first

    def tell(self, rows, values, known=None):
        """Without ``known``, what replaces another value counts from the newest moment on."""
        newest = max([*self.moments(), *rows["time"], *(rows[known] if known else ())])
        values, copies = np.reshape(values, (len(rows), -1)).astype(float), Counter()
        for row, own in zip(rows.to_dict("records"), values, strict=True):
            name = tuple(row[column] for column in self.names)
            same = [told for other, told in self.rows if other == name]
            k, copies[name] = copies[name], copies[name] + 1
            if k == len(same):
                self.rows.append((name, [(row[known or "time"], own)]))
                continue
            before, last = same[k][-1]
            merged = np.where(np.isnan(own), last, own)
            if not np.array_equal(merged, last, equal_nan=True):
                same[k].append((max(row[known] if known else newest, before), merged))

    def moments(self):
        return [moment for _, told in self.rows for moment, _ in told]

    def past(self, user, now):
        """Moment, name and values of a user's rows as they were told last, oldest first."""
        last = [(*told[-1], name) for name, told in self.rows if name[0] == user]
        past = [(known, name, values) for known, values, name in last if known < now]
        return sorted(past, key=lambda row: (row[0], row[1][-1]))

    def levels(self, row, label=0, *, of_clicks=True, recent=1_000):
        """The levels of a row as of its time: those of each key, and the recent rate or mean."""
        now, counted, levels = row["time"], [], {}
        for name, told in self.rows:
            until = [(moment, own[label]) for moment, own in told if moment < now]
            if until:
                begin = next((m for m, value in until if not np.isnan(value)), None)
                counted.append((name, until[0][0], begin, until[-1][1]))
        y = np.array([value for *_, value in counted])
        for key, as_given in self.keys.items():
            places = [self.names.index(column) for column in key]
            ids = np.array(["/".join(str(name[p]) for p in places) for name, *_ in counted])
            own = ids == "/".join(str(row[column]) for column in key)
            has, is_told = own & ~np.isnan(y), ~np.isnan(y)
            level = y[has].mean() if has.any() else np.nan
            if of_clicks:
                prior = plain_prior(ids[is_told], y[is_told]) if is_told.any() else np.nan
                average = y[is_told].mean() if is_told.any() else np.nan
                level = (y[has].sum() + prior * average) / (has.sum() + prior)
            same = [first for is_own, (_, first, *_) in zip(own, counted, strict=True) if is_own]
            levels[as_given] = level, has.sum(), now - max(same) if same else np.nan
        valued = sorted((begin, value) for _, _, begin, value in counted if begin is not None)
        edge = valued[max(len(valued) - recent, 0)][0] if valued else 0
        late = [value for begin, value in valued if begin >= edge]
        return levels, np.mean(late) if late else np.nan

    def show(self, rows):
        """The rows with the histories and levels that :func:`make_memory` gives them."""
        shown = []
        for row in rows.to_dict("records"):
            past = self.past(row["user"], row["time"])[-MAX_LENGTH:]
            levels, recent = self.levels(row)
            row["hist_item"] = [name[1] for _, name, _ in past]
            row["hist_label"] = [int(label) for *_, (label,) in past]
            row["hist_outcome_age"] = [float(row["time"] - known) for known, *_ in past]
            for key, numbers in levels.items():
                parts = zip(("rate", "count", "elapsed"), map(float, numbers), strict=True)
                row |= {f"{'_'.join(np.atleast_1d(key))}_{part}": n for part, n in parts}
            shown.append(row | {"recent_rate": recent})
        return pd.DataFrame(shown)
