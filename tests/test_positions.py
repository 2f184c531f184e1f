"""Positions: training learns what they add to the log-odds, and nothing that predicts sees them."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.pipeline import make_pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, module, update
from sklearn_din.network.batch import Batch
from tests.abilities import ABILITIES, FRAME, make_encoder, outputs


def fit(X, y, ability="lists", **parameters):
    estimator, options, _ = ABILITIES[ability]
    options = {"max_epochs": 2, "random_state": 0} | options | parameters
    return make_pipeline(make_encoder(), estimator(**options)).fit(X, y)


@pytest.fixture(scope="module", params=ABILITIES)
def fitted(request):
    return fit(FRAME, ABILITIES[request.param][2], request.param)


def test_the_logit_of_a_training_row_has_its_positions_favour_and_no_prediction_has(fitted):
    encoder, estimator = fitted
    net, X = estimator.net_, estimator.net_.neighbours_.add_to(encoder.transform(FRAME))
    with torch.no_grad():
        trained, predicted = (net.module_(Batch(rows)) for rows in (X, X._replace(positions=None)))
    favours = net.module_.favours.detach().numpy() * module.FAVOUR_RATE
    shares = net.module_.options["position_shares"]
    average = sum(share * favour for share, favour in zip(shares, favours, strict=True))
    for row, (rank, difference) in enumerate(zip(FRAME["rank"], trained - predicted, strict=True)):
        expected = np.zeros(len(average)) if np.isnan(rank) else favours[int(rank) - 1] - average
        np.testing.assert_allclose(np.ravel(difference), expected, atol=1e-5, err_msg=row)
    assert np.abs(favours).min() > 0
    np.testing.assert_allclose(net.score(X), predicted, atol=1e-5)
    expected = outputs(fitted, FRAME)
    for X in (FRAME.drop(columns="rank"), FRAME.assign(rank=7), FRAME.assign(rank=np.nan)):
        np.testing.assert_array_equal(outputs(fitted, X), expected)


@pytest.mark.parametrize(("rank", "alike"), [(3, "were at position 3"), (np.nan, "have none")])
def test_positions_that_are_all_alike_are_reported_by_each_fit(rank, alike):
    X, y = FRAME.assign(rank=rank), ABILITIES["lists"][2]
    with pytest.warns(UserWarning, match=f"learnt of positions: all rows to train on {alike}"):
        fit(X, y)
    with pytest.warns(UserWarning, match="learnt of positions"):
        fit(X, y)  # another fold reports it as well


@pytest.mark.slow
def test_items_of_one_relevance_are_alike_wherever_they_are_shown():
    rng = np.random.RandomState(0)
    item, n = np.arange(6_000) % 2, 6_000
    rank = np.where(rng.random_sample(n) < 0.8, item, 1 - item) * 4 + 1  # 1 or 5
    y = rng.random_sample(n) < np.where(rank == 1, 0.6, 0.2)  # item 0 is clicked 1.9 times as often
    X = pd.DataFrame({"item": item, "rank": rank, "user": np.arange(n) % 50})
    gap = {}
    for position, frame in (("rank", X), (None, X.drop(columns="rank"))):
        encoder = HistorySequenceEncoder(user="user", position=position)
        classifier = DINClassifier(neighbours=None, validation="random", random_state=0)
        p = make_pipeline(encoder, classifier).fit(frame, y).predict_proba(frame[:2])[:, 1]
        gap[position] = p[0] - p[1]
        assert p.mean() == pytest.approx(y.mean(), abs=0.05)
    assert abs(gap["rank"]) < 0.05
    assert gap[None] > 0.15


def test_an_update_takes_rows_without_positions_and_positions_beyond_those_of_fit():
    y = ABILITIES["lists"][2]
    model = fit(FRAME, y)
    before = model[1].module_.favours.detach().clone()
    model = update(model, FRAME.drop(columns="rank"), y)
    assert torch.equal(model[1].module_.favours, before)
    model = update(model, FRAME.assign(rank=900), y)
    changed = (model[1].module_.favours != before).ravel()
    assert changed.tolist() == [True] * 5  # the last one's favour, and all by the average
    encoder = make_encoder().set_params(position=None, drop=["rank"])
    model = make_pipeline(encoder, DINClassifier(max_epochs=1, random_state=0)).fit(FRAME, y)
    encoder.set_params(position="rank", drop=())
    with pytest.raises(ValueError, match=r"rows came with positions, .* Fit it anew, or set"):
        update(model, FRAME, y)


@pytest.mark.parametrize(("ranks", "expected"), [
    ([1, 2, 3], [1, 2, 3]),
    ([1.0, None, 12.0], [1, 0, 12]),
    (pd.array([4, None, 2], dtype="Int8"), [4, 0, 2]),
    ([None, 7, None], [0, 7, 0]),
    ([10**12, 1, 1], [2**31 - 1, 1, 1]),
    ([None] * 3, [0, 0, 0]),
    ([0, 1, 2], r"numbers from 1 on .* got 0\. Where they begin with 0, give X\['rank'\]"),
    ([1.5, 1, 2], r"got 1\.5\."),
    ([np.inf, 1, 2], r"got inf\."),
    (["top", "left", "top"], r"got 'top'\."),
    ([True, False, True], r"got .*True"),
    ([[1], [2], [3]], r"got \[1\]\."),
])  # fmt: skip
def test_positions_are_whole_numbers_from_one_on(ranks, expected):
    frame = pd.DataFrame({"item": [1, 2, 3], "rank": ranks})
    encoder = HistorySequenceEncoder(position="rank")
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            encoder.fit(frame)
    else:
        X = encoder.fit_transform(frame)
        assert X.positions.tolist() == X[[0, 1, 2]].positions.tolist() == expected
        assert encoder.transform(frame[["item"]]).positions is None
        assert encoder.get_feature_names_out().tolist() == ["item"]
