"""The arrays on which everybody is measured: numpy and pandas only, same seed, same bits.

A workload is a plain dictionary::

    {"name": str,
     "attributes": {"item": 100002, "category": 1002},   # name -> number of ids
     "events_alone": {"answer": 4},                      # of events, but not of the candidate
     "numeric": ["price", "hour"],
     "max_length": 100,                                  # T of the padded layout
     "split": "time" or "user",                          # what divides training from test
     "train": rows, "valid": rows, "test": rows}         # a speed workload has "train" alone

and ``rows`` are arrays by name, histories ragged and shared by all attributes of one event::

    label (n,) float32       group (n,) int64, for GAUC      time (n,) int64
    item, category (n,) int32, the candidate                 price, hour (n,) float32
    hist_item, hist_category (n_events,) int32, flat         hist_offsets (n + 1,) int64

``events_alone`` and ``split`` may be missing: none, and unknown (a speed workload).
Ids: 0 is padding, 1 an id that no training row has, known ids start at 2. Histories run oldest to
newest and keep the newest ``max_length`` events. ``save`` and ``load`` write this as one ``.npz``.
"""

import json

import numpy as np
import pandas as pd

from tests.real_data import real_data_folder

UNKNOWN = 1
PARTS = ("train", "valid", "test")
SPEED = {"synthetic-10k": 10_000, "synthetic-100k": 100_000, "synthetic-1m": 1_000_000}


def synthetic(name, *, cap=None, length=None, n_rows=50_000, n_categories=1_000, seed=0):
    """Return a workload of SPEED: log-normal histories, 19 events on average, ids by a Zipf law.

    Labels are coin flips. With ``length``, all histories have so many events.
    """
    n_items, cap, rng = SPEED[name], cap or length or 100, np.random.RandomState(seed)
    category_of = 2 + rng.randint(n_categories, size=n_items + 2)
    lengths = np.exp(rng.normal(2.5, 1.0, size=n_rows)).astype(np.int64)
    lengths = lengths if length is None else np.full(n_rows, length)
    offsets = _offsets(np.minimum(lengths, cap))
    candidate = _zipf(n_items, n_rows, rng)
    history = _zipf(n_items, offsets[-1], rng)
    rows = {
        "label": (rng.random_sample(n_rows) < 0.3).astype(np.float32),
        "group": np.arange(n_rows),
        "time": np.arange(n_rows),
        "item": candidate.astype(np.int32),
        "category": category_of[candidate].astype(np.int32),
        "price": rng.normal(size=n_rows).astype(np.float32),
        "hour": rng.normal(size=n_rows).astype(np.float32),
        "hist_item": history.astype(np.int32),
        "hist_category": category_of[history].astype(np.int32),
        "hist_offsets": offsets,
    }
    return {
        "name": f"synthetic, {n_items:,} items, events to {cap}",
        "attributes": {"item": n_items + 2, "category": n_categories + 2},
        "numeric": ["price", "hour"],
        "max_length": cap,
        "train": rows,
    }


def movielens(*, split="time", cap=50, seed=0, hide_unseen=True):
    """Return MovieLens latest-small: label rating >= 4, history the movies liked strictly earlier.

    The attributes are the movie and its first genre. ``split`` is "time" (80/10/10 of global time)
    or "user" (80/10/10 of the users, drawn from ``seed``).
    """
    folder = real_data_folder() / "ml-latest-small"
    ratings = pd.read_csv(folder / "ratings.csv.gz").sort_values(["userId", "timestamp", "movieId"])
    movies = pd.read_csv(folder / "movies.csv.gz")
    genre = movies.set_index("movieId")["genres"].str.split("|").str[0]
    user, time = ratings["userId"].to_numpy(), ratings["timestamp"].to_numpy()
    item = 2 + pd.factorize(ratings["movieId"], sort=True)[0]
    category = 2 + pd.factorize(ratings["movieId"].map(genre), sort=True)[0]
    liked = ratings["rating"].to_numpy() >= 4
    start, length = _past(user, time, user[liked], time[liked], cap)
    rows = {
        "label": liked.astype(np.float32),
        "group": user,
        "time": time,
        **_gather({"item": item[liked], "category": category[liked]}, start, length),
        "item": item.astype(np.int32),
        "category": category.astype(np.int32),
    }
    if split == "time":
        part = np.searchsorted(np.quantile(time, [0.8, 0.9]), time, side="left")
    else:
        part = _random_parts(user, seed)
    return _workload(
        f"movielens by {split}", rows, part, ["item", "category"], cap, hide_unseen, split=split
    )


