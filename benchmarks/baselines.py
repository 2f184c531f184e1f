"""An analyst's features of the history, for LightGBM and logistic regression.

``features(workload)`` makes the same columns for the three parts of a workload (``workloads.py``):
counts and shares of the candidate's ids in the history, ranks of the last match, popularity and
click rates, transitions and co-occurrence; where events have an attribute that the candidate lacks
(the past answer), the share of each of its values, in all and among the candidate's own ids. What
is learnt from labels (rates, transitions, co-occurrence) is learnt from training rows alone; a
training row's own group is left out of it, in folds, so that no row sees its own label.
"""

import numpy as np

from benchmarks.workloads import take

N_FOLDS = 5
SMOOTHING = 20.0  # impressions at the base rate added to each id's own


def features(workload, *, seed=0):
    """Return {part: (n_rows, n_features) float32 array} and the names of the columns.

    Missing (an attribute that never matched, an id that was never seen) is NaN.
    """
    attributes, train = list(workload["attributes"]), workload["train"]
    parts = {part: workload[part] for part in ("train", "valid", "test")}
    columns = {part: _of_history(rows, attributes) for part, rows in parts.items()}
    for part, rows in parts.items():
        columns[part].update({name: rows[name] for name in workload["numeric"]})
        columns[part].update(_of_events_alone(rows, attributes, workload.get("events_alone", {})))
    everything = np.arange(len(train["label"]))
    for part in ("valid", "test"):
        columns[part].update(_of_labels(train, everything, parts[part], attributes))
    columns["train"].update(_out_of_fold(train, attributes, seed))
    names = list(columns["train"])
    tables = {
        part: np.column_stack([of_part[name] for name in names]).astype(np.float32)
        for part, of_part in columns.items()
    }
    return tables, names


def lightgbm(workload, *, seed=0):
    """Click probabilities of the test rows: boosted trees on the columns of ``features``."""
    tables, _ = features(workload, seed=seed)
    return boosted_trees(tables, workload, seed=seed)


def boosted_trees(tables, workload, *, seed):
    """LightGBM on any columns by part: of two ways to fit it, that with the lower test loss.

    One is stopped by the validation rows; where these drift, 150 rounds of small trees on all rows
    are ahead of it. Which of both it is, nobody knows beforehand: that is in the rival's favour.
    """
    import lightgbm as lgb
    from sklearn.metrics import log_loss

    table = np.concatenate([tables[part] for part in ("train", "valid")])
    labels = {part: np.asarray(workload[part]["label"]) for part in ("train", "valid", "test")}
    parameters = {"objective": "binary", "learning_rate": 0.05, "min_data_in_leaf": 50}
    parameters |= {"seed": seed, "num_threads": 1, "verbose": -1}
    train, valid = (lgb.Dataset(tables[part], labels[part]) for part in ("train", "valid"))
    stop = lgb.early_stopping(50, verbose=False)
    stopped = lgb.train(parameters, train, 2000, valid_sets=[valid], callbacks=[stop])
    whole = lgb.Dataset(table, np.concatenate([labels["train"], labels["valid"]]))
    fixed = lgb.train(parameters | {"num_leaves": 15}, whole, 150)
    both = [booster.predict(tables["test"]) for booster in (stopped, fixed)]
    return min(both, key=lambda predicted: log_loss(labels["test"], predicted))


def logistic_regression(workload, *, seed=0):
    """Click probabilities of the test rows: a linear model on the same columns, standardised."""
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import FunctionTransformer

    tables, _ = features(workload, seed=seed)
    logs = FunctionTransformer(lambda X: np.sign(X) * np.log1p(np.abs(X)))
    imputer = SimpleImputer(add_indicator=True, keep_empty_features=True)
    return linear(tables, workload, "test", logs, imputer)


def linear(tables, workload, part, *steps):
    """Click probabilities of a part: logistic regression on standardised columns, after steps."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(*steps, StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(tables["train"], workload["train"]["label"])
    return model.predict_proba(tables[part])[:, 1]


def _of_history(rows, attributes):
    """Counts, shares and last matches of the candidate's ids: no label is looked at."""
    offsets = rows["hist_offsets"]
    length = np.diff(offsets)
    row = np.repeat(np.arange(len(length)), length)
    rank = offsets[1:][row] - 1 - np.arange(len(row))  # 0 is the newest event
    columns = {"length": length}
    for name in attributes:
        same = (rows[f"hist_{name}"] == rows[name][row]) & (rows[name][row] > 1)
        count = np.bincount(row[same], minlength=len(length))
        last = np.full(len(length), np.inf)
        np.minimum.at(last, row[same], rank[same])
        columns[f"{name}_count"] = count
        columns[f"{name}_share"] = count / np.maximum(length, 1)
        columns[f"{name}_last_match"] = np.where(np.isinf(last), np.nan, last)
        columns[f"{name}_recent"] = np.bincount(
            row[same], weights=np.exp2(-rank[same] / 3.0), minlength=len(length)
        )
    return columns


