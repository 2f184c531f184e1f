"""Other ways to score attention, inside our extended network (docs/guide/questions.rst).

``python -m benchmarks.attention_study --cache attention.json [--seeds 2] [--only WORD]`` runs what
the cache lacks and prints the tables; ``--table`` only prints. Every way gets the same training
rows, the same relations of event and candidate (same ids, recency) and the same start: a weight
that grows with the number of equal ids. Only the score of a pair differs.
"""

import argparse
import contextlib
import json
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from sklearn.metrics import log_loss
from torch import nn

from benchmarks.data_sets import data_set
from sklearn_din import DINClassifier, EncodedFeatures, module
from sklearn_din.features import Behaviour, Field, Ragged, Schema
from sklearn_din.metrics import group_roc_auc_score
from sklearn_din.network import interest
from sklearn_din.network.layers import MATCHING_BIAS

DATA_SETS = [
    "e-shop by session, uniform",
    "MovieLens by user",
    "MovieLens by time",
    "click log: few items, long, strong",
    "click log: recent interest",
    "repetition tires",
    "answers",
]
N_UNITS = 64  # of additive attention, as many as the activation unit's first layer has


class Score(nn.Module):
    """A score of query and key, in the place of the activation unit; relations enter linearly.

    The score is ``pair(q, k) + u k + w relations + b``.
    """

    def __init__(self, width, n_relations, *, units, activation):
        super().__init__()
        self.first_activation, self.rest = nn.Identity(), ()  # what tells that it cannot be fused
        self.key = nn.Linear(width, 1, bias=False)
        self.relations = nn.Linear(n_relations, 1)

    @torch.no_grad()
    def start_as_matching(self, n_same):
        """As ``ActivationUnit.start_as_matching``."""
        self.relations.weight[0, :n_same] = 1.0
        self.relations.bias.fill_(MATCHING_BIAS)

    def forward(self, queries, keys, relations, rows):
        """As ``ActivationUnit.forward``."""
        score = self.pair(queries.index_select(0, rows), keys)
        return score + (self.key(keys) + self.relations(relations)).squeeze(1)


class DotProduct(Score):
    """``s q k``: one learnt number s."""

    def __init__(self, width, n_relations, **options):
        super().__init__(width, n_relations, **options)
        self.scale = nn.Parameter(torch.ones(()))

    def pair(self, queries, keys):
        return self.scale * (queries * keys).sum(1)


class Bilinear(Score):
    """``q W k``, which starts as the dot product."""

    def __init__(self, width, n_relations, **options):
        super().__init__(width, n_relations, **options)
        self.matrix = nn.Parameter(torch.eye(width))

    def pair(self, queries, keys):
        return ((queries @ self.matrix) * keys).sum(1)


class Additive(Score):
    """``v tanh(Q q + K k)`` (Bahdanau et al., 2015)."""

    def __init__(self, width, n_relations, **options):
        super().__init__(width, n_relations, **options)
        self.hidden = nn.Linear(2 * width, N_UNITS)
        self.last = nn.Linear(N_UNITS, 1, bias=False)

    def pair(self, queries, keys):
        return self.last(self.hidden(torch.cat([queries, keys], dim=1)).tanh()).squeeze(1)


class TwoHeads(interest.Interest):
    """Two activation units: the MLP gets the weighted sum, and the sum of the weights, of both."""

    def __init__(self, behaviour, widths, **options):
        super().__init__(behaviour, widths, **options)
        self.second = interest.Interest(behaviour, widths, **options)

    @property
    def n_outputs(self):
        return super().n_outputs + self.width + 1

    def outputs(self, queries, keys, sums, batch):
        vector, weights, _ = self.second(queries, keys, sums, batch)
        mass = self._mass(weights, batch)
        more = [queries * vector, mass.sign() * mass.abs().log1p()]
        return [*super().outputs(queries, keys, sums, batch), *more]


def another_unit(unit):
    """While it is open, new networks score events by ``unit``."""
    return mock.patch.object(interest, "ActivationUnit", unit)


def two_heads():
    """While it is open, new networks have two heads."""
    return mock.patch.object(module, "Interest", TwoHeads)


def with_options(**options):
    """While it is open, new networks have options of DIN that DINClassifier does not have."""
    plain = module.DIN.__init__

    def init(self, schema, **others):
        plain(self, schema, **others, **options)

    return mock.patch.object(module.DIN, "__init__", init)


# While it is open, new networks keep attributes without a candidate out of the MLP.
without_means = partial(with_options, without_candidate="nothing")


@contextlib.contextmanager
def attention_trains(trains_embeddings):
    """While it is open, attention of new networks trains all embeddings, or none."""
    plain = interest.Interest.__init__

    def init(self, *arguments, **options):
        plain(self, *arguments, **options)
        self.trains_embeddings = trains_embeddings

    with mock.patch.object(interest.Interest, "__init__", init):
        yield