def eshop(*, split="session", negatives="uniform", n_negatives=4, cap=50, seed=0, hide_unseen=True):
    """Return e-shop clicks: a session's last click against products that were drawn as negatives.

    The history is what the session clicked before; the attributes are product, category, colour
    and location on the page. ``split`` is "session" (80/10/10 of the sessions, drawn from ``seed``)
    or "time". ``negatives`` are drawn from the products that the session never saw, "uniform" or by
    "popularity" (number of clicks), or uniformly from the whole "catalogue" without the positive:
    then an id that is in its own history does not reveal the label.
    """
    clicks = pd.read_csv(real_data_folder() / "eshop-clicks" / "clicks.csv.gz")
    clicks = clicks.sort_values(["session", "order"], kind="stable")
    item = 2 + pd.factorize(clicks["item"], sort=True)[0]
    session = pd.factorize(clicks["session"])[0]
    table = {"item": np.arange(item.max() + 1)}
    for name in ("category", "colour", "location"):
        code = 2 + pd.factorize(clicks[name], sort=True)[0]
        table[name] = np.zeros(item.max() + 1, dtype=np.int64)
        table[name][item[::-1]] = code[::-1]  # the first click decides: one product has two
    first = np.flatnonzero(np.r_[True, session[1:] != session[:-1]])
    last = np.r_[first[1:], len(session)] - 1
    rng = np.random.RandomState(seed)
    unseen = _negatives(session, item, last, n_negatives, negatives, rng)
    candidate = np.column_stack([item[last], unseen]).ravel()
    repeats = 1 + n_negatives
    start, length = np.maximum(first, last - cap), np.minimum(last - first, cap)
    day = pd.to_datetime(clicks["date"]).to_numpy().astype("datetime64[D]").astype(np.int64)[last]
    group = np.arange(len(last))
    events = {name: codes[item] for name, codes in table.items()}
    rows = {
        "label": np.tile(np.eye(1, repeats, dtype=np.float32)[0], len(last)),
        "group": np.repeat(group, repeats),
        "time": np.repeat(day, repeats),
        **_gather(events, np.repeat(start, repeats), np.repeat(length, repeats)),
        **{name: codes[candidate].astype(np.int32) for name, codes in table.items()},
    }
    if split == "time":
        part = np.searchsorted(np.quantile(day, [0.8, 0.9]), day, side="left")
    else:
        part = _random_parts(group, seed)
    name, part = f"eshop by {split}, {negatives} negatives", np.repeat(part, repeats)
    split = "time" if split == "time" else "user"
    return _workload(name, rows, part, list(table), cap, hide_unseen, split=split)


def tiring(*, n_users=2500, n_events=40, n_shown=16, n_categories=40, n_each=38, cap=50, seed=0):
    """Return a made log in which a category draws by all its past events and tires by the newest.

    Log-odds of a click: ``-1 + 5/3 log(1 + m) - 3 r`` with m past events of the candidate's
    category and r of them among the newest three. On average both cancel out: no model whose
    attention has one sign finds either. A category has ``n_each`` items. Parts are 80/10/10 of the
    users; the truth is in ``probability``.
    """
    rng = np.random.RandomState(seed)
    taste = rng.dirichlet(np.full(n_categories, 0.15), n_users)

    def drawn(share, size):
        chance = (share * taste + (1 - share) / n_categories).cumsum(1)
        category = (rng.random_sample((n_users, size, 1)) > chance[:, None, :-1]).sum(2)
        return category, category + n_categories * rng.randint(n_each, size=category.shape)

    category, item = drawn(1.0, n_events)
    shown_category, shown = drawn(0.5, n_shown)
    n_past = np.tile(8 + 2 * np.arange(n_shown), (n_users, 1))
    rank = n_past[:, :, None] - 1 - np.arange(n_events)  # 0 is the newest event
    same = (category[:, None] == shown_category[:, :, None]) & (rank >= 0)
    logit = -1 + 5 / 3 * np.log1p(same.sum(2)) - 3 * (same & (rank < 3)).sum(2)
    probability = 1 / (1 + np.exp(-logit.ravel()))
    user = np.repeat(np.arange(n_users), n_shown)
    length = np.minimum(n_past.ravel(), cap)
    start = user * n_events + n_past.ravel() - length
    rows = {
        "label": (rng.random_sample(len(user)) < probability).astype(np.float32),
        "probability": probability,
        "group": user,
        "time": n_past.ravel(),
        **_gather({"item": 2 + item.ravel(), "category": 2 + category.ravel()}, start, length),
        "item": (2 + shown.ravel()).astype(np.int32),
        "category": (2 + shown_category.ravel()).astype(np.int32),
    }
    part = _random_parts(user, seed)
    return _workload(
        "repetition tires", rows, part, ["item", "category"], cap, hide_unseen=True, split="user"
    )


