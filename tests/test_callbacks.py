"""skorch's callbacks: schedules and clipping reach the embeddings."""

import numpy as np
import pytest
import skorch.callbacks
from torch.optim.lr_scheduler import OneCycleLR

from sklearn_din import DINClassifier
from tests.encoded_impressions import make_impressions, make_labels

X = make_impressions(64)
y = make_labels(X)


def classifier(**parameters):
    settings = {"max_epochs": 3, "batch_size": 16, "random_state": 0, "early_stopping": True}
    return DINClassifier(**(settings | parameters))


class Rates(skorch.callbacks.Callback):
    """Notes the learning rates of dense parameters and of the table at each epoch's end."""

    def on_train_begin(self, net, **kwargs):
        self.seen = []

    def on_epoch_end(self, net, **kwargs):
        self.seen.append([group["lr"] for group in net.optimizer_.param_groups])


HALVE = {"policy": "StepLR", "step_size": 1, "gamma": 0.5}
ONE_CYCLE = {"policy": OneCycleLR, "max_lr": 0.01, "total_steps": 12}


@pytest.mark.filterwarnings("ignore:nothing was found to learn")  # by seven validation rows
@pytest.mark.parametrize(("schedule", "ratio"), [(HALVE, 0.2), (ONE_CYCLE, 1.0)])
def test_a_schedule_that_multiplies_keeps_the_ratio_of_rates_and_another_makes_it_one(
    schedule, ratio
):
    rates = Rates()
    scheduler = skorch.callbacks.LRScheduler(**schedule)
    classifier(lr=0.01, embedding_lr=0.002, callbacks=[rates, scheduler]).fit(X, y)
    dense, table = np.transpose(rates.seen)
    np.testing.assert_allclose(table, ratio * dense)
    assert len({*dense}) == 3


def test_norm_clipping_reaches_the_tables():
    class Norms(skorch.callbacks.Callback):
        def on_train_begin(self, net, **kwargs):
            self.seen = []

        def on_batch_end(self, net, training=False, **kwargs):
            if training:
                gradients = [p.grad for p in net.module_.parameters() if p.grad is not None]
                dense = [g._values() if g.is_sparse else g for g in gradients]
                assert any(g.is_sparse for g in gradients)
                self.seen.append(sum(float(g.square().sum()) for g in dense) ** 0.5)

    norms = Norms()
    clipping = skorch.callbacks.GradientNormClipping(0.01)
    classifier(callbacks=[clipping, norms]).fit(X, y)
    assert max(norms.seen) < 0.0101
