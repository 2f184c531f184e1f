"""Plausible mistakes of a new user, and what the package says: before and now.

``python -m benchmarks.mistakes [OTHER]`` makes each mistake with this checkout, and with the one
in the folder OTHER where it is given, each in a process of its own, and prints one table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parents[1]


def clicks(n: int = 120) -> pd.DataFrame:
    """A small log with two attributes of each item."""
    rng = np.random.default_rng(0)
    item = rng.integers(0, 15, n)
    return pd.DataFrame(
        {
            "user": rng.integers(0, 8, n),
            "item": item,
            "category": np.array(["hat", "sock", "shoe"], dtype=object)[item % 3],
            "price": (item * 7 % 11 + 0.5).astype(float),
            "time": np.arange(n) * 10,
        }
    )


def attached(log: pd.DataFrame | None = None, **options) -> pd.DataFrame:
    """The log with its own past."""
    from sklearn_din import attach_history

    log = clicks() if log is None else log
    options = {"columns": ["item", "category"]} | options
    return attach_history(log, log, user="user", time="time", **options)


def encode(frame: pd.DataFrame, then: pd.DataFrame | None = None, **parameters) -> str:
    """What the encoder makes of a frame: its fields and behaviours."""
    from sklearn_din import HistorySequenceEncoder

    fitted = HistorySequenceEncoder(**({"drop": ["user", "time"]} | parameters)).fit(frame)
    if then is not None:
        X = fitted.transform(then)
        return f"ids of item {np.unique(X['item'])[:4].tolist()}"
    fields = ", ".join(f"{field.name}: {field.kind}" for field in fitted.schema_.fields)
    behaviours = [(*b.histories, *b.numbers) for b in fitted.schema_.behaviours]
    candidates = [b.candidates for b in fitted.schema_.behaviours]
    return f"{fields}; behaviours {behaviours} with {candidates}"


def csv_histories() -> str:
    frame = attached(columns="item")
    text = frame["hist_item"].map(lambda cell: "[" + " ".join(map(str, cell)) + "]")
    return encode(frame.assign(hist_item=pd.Series(text.to_numpy(), dtype=object)))


def parquet() -> str:
    import io

    file = io.BytesIO()
    attached(elapsed="hist_elapsed").to_parquet(file)
    return encode(pd.read_parquet(file))


def float_ids() -> str:
    log = clicks()
    log["item"] = log["item"].astype(float)
    log.loc[3, "item"] = np.nan
    return encode(attached(log, columns="item"))


def column_transformer() -> str:
    from sklearn.compose import ColumnTransformer

    columns = ColumnTransformer([("scale", "passthrough", ["price"])], remainder="passthrough")
    frame = columns.set_output(transform="pandas").fit_transform(attached(columns="item"))
    return encode(frame, drop=["remainder__user", "remainder__time"])


def numpy_output() -> str:
    from sklearn.compose import ColumnTransformer

    columns = ColumnTransformer([("scale", "passthrough", ["price"])], remainder="passthrough")
    return encode(columns.fit_transform(attached(columns="item")), drop=())


def new_users() -> str:
    frame = attached(columns="item")
    return encode(frame, then=frame.iloc[:3].assign(hist_item=np.nan))


def negatives(**parameters) -> str:
    from sklearn_din import sample_negatives

    X, _ = sample_negatives(clicks(), item="item", user="user", random_state=0, **parameters)
    return f"{len(X)} rows"


def swapped() -> str:
    from sklearn_din import attach_history

    log = clicks()
    now, later = log.iloc[:60], log.iloc[60:]
    frame = attach_history(now, later, user="user", time="time", columns="item")
    return f"{sum(len(cell) for cell in frame['hist_item'])} events attached"


def no_common_user() -> str:
    from sklearn_din import attach_history

    log = clicks()
    frame = attach_history(
        log, log.assign(user=log["user"] + 100), user="user", time="time", columns="item"
    )
    return f"{sum(len(cell) for cell in frame['hist_item'])} events attached"


def builder_by_user() -> str:
    from sklearn_din import HistoryBuilder

    log = clicks()
    builder = HistoryBuilder(user="user", time="time", columns=["item"], events="all")
    frame = builder.fit(log[log["user"] < 4]).transform(log[log["user"] >= 4])
    return f"{sum(len(cell) for cell in frame['hist_item'])} events attached"


def events_twice() -> str:
    from sklearn_din import HistoryBuilder

    builder = HistoryBuilder(user="user", time="time", columns=["item"], events="all")
    return f"{len(builder.fit(clicks()).partial_fit(clicks()).events_)} events remembered of 120"


def unhashable() -> str:
    log = clicks().assign(user=[[1]] * 120)
    return str(attached(log).shape)


def permuted() -> str:
    from sklearn.inspection import permutation_importance
    from sklearn.pipeline import make_pipeline

    from sklearn_din import DINClassifier, HistorySequenceEncoder

    frame, y = attached(), np.arange(120) % 2
    model = make_pipeline(
        HistorySequenceEncoder(drop=["user", "time"]), DINClassifier(max_epochs=1, random_state=0)
    ).fit(frame, y)
    return str(permutation_importance(model, frame, y, n_repeats=1).importances_mean.shape)


def mixed_history() -> str:
    code = (
        "import numpy as np, pandas as pd; from sklearn_din import HistorySequenceEncoder as E\n"
        "f = pd.DataFrame({'item': [1, 2], 'hist_item': [[np.datetime64('2021-01-01')],"
        "[np.float32(1.0)]]})\n"
        "try: E().fit(f); print('taken as ids')\n"
        "except (ValueError, TypeError) as e: print(type(e).__name__, e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or f"the process ended with signal {-done.returncode}"


def plain(**columns) -> pd.DataFrame:
    return pd.DataFrame({"item": [1, 2, 3] * 10, **columns})


MISTAKES: dict[str, Callable[[], str]] = {
    "numeric=['year'], beside a float price": lambda: encode(
        plain(year=[2020, 2021, 2022] * 10, price=0.5), numeric=["year"], drop=()
    ),
    "categorical=['stars'], beside an integer item": lambda: encode(
        plain(stars=[1, 2, 3] * 10), categorical=["stars"], drop=()
    ),
    "ids that one missing value made floats": float_ids,
    "categorical=['item'] on float ids, for the history too": lambda: encode(
        attached(clicks().assign(item=clicks()["item"].astype(float)), columns="item"),
        categorical=["item"],
    ),
    "histories read back from CSV": csv_histories,
    "text histories with separator='|' alone": lambda: encode(
        plain(hist_item=["1|2", "3", ""] * 10), separator="|", drop=()
    ),
    "a separator that splits nothing": lambda: encode(
        plain(hist_item=["1|2", "3", ""] * 10), separator=";", drop=()
    ),
    "histories read back from Parquet": parquet,
    "ColumnTransformer's prefixes": column_transformer,
    "ColumnTransformer's NumPy output": numpy_output,
    "a renamed candidate": lambda: encode(
        attached(columns="item").rename(columns={"item": "shown"})
    ),
    "a history of another name": lambda: encode(
        attached(columns="category", prefix="past_").drop(columns="item")
    ),
    "numbers as text": lambda: encode(plain(price=["1.5", "2", "3"] * 10), drop=()),
    "dates as text": lambda: encode(
        plain(when=["2024-01-02", "2024-01-03", "2024-01-04"] * 10), drop=()
    ),
    "text for integers at transform": lambda: encode(plain(), plain().assign(item="x"), drop=()),
    "dates for numbers at transform": lambda: encode(
        plain(price=0.5), plain(price=pd.Timestamp("2024-01-01")), drop=()
    ),
    "a number of 1e300": lambda: encode(plain(price=[1e300, 1.0, 2.0] * 10), drop=()),
    "a column without a name": lambda: encode(plain(**{"": ["a", "b", "c"] * 10}), drop=()),
    "float16 keys": lambda: str(attached(clicks().astype({"user": "float16"})).shape),
    "lists as keys": unhashable,
    "a batch of new users only": new_users,
    "a history of mixed times and numbers": mixed_history,
    "negatives without item_columns": negatives,
    "negatives with the user's column in item_columns": lambda: negatives(item_columns=["user"]),
    "events and impressions swapped": swapped,
    "no user in common": no_common_user,
    "HistoryBuilder under a split by user": builder_by_user,
    "the same events given twice to partial_fit": events_twice,
    "permutation_importance with aligned histories": permuted,
}


def ending(mistake: Callable[[], str]) -> str:
    """What the user is told, and what comes out."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = f"-> {mistake()}"
        except Exception as error:
            result = f"{type(error).__name__}: {error}"
    said = [f"{w.category.__name__}: {w.message}" for w in caught]
    return " / ".join([*said, result])


def main() -> None:
    """Print the table, or be one of the children."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", nargs="?", help="folder of an older checkout")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps({name: ending(mistake) for name, mistake in MISTAKES.items()}))
        return
    checkouts = {"now": HERE} | ({"before": Path(options.other)} if options.other else {})
    endings = {}
    for name, checkout in checkouts.items():
        command = [sys.executable, str(Path(__file__).resolve()), "--child"]
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        done = subprocess.run(
            command, env=environment, cwd=checkout, check=True, capture_output=True, text=True
        )
        endings[name] = json.loads(done.stdout.splitlines()[-1])
    for number, mistake in enumerate(MISTAKES, 1):
        print(f"\n{number}. {mistake}")
        for name in reversed(checkouts):
            print(f"   {name}: {endings[name][mistake]}")


if __name__ == "__main__":
    main()