def rows_of(X, y, probability, names):
    """Return rows of impressions with histories of columns ``names``, whose ids count from 0."""
    cells = {f"hist_{name}": X[f"hist_{name}"].tolist() for name in names}
    return {
        "label": np.asarray(y, dtype=np.float32),
        "probability": probability,
        "group": X["user"].to_numpy(),
        "time": X["time"].astype("int64").to_numpy(),
        "hist_offsets": _offsets([len(cell) for cell in cells[f"hist_{names[0]}"]]),
        **{name: X[name].to_numpy(np.int32) + 2 for name in names if name in X},
        **{name: np.concatenate(own).astype(np.int32) + 2 for name, own in cells.items()},
    }


def pad(rows, name, max_length):
    """Return the history of attribute ``name`` as (n, max_length) int32, padded with 0 behind."""
    lengths = np.diff(rows["hist_offsets"])
    padded = np.zeros((len(lengths), max_length), dtype=np.int32)
    padded[np.arange(max_length) < lengths[:, None]] = rows[f"hist_{name}"]
    return padded


def take(rows, index):
    """Return the rows at ``index`` (integers or a boolean mask), histories included."""
    index = np.arange(len(rows["label"]))[index]
    offsets = rows["hist_offsets"]
    flat = {name[5:] for name in rows if name.startswith("hist_")} - {"offsets"}
    events = {name: rows[f"hist_{name}"] for name in flat}
    histories = _gather(events, offsets[index], np.diff(offsets)[index])
    single = {name: values[index] for name, values in rows.items() if not name.startswith("hist_")}
    return {**single, **histories}


def all_rows(workload):
    """Return the rows of all parts in the order of time."""
    parts = [workload[part] for part in PARTS]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    lengths = [np.diff(part["hist_offsets"]) for part in parts]
    joined["hist_offsets"] = _offsets(np.concatenate(lengths))
    return take(joined, np.argsort(joined["time"], kind="stable"))


def to_frame(workload, part="train", *, new_as_one=False):
    """Return one part as a DataFrame: ids and numbers in columns, histories as Arrow lists.

    An id that no training row has (1) is missing here: an encoder that learns from several parts
    does not know it either. With ``new_as_one`` a candidate's new id is one past the known ones,
    so that who compares this part with the training rows sees that it is new. "group" and "time"
    are columns too.
    """
    import pyarrow as pa  # the rivals' environments have none

    rows = workload[part]

    def column(cells):
        return pd.arrays.ArrowExtensionArray(pa.chunked_array([cells]))

    def known(ids):
        return pa.array(ids, mask=ids == UNKNOWN)

    columns = {}
    for name, n_ids in workload["attributes"].items():
        ids = np.where(rows[name] == UNKNOWN, n_ids, rows[name]) if new_as_one else rows[name]
        columns[name] = column(known(ids.astype(np.int32)))
    offsets = pa.array(rows["hist_offsets"], pa.int32())
    for name in event_attributes(workload):
        cells = pa.ListArray.from_arrays(offsets, known(rows[f"hist_{name}"]))
        columns[f"hist_{name}"] = column(cells)
    columns.update({name: rows[name] for name in workload["numeric"]})
    return pd.DataFrame({**columns, "group": rows["group"], "time": rows["time"]})


