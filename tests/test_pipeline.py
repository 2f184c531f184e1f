"""Encoder and classifier together, in scikit-learn's tools, on made and on real logs."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import Pipeline

from sklearn_din import HistorySequenceEncoder, attach_history, remember, sample_negatives
from tests.fitted_pipelines import attach_clicks, make_model
from tests.plain_memory import PlainMemory, make_asked, make_memory, make_tellings

pytestmark = pytest.mark.slow


def make_pipeline(drop=("user", "time"), **parameters):
    return make_model(HistorySequenceEncoder(drop=list(drop)), **parameters)


@pytest.mark.parametrize("routing", [True, False])
def test_sample_weight_and_groups_reach_the_classifier(routing):
    X, y = attach_clicks(n_users=150, n_items=60, n_categories=8, random_state=0)
    with sklearn.config_context(enable_metadata_routing=routing):
        model = make_pipeline(early_stopping=True, validation="groups")
        if routing:
            model.named_steps["din"].set_fit_request(sample_weight=True, groups=True)
            model.fit(X, y, sample_weight=np.ones(len(y)), groups=X["user"])
        else:
            model.fit(X, y, din__sample_weight=np.ones(len(y)), din__groups=X["user"])
    assert model["din"].history_["valid_loss"].notna().all()


def test_a_memory_before_the_encoder_is_what_plain_loops_show():
    """Also of training rows: each was shown what was known before it."""
    loop, memory, (first, *later) = PlainMemory(), make_memory(), make_tellings()
    encoder = HistorySequenceEncoder(user="user", time="time")
    model = Pipeline([("log", memory), *make_model(encoder).steps]).fit(*first)
    loop.tell(*first, "known")
    twin = make_model(clone(encoder)).fit(loop.show(first[0].drop(columns="known")), first[1])
    asked = make_asked(first[0])
    for rows, y in later:
        model = remember(model, rows, y)
        loop.tell(rows, y, "known")
        expected = twin.predict_proba(loop.show(asked))
        np.testing.assert_allclose(model.predict_proba(asked), expected, atol=1e-6)


def test_attention_predicts_eshop_clicks_better_than_sums(shared_data):
    clicks = pd.read_csv(shared_data / "eshop-clicks" / "clicks.csv.gz")
    clicks = clicks[clicks["session"] <= 4000]
    last = clicks.groupby("session")["order"].transform("max")
    chosen = clicks[(clicks["order"] == last) & (last > 1)]
    chosen = chosen[["session", "order", "item", "category"]]
    options = {"user": "session", "item": "item", "item_columns": ["category"]}
    X, y = sample_negatives(chosen, **options, n_negatives=4, random_state=0)
    X = attach_history(X, clicks, user="session", time="order", columns=["item", "category"])
    train, test = next(GroupShuffleSplit(1, random_state=0).split(X, y, X["session"]))
    auc = {}
    for pooling in ("attention", "sum"):
        model = make_pipeline(("session", "order"), max_epochs=5, pooling=pooling)
        model.fit(X.iloc[train], y[train])
        auc[pooling] = roc_auc_score(y[test], model.predict_proba(X.iloc[test])[:, 1])
    assert auc["attention"] > 0.75
    assert auc["attention"] > auc["sum"]