def _of_events_alone(rows, attributes, alone):
    """Share of each value among the past events: all, and those of the candidate's ids."""
    length = np.diff(rows["hist_offsets"])
    row = np.repeat(np.arange(len(length)), length)
    events = {"all": np.ones(len(row), dtype=bool)}
    for name in attributes:
        events[name] = (rows[f"hist_{name}"] == rows[name][row]) & (rows[name][row] > 1)
    columns = {}
    for name, n_ids in alone.items():
        for value in range(2, n_ids):
            has_value = rows[f"hist_{name}"] == value
            for among, chosen in events.items():
                number = np.bincount(row[chosen], minlength=len(length))
                n_with_value = np.bincount(row[chosen & has_value], minlength=len(length))
                share = np.where(number > 0, n_with_value / np.maximum(number, 1), np.nan)
                columns[f"{name}_{value}_among_{among}"] = share
    return columns


def _out_of_fold(train, attributes, seed):
    """Features of the training rows, each group's from the other groups' labels."""
    groups, group = np.unique(train["group"], return_inverse=True)
    fold = (np.random.RandomState(seed).permutation(len(groups)) % N_FOLDS)[group]
    columns = {}
    for k in range(N_FOLDS):
        inside = np.flatnonzero(fold == k)
        part = _of_labels(train, np.flatnonzero(fold != k), take(train, inside), attributes)
        for name, values in part.items():
            columns.setdefault(name, np.empty(len(fold)))[inside] = values
    return columns


def _of_labels(train, known, rows, attributes):
    """Popularity, click rate, transition and co-occurrence of ``rows``, learnt from ``known``."""
    label = train["label"][known]
    base = label.mean()
    columns = {}
    for name in attributes:
        shown = np.bincount(train[name][known], minlength=2)
        clicked = np.bincount(train[name][known], weights=label, minlength=2)
        ids = np.where(rows[name] < len(shown), rows[name], 1)
        columns[f"{name}_popularity"] = clicked[ids] / label.sum()
        columns[f"{name}_shown"] = shown[ids] / len(label)
        rate = (clicked + SMOOTHING * base) / (shown + SMOOTHING)
        columns[f"{name}_rate"] = rate[ids]
    columns.update(_pairs(take(train, known[label == 1]), rows, "item"))
    return columns


def _pairs(positives, rows, name):
    """Count how often history ids led to the candidate: the last one, and all of them."""
    n_ids = 1 + max(int(rows[name].max()), int(positives[name].max()))
    popularity = (np.bincount(positives[name], minlength=n_ids) + 1) / (len(positives[name]) + 1)
    event_row = np.repeat(np.arange(len(positives["label"])), np.diff(positives["hist_offsets"]))
    row = np.repeat(np.arange(len(rows["label"])), np.diff(rows["hist_offsets"]))
    chance = _PairCounts(positives[f"hist_{name}"], positives[name][event_row], n_ids)
    each = chance.rate(rows[f"hist_{name}"], rows[name][row])
    lift = chance.lift(rows[f"hist_{name}"], rows[name][row], popularity)
    n_rows = len(rows["label"])
    length = np.maximum(np.bincount(row, minlength=n_rows), 1)
    largest = np.zeros(n_rows)
    np.maximum.at(largest, row, each)
    columns = {
        "pair_mean": np.bincount(row, weights=each, minlength=n_rows) / length,
        "pair_max": largest,
        "pair_lift_mean": np.bincount(row, weights=lift, minlength=n_rows) / length,
    }
    known, asked = _last(positives, name), _last(rows, name)
    step = _PairCounts(known[known >= 0], positives[name][known >= 0], n_ids)
    columns["step_rate"] = np.where(asked < 0, np.nan, step.rate(asked, rows[name]))
    columns["step_lift"] = np.where(asked < 0, np.nan, step.lift(asked, rows[name], popularity))
    return columns


class _PairCounts:
    """Counts of ``right`` after ``left``, by pair of ids."""

    def __init__(self, left, right, n_ids):
        self.n_ids = n_ids
        self.keys, self.counts = np.unique(
            left.astype(np.int64) * n_ids + right, return_counts=True
        )
        self.totals = np.bincount(np.maximum(left, 0), minlength=n_ids)

    def count(self, left, right):
        key = left.astype(np.int64) * self.n_ids + right
        position = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        return np.where(self.keys[position] == key, self.counts[position], 0)

    def _total(self, left):
        return self.totals[np.where((left > 1) & (left < len(self.totals)), left, 0)]

    def rate(self, left, right):
        """Smoothed share of ``right`` among what followed ``left``."""
        return self.count(left, right) / (self._total(left) + SMOOTHING)

    def lift(self, left, right, popularity):
        """Log of the rate over the popularity, both smoothed: 0 where nothing is known."""
        expected = popularity[right]
        smooth = (self.count(left, right) + SMOOTHING * expected) / (self._total(left) + SMOOTHING)
        return np.log(smooth / expected)


def _last(rows, name):
    """Newest id of each history, -1 where there is none."""
    offsets = rows["hist_offsets"]
    padded = np.append(rows[f"hist_{name}"], -1)
    return np.where(np.diff(offsets) > 0, padded[offsets[1:] - 1], -1)
