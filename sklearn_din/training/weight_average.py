"""Averages of weights during training, which vary less than the weights of single steps.

Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.
"""

from collections.abc import Mapping

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor, nn

from sklearn_din.training.batches import ImpressionBatches
from sklearn_din.training.validation import MOST_PARTS


class WeightAverage:
    """Average of a network's weights, which can stand in for the latest ones for a while."""

    def __init__(self, first: Mapping[str, Tensor] | None = None) -> None:
        self.weights = {name: weight.clone() for name, weight in (first or {}).items()}
        self.is_in_place = False

    @torch.no_grad()
    def take(self, module: nn.Module, share: float) -> None:
        """Add the latest weights to their average, with this fraction."""
        for name, latest in module.state_dict().items():
            if name in self.weights:
                self.weights[name].lerp_(latest, share)
            else:
                self.weights[name] = latest.clone()

    def exchange(self, module: nn.Module) -> None:
        """Swap the module's weights and the average; no number is copied."""
        for name, weight in module.state_dict(keep_vars=True).items():
            weight.data, self.weights[name] = self.weights[name], weight.data
        self.is_in_place = not self.is_in_place


def share_of_part(number: int, n_parts: int) -> float:
    """Return the fraction of the weights after a chunk, from 1, in the average.

    They count as if half as many parts had been before.

    >>> [share_of_part(number, 2) for number in (1, 2)]
    [0.5, 0.3333333333333333]
    """
    return 1.0 / (n_parts / 2 + number)


class AveragedPass(Callback):
    """Leave the average of the weights of one pass, and of those before it, in the net.

    The weights count after each of up to eight parts of the pass, of about as many batches.
    """

    ignores_gradients = True

    def on_train_begin(self, net: NeuralNet, **kwargs: object) -> None:
        """Begin with the weights as they are."""
        self._average = WeightAverage(net.module_.state_dict())

    def on_epoch_begin(
        self, net: NeuralNet, dataset_train: ImpressionBatches, **kwargs: object
    ) -> None:
        """Choose the batches that end a chunk."""
        n_batches = dataset_train.n_batches
        ends = np.linspace(0, n_batches, min(n_batches, MOST_PARTS) + 1).round()
        self._ends = [int(end) for end in ends[1:]]

    def on_batch_end(self, net: NeuralNet, **kwargs: object) -> None:
        """Add the weights after the last batch of a chunk."""
        n_done = len(net.history[-1]["batches"])
        if n_done in self._ends:
            share = share_of_part(self._ends.index(n_done) + 1, len(self._ends))
            self._average.take(net.module_, share)

    def on_train_end(self, net: NeuralNet, **kwargs: object) -> None:
        """Use the average, and free the rest."""
        net.module_.load_state_dict(self._average.weights)
        del self._average
