"""What a memory shows of a row, by plain loops over all that was told: late, and told again."""

import numpy as np
import pandas as pd

from sklearn_din import LABEL, HistoryBuilder
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


def make_asked(rows):
    """Return rows to ask for, at moments of those told and later, some of a stranger."""
    asked = rows.drop(columns="known").iloc[::4]
    late = asked.assign(time=50)
    return pd.concat([asked, late, late[:5].assign(user=10**6)], ignore_index=True)


class PlainMemory:
    """Of each row that was told, by user, item and time: its moments and labels, one by one."""

    def __init__(self):
        self.told = {}

    def tell(self, rows, y):
        for row, label in zip(rows.to_dict("records"), y, strict=True):
            own = self.told.setdefault((row["user"], row["item"], row["time"]), [])
            if not own or label != own[-1][1]:
                own.append((max([row["known"], *(moment for moment, _ in own)]), label))

    def show(self, rows):
        """The rows with the histories and levels that a memory gives them."""
        shown = [row | self._past(row) | self._levels(row) for row in rows.to_dict("records")]
        return pd.DataFrame(shown)

    def _past(self, row):
        last = [(own[-1][0], name[2], name, own[-1][1]) for name, own in self.told.items()]
        own = [event for event in last if event[0] < row["time"] and event[2][0] == row["user"]]
        own = sorted(own, key=lambda event: event[:2])[-MAX_LENGTH:]
        return {
            "hist_item": [name[1] for _, _, name, _ in own],
            "hist_label": [label for *_, label in own],
            "hist_outcome_age": [float(row["time"] - known) for known, *_ in own],
        }

    def _levels(self, row):
        before = [
            (name, own[0][0], [label for known, label in own if known < row["time"]][-1])
            for name, own in self.told.items()
            if own[0][0] < row["time"]
        ]
        y, levels = np.array([label for *_, label in before], dtype=float), {}
        for key in KEYS:
            names = [key] if isinstance(key, str) else key
            places = [["user", "item"].index(name) for name in names]
            ids = np.array(["/".join(str(name[p]) for p in places) for name, *_ in before])
            own = ids == "/".join(str(row[name]) for name in names)
            prior = plain_prior(ids, y) if len(y) else np.nan
            rate = (y[own].sum() + prior * y.mean()) / (own.sum() + prior) if len(y) else np.nan
            latest = [first for is_own, (_, first, _) in zip(own, before, strict=True) if is_own]
            elapsed = row["time"] - max(latest) if latest else np.nan
            numbers = {"rate": rate, "count": own.sum(), "elapsed": elapsed}
            levels |= {"_".join([*names, what]): float(n) for what, n in numbers.items()}
        return levels | {"recent_rate": y.mean() if len(y) else np.nan}