METHODS = {  # what is changed while the network is made, and the classifier's parameters
    "activation unit": (contextlib.nullcontext, {}),
    "not divided": (contextlib.nullcontext, {"attention_normalization": None}),
    "softmax": (contextlib.nullcontext, {"attention_normalization": "softmax"}),
    "dot product": (partial(another_unit, DotProduct), {}),
    "dot product, softmax": (
        partial(another_unit, DotProduct),
        {"attention_normalization": "softmax"},
    ),
    "bilinear": (partial(another_unit, Bilinear), {}),
    "additive": (partial(another_unit, Additive), {}),
    "two heads": (two_heads, {}),
    "without means": (without_means, {}),
    "detached": (partial(attention_trains, False), {}),
    "no attention": (contextlib.nullcontext, {"pooling": "sum"}),
}


OF_ANSWERS = ["without means", "detached"]  # they change nothing where all has a candidate


def encode(workload, *parts):
    """Return the parts' rows, one after the other, as EncodedFeatures, and their labels."""
    attributes, alone = workload["attributes"], workload.get("events_alone", {})
    fields = [Field(a, "categorical", a, n) for a, n in attributes.items()]
    fields += [Field(name, "numeric") for name in workload["numeric"]]
    fields += [Field(f"hist_{a}", "history", a, n) for a, n in (attributes | alone).items()]
    histories = tuple(f"hist_{a}" for a in attributes | alone)
    candidates = (*attributes, *[None] * len(alone))
    behaviour = Behaviour("+".join(histories), histories, candidates)
    schema = Schema(tuple(fields), (behaviour,), workload["max_length"])
    rows = [workload[part] for part in parts]

    def joined(key):
        return np.concatenate([part[key] for part in rows])

    columns = {name: joined(name) for name in schema.names("categorical", "numeric")}
    lengths = np.concatenate([np.diff(part["hist_offsets"]) for part in rows])
    ragged = Ragged.from_lengths({name: joined(name) for name in histories}, lengths)
    return EncodedFeatures(schema, columns, {histories: ragged}), joined("label")


def fit(X, y, *, n_valid, seed, **parameters):
    """Train on all rows but the last ``n_valid``, which tell when to stop."""
    stopping = {"early_stopping": True, "validation": "last"}
    classifier = DINClassifier(
        random_state=seed, validation_fraction=n_valid / len(y), **stopping, **parameters
    )
    return classifier.fit(X, y)


def judged(classifier, X, y, groups):
    """GAUC and log loss of some rows."""
    probability = classifier.predict_proba(X)[:, 1]
    return {
        "gauc": group_roc_auc_score(y, probability, groups=groups),
        "log_loss": log_loss(y, probability),
    }


def run(workload, method, seed):
    """Fit one way on one data set; return what was measured on validation and test rows."""
    change, parameters = METHODS[method]
    X, y = encode(workload, "train", "valid")
    n_valid = len(workload["valid"]["label"])
    with change():
        classifier = fit(X, y, n_valid=n_valid, seed=seed, **parameters)
        return {
            part: judged(classifier, *encode(workload, part), workload[part]["group"])
            for part in ("valid", "test")
        }


def fill(results, options, *, names, methods, made, run):
    """Run what the cache lacks: ``run(made(name, seed), method, seed)``."""
    for seed in range(options.seeds):
        for name in (name for name in names if options.only in name):
            found = results.setdefault(name, {})
            missing = [m for m in methods if str(seed) not in found.get(m, {})]
            if name != "answers":
                missing = [m for m in missing if m not in OF_ANSWERS]
            data = made(name, seed) if missing else None
            for method in missing:
                measured = run(data, method, seed)
                found.setdefault(method, {})[str(seed)] = measured
                options.cache.write_text(json.dumps(results, indent=1) + "\n")
                print(f"{name} | {method} | {seed}: {json.dumps(measured)}", flush=True)


def print_tables(results, methods):
    """Print GAUC and log loss by method and data set: validation, test; means over the seeds."""
    for measure in ("gauc", "log_loss"):
        print(f"\n### {measure}: validation, test\n\n| | {' | '.join(results)} |")
        print("|---" * (1 + len(results)) + "|")
        for method in methods:
            cells = [_cell(found.get(method, {}).values(), measure) for found in results.values()]
            print(f"| {method} | {' | '.join(cells)} |")


def _cell(found, measure):
    if not found:
        return ""
    means = [np.mean([one[part][measure] for one in found]) for part in ("valid", "test")]
    return ", ".join(f"{mean:.4f}" for mean in means)


def options_of(name):
    """Read the command line of a study."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}_study")
    parser.add_argument("--cache", type=Path, default=Path(f"{name}.json"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", default="", help="part of a data set's name")
    parser.add_argument("--table", action="store_true", help="print what the cache holds")
    return parser.parse_args()


def main():
    options = options_of("attention")
    results = json.loads(options.cache.read_text()) if options.cache.exists() else {}
    if not options.table:
        fill(results, options, names=DATA_SETS, methods=METHODS, made=data_set, run=run)
    print_tables(results, METHODS)


if __name__ == "__main__":
    main()
