"""Which rows are set aside for validation: by the roles of the encoder, or by what fit is given."""

from functools import partial

import numpy as np
import pytest

from sklearn_din import DINClassifier
from tests import fitted_pipelines
from tests.callbacks import On
from tests.encoded_impressions import make_impressions, make_labels

# Which rows they are is looked at here, not what one epoch learns.
pytestmark = pytest.mark.filterwarnings("ignore:the validation rows hardly follow")


quick = partial(fitted_pipelines.quick, max_epochs=1, early_stopping=True)


def validation_rows(users=None, times=None, **fit_parameters):
    X = make_impressions(200, seed=3)
    X.users, X.times = users, times
    X.columns["price"] = np.arange(200, dtype=np.float32) / 100
    seen = []

    def watch(net, batch=None, training=False, **_):
        if not training:
            seen.extend((batch[0].numbers[:, 0] * 100).round().int().tolist())

    validation = fit_parameters.pop("validation")
    fraction = fit_parameters.pop("validation_fraction", 0.1)
    options = {"validation_fraction": fraction, "callbacks": [On(batch_end=watch)]}
    quick(validation=validation, **options).fit(X, make_labels(X), **fit_parameters)
    return seen


@pytest.mark.parametrize("validation", ["last", DINClassifier().validation])
@pytest.mark.parametrize("kind", ["int64", "float64", "datetime64[s]"])
def test_the_last_times_of_rows_in_any_order_are_taken_also_by_default(kind, validation):
    times = np.random.default_rng(5).permutation(200).astype(kind)
    expected = np.flatnonzero(times >= np.array(180).astype(kind)).tolist()
    assert validation_rows(times=times, validation=validation) == expected


@pytest.mark.parametrize(
    ("late", "n_valid"),
    [(15, 15), (29, 29), (31, 31), (100, 100), (199, 199)],  # 20 are asked for
)
def test_validation_last_never_parts_equal_times_and_takes_the_nearest(late, n_valid):
    times = np.where(np.arange(200) % 200 < late, 9, 3)
    assert validation_rows(times=times, validation="last") == list(range(n_valid))
    days = np.repeat(np.arange(20), 10)[np.random.default_rng(late).permutation(200)]
    rows = validation_rows(times=days, validation="last", validation_fraction=0.13)
    assert rows == np.flatnonzero(days >= 17).tolist()


def test_validation_by_groups_takes_the_users_where_no_groups_are_given():
    users = np.array([f"user {number}" for number in np.arange(200) % 20], dtype=object)
    rows = validation_rows(users=users, validation="groups")
    assert len(rows) == 20
    assert sorted(rows) == [r for r in range(200) if users[r] in set(users[rows])]
    assert rows == validation_rows(groups=users, validation="groups")
    groups = np.arange(200) // 10
    others = validation_rows(users=users, groups=groups, validation="groups")
    assert others == validation_rows(groups=groups, validation="groups") != rows


def test_the_last_rows_are_set_aside_or_by_default_any_where_no_time_is_known():
    assert validation_rows(validation="last") == list(range(180, 200))
    rows = validation_rows(validation="auto")
    assert rows == validation_rows(validation="random") != list(range(180, 200))


@pytest.mark.parametrize(("times", "error", "message"), [
    (np.ones(200), "at least two different times, got", "got 200 rows of one time"),
    (np.where(np.arange(200) < 3, np.nan, 1.0), "the time of every row, got", "got 3 missing"),
])  # fmt: skip
def test_times_that_do_not_say_what_is_last_are_errors_for_those_who_asked(times, error, message):
    with pytest.raises(ValueError, match=error):
        validation_rows(times=times, validation="last")
    with pytest.warns(UserWarning, match=f"validates on random rows, .* {message}") as warned:
        rows = validation_rows(times=times, validation="auto")
    assert rows == validation_rows(validation="random")
    assert {item.filename for item in warned} == {__file__}
    X = make_impressions(200, seed=3)
    X.times = times
    quick(early_stopping=False).fit(X, make_labels(X))


def test_batches_of_validation_rows_are_made_once():
    X, seen = make_impressions(200), []

    def watch(net, batch=None, training=False, **_):
        if not training:
            seen.append(batch[0])

    quick(max_epochs=2, callbacks=[On(batch_end=watch)]).fit(X, make_labels(X))
    assert len(seen) == 2
    assert seen[0] is seen[1]
