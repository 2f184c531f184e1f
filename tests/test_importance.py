"""Which behaviour and which column a fitted Pipeline relies on, whatever frame it is given."""

import numpy as np
import pytest
from sklearn.inspection import permutation_importance
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from sklearn_din import HistoryBuilder, history_importance
from sklearn_din.metrics import group_roc_auc_scorer
from tests.fitted_pipelines import attach_clicks, make_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* have rows another item's category"),
    pytest.mark.slow,
]
QUICK = {"max_epochs": 4, "early_stopping": False}
HISTORIES = ["hist_item", "hist_category", "hist_elapsed"]


SIZES = {"n_users": 60, "n_items": 40, "n_categories": 6}
X, y = attach_clicks(elapsed="hist_elapsed", **SIZES, random_state=1)
X = X.drop(columns="device")


@pytest.fixture(scope="module")
def fitted():
    return make_model(**QUICK).fit(X, y)


@pytest.fixture(scope="module")
def table(fitted):
    return history_importance(fitted, X, y, n_repeats=3, random_state=0)


def test_importance_equals_shuffling_by_hand(fitted, table):
    assert_shuffled(table, fitted, X, y)


def test_groups_tell_whether_histories_or_rates_decide():
    keys = {"user": "user", "time": "time", "columns": ["item", "category"], "levels": "auto"}
    model = make_pipeline(HistoryBuilder(**keys), *make_model(**QUICK))
    rows = X.drop(columns=HISTORIES)
    table = history_importance(model.fit(rows, y), rows, y, by="group", n_repeats=3, random_state=0)
    assert table["feature"].iloc[0] == "histories"  # by which this log was made
    columns = {row.feature: {*row.columns} for row in table.itertuples()}
    assert columns.pop("levels") == {*model[0].memory_.names}
    others = {"item": {"item", "category"}, "user": {"user"}, "other columns": {"price"}}
    assert columns == {"histories": {"hist_item", "hist_category"}, **others}
    assert_shuffled(table, model[1:], model[0].transform(rows), y)


def assert_shuffled(table, fitted, X, y):
    """Each importance is that of the three orders by hand."""
    base = roc_auc_score(y, fitted.predict_proba(X)[:, 1])
    seeds = np.random.RandomState(0)
    orders = [seeds.permutation(len(X)) for _ in range(3)]
    for row in table.itertuples():
        falls = []
        for order in orders:
            shuffled = X.copy()
            for name in row.columns:
                values = list(X[name])
                shuffled[name] = [values[place] for place in order]
            falls.append(base - roc_auc_score(y, fitted.predict_proba(shuffled)[:, 1]))
        assert row.importance_mean == pytest.approx(np.mean(falls), abs=1e-6)
        assert row.importance_std == pytest.approx(np.std(falls), abs=1e-6)


def test_a_behaviour_is_shuffled_whole_and_what_decides_the_clicks_comes_first(fitted, table):
    columns = table.set_index("feature")["columns"].to_dict()
    assert columns == {
        "hist_item+hist_category": tuple(HISTORIES),
        "item": ("item",),
        "category": ("category",),
        "price": ("price",),
    }
    assert table["kind"].value_counts().to_dict() == {"column": 3, "behaviour": 1}
    assert table["feature"].iloc[0] == "hist_item+hist_category"
    assert table["importance_mean"].iloc[0] > 0.1
    assert table["importance_mean"].is_monotonic_decreasing
    assert abs(table.set_index("feature").loc["price", "importance_mean"]) < 0.02
    with pytest.raises(ValueError, match=r"one length in each row.* use history_importance"):
        permutation_importance(fitted, X, y, n_repeats=1)


def test_a_column_and_the_indicator_of_its_missing_numbers_are_one_feature():
    is_missing = (y == 1) & (np.arange(len(y)) % 9 > 0)
    rows = X.assign(price=np.where(is_missing, np.nan, X["price"]))
    model = make_model(max_epochs=10, neighbours=None, early_stopping=False).fit(rows, y)
    table = history_importance(model, rows, y, n_repeats=1, random_state=0)
    assert sorted(table["feature"]) == ["category", "hist_item+hist_category", "item", "price"]
    assert table["feature"].iloc[0] == "price"


def test_histories_made_inside_the_pipeline_are_shuffled_too():
    rows = X.drop(columns=HISTORIES)
    builder = HistoryBuilder(user="user", time="time", columns=["item", "category"])
    encoder, classifier = make_model(**QUICK)
    for model in (
        make_pipeline(builder, encoder, classifier),
        make_pipeline("passthrough", make_pipeline(builder, encoder), classifier),
    ):
        table = history_importance(model.fit(rows, y), rows, y, n_repeats=1, random_state=0)
        assert table["feature"].iloc[0] in ("hist_item+hist_category", "category")
        assert len(table) == 4


@pytest.mark.parametrize(
    "scoring", ["neg_log_loss", None, group_roc_auc_scorer("user"), group_roc_auc_scorer()]
)
def test_any_score_can_be_watched(fitted, scoring):
    table = history_importance(fitted, X, y, scoring=scoring, n_repeats=1, random_state=0)
    assert table["feature"].iloc[0] in ("hist_item+hist_category", "category")
    assert (table["importance_std"] == 0).all()