def event_attributes(workload):
    """Number of ids of each attribute of an event: the candidate's, then those of events alone."""
    return {**workload["attributes"], **workload.get("events_alone", {})}


def save(workload, path):
    """Write a workload as one ``.npz``: arrays as ``part/name``, everything else as JSON."""
    parts = [part for part in PARTS if part in workload]
    arrays = {f"{part}/{name}": a for part in parts for name, a in workload[part].items()}
    facts = {key: value for key, value in workload.items() if key not in PARTS}
    np.savez(path, facts=np.array(json.dumps(facts)), **arrays)


def load(path):
    """Read what ``save`` wrote."""
    with np.load(path) as archive:
        workload = json.loads(str(archive["facts"]))
        for key in archive.files:
            if key != "facts":
                part, name = key.split("/")
                workload.setdefault(part, {})[name] = archive[key]
    return workload


def _zipf(n_items, size, rng):
    # Zipf-Mandelbrot, P(rank) ~ 1 / (rank + 100), by its inverse distribution; ranks are shuffled
    # over the ids so that a table's hot rows do not lie side by side.
    shift = 100.0
    rank = (shift * (np.power(n_items / shift + 1.0, rng.random_sample(size)) - 1.0)).astype(int)
    return 2 + rng.permutation(n_items)[np.minimum(rank, n_items - 1)]


def _offsets(lengths):
    return np.r_[0, np.cumsum(lengths)].astype(np.int64)


def _past(user, time, event_user, event_time, cap):
    # Events are sorted by user and time; one sortable key a row finds each row's past by bisection.
    origin, span = time.min(), int(np.ptp(time)) + 2
    event_key = event_user * span + (event_time - origin)
    first = np.searchsorted(event_key, user * span, side="left")
    stop = np.searchsorted(event_key, user * span + (time - origin), side="left")
    start = np.maximum(first, stop - cap)
    return start, stop - start


def _gather(events, start, length):
    offsets = _offsets(length)
    index = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], length)
    flat = {f"hist_{name}": values[index].astype(np.int32) for name, values in events.items()}
    return {**flat, "hist_offsets": offsets}


def _negatives(session, item, last, n_negatives, strategy, rng):
    catalogue, clicks = np.unique(item, return_counts=True)
    weight = clicks / clicks.sum() if strategy == "popularity" else None
    seen = np.zeros((session.max() + 1, item.max() + 1), dtype=bool)
    left_out = last if strategy == "catalogue" else slice(None)
    seen[session[left_out], item[left_out]] = True
    drawn = rng.choice(catalogue, size=(len(seen), n_negatives), p=weight)
    while (again := np.take_along_axis(seen, drawn, axis=1)).any():
        drawn[again] = rng.choice(catalogue, size=again.sum(), p=weight)
    return drawn


def _random_parts(group, seed):
    groups, code = np.unique(group, return_inverse=True)
    share = np.random.RandomState(seed + 1).permutation(len(groups)) / len(groups)
    return np.searchsorted([0.8, 0.9], share, side="right")[code]


def _workload(name, rows, part, attributes, cap, hide_unseen, *, split, alone=()):
    n_ids = {a: int(max(rows[a].max(), rows[f"hist_{a}"].max(initial=0))) + 1 for a in attributes}
    workload = {"name": name, "attributes": n_ids, "numeric": [], "max_length": cap}
    workload["events_alone"] = {a: int(rows[f"hist_{a}"].max()) + 1 for a in alone}
    workload["split"] = split
    for code, label in enumerate(PARTS):
        workload[label] = take(rows, part == code)
    if hide_unseen:
        _hide_unseen(workload)
    return workload


def _hide_unseen(workload):
    for name in workload["attributes"]:
        keys = [name, f"hist_{name}"]
        known = np.unique(np.concatenate([workload["train"][key] for key in keys]))
        code = np.ones(workload["attributes"][name], dtype=np.int32)
        code[known] = 2 + np.arange(len(known), dtype=np.int32)
        for part in PARTS:
            workload[part].update({key: code[workload[part][key]] for key in keys})
        workload["attributes"][name] = 2 + len(known)
