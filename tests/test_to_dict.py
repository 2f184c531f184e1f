"""Encoded rows as plain padded arrays, for torch modules of the user."""

import numpy as np
import torch
from skorch import NeuralNetBinaryClassifier
from torch import nn

from tests.encoded_impressions import make_impressions, make_labels

X = make_impressions(64, numbers=("elapsed",))


def test_the_arrays_are_those_that_are_read_by_name():
    arrays = X.to_dict()
    assert list(arrays) == X.keys()
    for name, values in arrays.items():
        assert type(values) is np.ndarray
        np.testing.assert_array_equal(values, X[name])


class MeanOfHistory(nn.Module):
    """Logit from the candidate and the mean embedding of the real events."""

    def __init__(self, n_ids):
        super().__init__()
        self.items, self.output = nn.Embedding(n_ids, 4, padding_idx=0), nn.Linear(8, 1)

    def forward(self, item, hist_item, hist_item_mask, **others):
        mask = hist_item_mask.unsqueeze(2)
        mean = (self.items(hist_item) * mask).sum(1) / mask.sum(1).clamp(min=1)
        return self.output(torch.cat([self.items(item), mean], dim=1)).squeeze(1)


def test_a_module_of_the_user_is_trained_on_them_by_skorch():
    n_ids = X.schema.vocabulary_sizes["item"]
    net = NeuralNetBinaryClassifier(MeanOfHistory, module__n_ids=n_ids, max_epochs=2, verbose=0)
    net.fit(X.to_dict(), make_labels(X).astype(np.float32))
    assert net.predict_proba(X.to_dict()).shape == (64, 2)
