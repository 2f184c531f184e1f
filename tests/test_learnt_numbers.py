"""What every kind of numbers that are learnt of rows must keep to, each kind alone."""

import numpy as np
import pandas as pd
import pytest

from sklearn_din import HistorySequenceEncoder, attach_history
from sklearn_din.metrics import group_roc_auc_score
from sklearn_din.neighbours.tables import KINDS, learn_neighbours
from sklearn_din.utils.typed_fields import from_dict, to_dict


def make_rows(n_rows, odds_of):
    """Encoded rows in order of time, and labels by chance of such log-odds."""
    rng = np.random.RandomState(0)
    log = pd.DataFrame({"user": rng.randint(40, size=n_rows), "item": rng.randint(60, size=n_rows)})
    log["time"] = np.sort(rng.randint(n_rows // 2, size=n_rows))
    chances = 1 / (1 + np.exp(-odds_of(log["user"].to_numpy(), log["item"].to_numpy())))
    y = (rng.random_sample(n_rows) < chances).astype(int)
    X = attach_history(log, log[y == 1], user="user", time="time", columns=["item"])
    return HistorySequenceEncoder(user="user", time="time").fit_transform(X), y


@pytest.fixture(scope="module")
def learnt():
    """Encoded rows, and what was learnt of users who differ and of items that go together."""
    X, y = make_rows(1200, lambda user, item: np.sin(user) + 3 * (item % 4 == user % 4) - 1)
    return X, learn_neighbours(X, y == 1, order="time", y=y)[0]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


@pytest.fixture
def part(kind, learnt):
    (part,) = [part for part in learnt[1].parts if type(part) is kind]
    return part


def test_a_row_without_a_table_has_zeros_and_others_differ(learnt, part):
    X, tables = learnt
    nobody = part.look_up(X, np.full(len(X), -1))
    assert nobody.shape == (len(X), len(part.names))
    assert not nobody.any()
    numbers = part.look_up(X, tables.order.find_tables(X))
    assert numbers.any()
    assert np.isfinite(numbers).all()


def test_rows_are_looked_up_one_by_one_as_together_and_out_of_a_file(learnt, part):
    X, tables = learnt
    rows = np.random.RandomState(1).permutation(len(X))[:40]
    of_rows = tables.order.find_tables(X)
    numbers, again = part.look_up(X, of_rows), from_dict(type(part), to_dict(part))
    for row in rows:
        alone = part.look_up(X[row : row + 1], of_rows[row : row + 1])
        np.testing.assert_allclose(alone[0], numbers[row], atol=1e-6)
    np.testing.assert_array_equal(again.look_up(X[rows], of_rows[rows]), numbers[rows])


def test_the_latest_alone_gives_the_numbers_of_now(learnt, part):
    X, tables = learnt
    now = X._replace(times=None)
    of_now = tables.order.find_tables(now)
    latest = part.latest()
    only = of_now if latest is part else np.zeros(len(X), dtype=int)
    last = part.look_up(now, of_now)
    np.testing.assert_allclose(latest.look_up(now, only), last, atol=1e-6)


def test_numbers_of_chance_tell_no_training_row_its_own_label(kind):
    X, y = make_rows(2400, lambda user, item: 1.5 * np.sin(user))  # by user alone, each by chance
    tables, trained = learn_neighbours(X, y == 1, order="time", y=y)
    (part,) = [part for part in tables.parts if type(part) is kind]
    for name in part.names:
        assert abs(group_roc_auc_score(y, trained[name], groups=X.users) - 0.5) < 0.08, name
