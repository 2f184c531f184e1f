"""The target: how y is transformed for training, its loss, and what the outputs mean.

The net depends on its target only, so labels and numbers are trained in the same steps.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, logit
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sklearn_din.network.layers import order_of_labels
from sklearn_din.training.reading import Label, Reading, read_one, read_several

Output = float | np.ndarray  # of one row


class Target(ABC):
    """The aim of a net's training. The encoded y and the network's outputs have the same shape."""

    what_constant_is: str  # the best constant prediction
    after: tuple[int | None, ...] = (None,)  # as of DIN
    value_name: str = "prediction"  # name of the column of ``value_of``
    click_name: str = ""
    label_names: tuple[str, ...] = ("",)  # of several labels

    @abstractmethod
    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return y as the net takes it, float32."""

    @abstractmethod
    def check_encoded(self, y: ArrayLike, n_rows: int) -> np.ndarray:
        """Return an encoded y that is given to the net, as float32; ValueError if it is none."""

    @abstractmethod
    def loss(self, outputs: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
        """Return the weighted mean of the rows' losses."""

    @abstractmethod
    def constant(self, y: np.ndarray, weights: np.ndarray | None) -> Output:
        """Return the output with the smallest loss, if all rows have the same."""

    @abstractmethod
    def value_of(self, output: np.ndarray) -> np.ndarray:
        """Return outputs as people read them."""

    def read(self, label: Label | None) -> Reading:
        """Return how outputs become one number for each row; ``label`` chooses among several."""
        return read_one(self.value_name, self.value_of, label)

    def describe(self, constant: Output) -> str:
        """Return a constant as people read it: a number, or one for each label."""
        values = np.atleast_1d(self.value_of(np.asarray(constant, dtype=np.float32)))
        return ", ".join(f"{float(value):.3g}" for value in values)

    def has_constant(self, y: np.ndarray) -> bool:
        """Return whether training can start at the constant."""
        return True

    def clicks(self, y: np.ndarray) -> np.ndarray:
        """Return which rows were clicked, of several labels by the first: (n,), bool."""
        return y.reshape(len(y), -1)[:, 0] > 0

    def kinds(self, y: np.ndarray) -> np.ndarray:
        """Return kinds of rows of which random validation rows keep the shares: (n,), from 0."""
        return np.zeros(len(y), dtype=np.int64)

    def count(self, y: np.ndarray) -> tuple[int, ...]:
        """Return the numbers that decide the L2, to be summed up over all trainings."""
        return len(y), 0

    def scale_of_prior(self, counts: tuple[int, ...]) -> float:
        """Return the factor of the L2 on embeddings."""
        return 1.0

    def auc(self, y: np.ndarray, outputs: np.ndarray) -> float:
        """Return the AUC; NaN where there is none."""
        return np.nan


@dataclass(frozen=True, eq=False)
class Click(Target):
    """A label of two kinds: y is 1 for the second, the click; the output is its log-odds.

    >>> click = Click(np.array(["no", "yes"]))
    >>> click.encode(np.array(["yes", "no"]))
    array([1., 0.], dtype=float32)
    >>> round(click.constant(np.array([0, 1, 0, 0]), None), 4)  # 1 / 3
    -1.0986
    >>> round(click.constant(np.array([0, 1, 0, 0]), np.array([1, 3, 1, 2])), 4)  # 3 / 4
    -0.2877
    """

    classes: np.ndarray = field(default_factory=lambda: np.array([0, 1]))
    what_constant_is = "base rate"
    value_name = "probability"

    def check(self) -> None:
        """Raise where there are not two labels."""
        if self.classes.shape != (2,) or self.classes[0] == self.classes[1]:
            raise ValueError("classes_ must be two labels.")

    @property
    def click_name(self) -> str:  # type: ignore[override]
        """A click's name in pictures and lines: its label, where that is not 1."""
        label = self.classes.tolist()[1]
        return "" if label == 1 else repr(label)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return 1 for a click and 0 for none."""
        return (values == self.classes[1]).astype(np.float32)

    def check_encoded(self, y: ArrayLike, n_rows: int) -> np.ndarray:
        clicks = np.asarray(y)
        if clicks.shape != (n_rows,) or not np.isin(clicks, (0, 1)).all():
            raise ValueError(
                f"net_ takes y as 1 for a click and 0 for none, one for each of {n_rows} "
                "impressions. The classifier takes any two labels."
            )
        return clicks.astype(np.float32)

    def loss(self, outputs: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
        """Return the weighted negative log-likelihood."""
        return F.binary_cross_entropy_with_logits(outputs, y, weight=weights)

    def constant(self, y: np.ndarray, weights: np.ndarray | None) -> float:
        """Return the log-odds of the share of clicks; one half of a row stands for none."""
        share = float(np.average(y, weights=None if weights is None else weights + 1e-12))
        share = min(max(share, 0.5 / len(y)), 1 - 0.5 / len(y))
        return float(np.log(share / (1 - share)))

    def value_of(self, output: np.ndarray) -> np.ndarray:
        return torch.sigmoid(torch.from_numpy(output)).numpy()

    def has_constant(self, y: np.ndarray) -> bool:
        """Return whether there are both kinds."""
        return bool(0 < y.sum() < len(y))

    def kinds(self, y: np.ndarray) -> np.ndarray:
        return y.astype(int)

    def count(self, y: np.ndarray) -> tuple[int, ...]:
        """Count rows that were not clicked, and that were."""
        n_clicks = int(y.sum())
        return len(y) - n_clicks, n_clicks

    def scale_of_prior(self, counts: tuple[int, ...]) -> float:
        """Return more where clicks, or their absence, are rare: ``1 / (4 p (1 - p))``.

        A row of probability p bends the loss by ``p (1 - p)``, a quarter at balanced clicks. One
        row of each kind is added.
        """
        n_others, n_clicks = counts
        share = (n_clicks + 1) / (n_clicks + n_others + 2)
        return 0.25 / (share * (1.0 - share))

    def auc(self, y: np.ndarray, outputs: np.ndarray) -> float:
        """Return the AUC where there are both kinds."""
        from sklearn.metrics import roc_auc_score  # not needed for prediction

        return float(roc_auc_score(y, outputs)) if 0.0 < y.mean() < 1.0 else np.nan


@dataclass(frozen=True)
class Numbers(Target):
    """Numbers, or log(1 + number) with "log1p", less their mean and divided by their spread.

    The mean of the rows, predicted for all of them, has a loss of one: the loss is 1 - R2.

    >>> seconds = Numbers.of(np.array([0.0, 9.0, 99.0]), "log1p")
    >>> seconds.encode(np.array([0.0, 9.0, 99.0])).round(3)
    array([-1.225,  0.   ,  1.225], dtype=float32)
    >>> seconds.value_of(np.array([0.0, 1.2247449])).round(3)
    array([ 9., 99.], dtype=float32)
    """

    of_what: Literal["squared", "log1p"] = "squared"
    mean: float = 0.0
    spread: float = 1.0
    what_constant_is = "mean"

    @classmethod
    def of(cls, numbers: np.ndarray, loss: Literal["squared", "log1p"]) -> "Numbers":
        """Take mean and standard deviation from the numbers of ``fit``."""
        scale = cls(loss)._scale(numbers)
        spread = float(scale.std())
        return cls(loss, float(scale.mean()), spread if spread > 0 else 1.0)

    def check(self) -> None:
        """Raise where the numbers are no scale."""
        if not (np.isfinite([self.mean, self.spread]).all() and self.spread > 0):
            raise ValueError("a target's mean and spread must be finite, its spread above 0.")

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return numbers in units of the spread."""
        return ((self._scale(values) - self.mean) / self.spread).astype(np.float32)

    def check_encoded(self, y: ArrayLike, n_rows: int) -> np.ndarray:
        numbers = np.asarray(y, dtype=np.float32)
        if numbers.shape != (n_rows,) or not np.isfinite(numbers).all():
            raise ValueError(
                f"net_ takes y as finite numbers, one for each of {n_rows} impressions, less the "
                "mean and divided by the spread. The regressor takes them as they are."
            )
        return numbers

    def loss(self, outputs: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
        """Return the weighted mean squared error."""
        errors = (outputs - y).square()
        return (errors if weights is None else errors * weights).mean()

    def constant(self, y: np.ndarray, weights: np.ndarray | None) -> float:
        """Return the mean."""
        return float(np.average(y, weights=None if weights is None else weights + 1e-12))

    def value_of(self, output: np.ndarray) -> np.ndarray:
        """Return the number, float32; with "log1p" none is below zero."""
        numbers = output.astype(np.float64) * self.spread + self.mean
        if self.of_what == "log1p":
            numbers = np.maximum(np.expm1(numbers), 0.0)
        return numbers.astype(np.float32)

    def clicks(self, y: np.ndarray) -> np.ndarray:
        """Return that no number is a click."""
        return np.zeros(len(y), dtype=bool)

    def _scale(self, numbers: np.ndarray) -> np.ndarray:
        return np.log1p(numbers) if self.of_what == "log1p" else numbers


@dataclass(frozen=True, eq=False)
class Labels(Target):
    """Several labels of two kinds each: y and outputs are (n, n_labels); NaN in y is left out.

    The loss is the sum of the labels' losses, each times its weight. A label that comes after
    another has the log-odds of both, and is 0 wherever the other one is.

    >>> labels = Labels(("click", "purchase"), (Click(), Click()), (1.0, 1.0), (None, 0))
    >>> labels.encode(np.array([[1, 1], [0, np.nan], [1, np.nan]]))
    array([[ 1.,  1.],
           [ 0.,  0.],
           [ 1., nan]], dtype=float32)
    """

    names: tuple[str, ...]
    labels: tuple[Click, ...]
    weights: tuple[float, ...]
    after: tuple[int | None, ...]
    what_constant_is = "base rates"
    value_name = "probabilities"

    def check(self) -> None:
        """Raise where the parts do not belong together."""
        n_labels = len(self.names)
        lengths = {len(self.labels), len(self.after), len(self.weights)}
        if n_labels < 2 or lengths != {n_labels}:
            raise ValueError("several labels need a name, two kinds and a weight each.")
        order_of_labels(self.after)

    @property
    def label_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.names

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return 1 for the second kind of each label, 0 for the first, NaN where it is missing."""
        y = np.full(values.shape, np.nan, dtype=np.float32)
        for n, label in enumerate(self.labels):
            is_known = ~is_missing(values[:, n])
            y[is_known, n] = label.encode(values[is_known, n])
        for n, earlier in order_of_labels(self.after):
            y[(y[:, earlier] == 0) & np.isnan(y[:, n]), n] = 0
        return y

    def check_encoded(self, y: ArrayLike, n_rows: int) -> np.ndarray:
        labels = np.asarray(y, dtype=np.float32)
        shape = n_rows, len(self.names)
        if labels.shape != shape or not (np.isin(labels, (0, 1)) | np.isnan(labels)).all():
            raise ValueError(f"net_ takes y as 1, 0 and NaN, of shape {shape}.")
        return labels

    def loss(self, outputs: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
        """Return the mean of the rows' weighted sums."""
        bce = F.binary_cross_entropy_with_logits
        losses = bce(outputs, torch.nan_to_num(y), reduction="none") * ~torch.isnan(y)
        of_rows = losses @ losses.new_tensor(self.weights)
        return (of_rows if weights is None else of_rows * weights).mean()

    def constant(self, y: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        """Return the log-odds of the share of each label; a later one's is below the earlier's."""
        logits = np.zeros(len(self.names))
        for n, label in enumerate(self.labels):
            is_known = ~np.isnan(y[:, n])
            if is_known.any():
                own = None if weights is None else weights[is_known]
                logits[n] = label.constant(y[is_known, n], own)
        for n, earlier in order_of_labels(self.after):
            logits[n] = min(logits[n], logits[earlier] - 1e-3)
        return logits

    def value_of(self, output: np.ndarray) -> np.ndarray:
        return self.labels[0].value_of(output)

    def read(self, label: Label | None) -> Reading:
        """Return how outputs become the probability of a label, or a weighted sum of several."""
        return read_several(self.names, self.value_of, label)

    def kinds(self, y: np.ndarray) -> np.ndarray:
        """Return the label whose rarer kind is the rarest; 0 where it is missing."""
        smallest = [min(np.nansum(column), np.nansum(1 - column)) for column in y.T]
        return np.nan_to_num(y[:, int(np.argmin(smallest))]).astype(int)

    def count(self, y: np.ndarray) -> tuple[int, ...]:
        """Count rows of both kinds, label by label."""
        labels = [column[~np.isnan(column)] for column in y.T]
        return tuple(n for column in labels for n in self.labels[0].count(column))

    def scale_of_prior(self, counts: tuple[int, ...]) -> float:
        """Return what one label has, of the sum of what the rows' labels tell."""
        pairs = list(zip(counts[::2], counts[1::2], strict=True))
        n_rows = max(map(sum, pairs))
        weights = [sum(pair) / self.labels[0].scale_of_prior(pair) for pair in pairs]
        return max(n_rows, 1) / max(float(np.dot(weights, self.weights)), 1e-9)

    def auc(self, y: np.ndarray, outputs: np.ndarray) -> float:
        """Return the mean of the labels' AUCs."""
        is_known = ~np.isnan(y)
        pairs = ((y[is_known[:, n], n], outputs[is_known[:, n], n]) for n in range(y.shape[1]))
        aucs = [self.labels[0].auc(*pair) for pair in pairs if len(pair[0])]
        return float(np.nanmean(aucs)) if np.isfinite(aucs).any() else np.nan


def is_missing(column: np.ndarray) -> np.ndarray:
    """Return where labels of any kind are missing: (n,), bool."""
    import pandas as pd  # takes a quarter of a second to import

    return pd.isna(column)


def find_constant(logits: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> float:
    """Return the constant with which logits lose least; 0 where all rows have one label.

    >>> round(find_constant(np.zeros(3), np.array([1, 0, 0]), None), 4)
    -0.6931
    """
    share = np.average(y, weights=weights)
    if not 0 < share < 1:
        return 0.0
    lowest, highest = logit(share) - logits.max() - 1, logit(share) - logits.min() + 1
    return brentq(
        lambda constant: np.average(expit(logits + constant), weights=weights) - share,
        lowest,
        highest,
        xtol=1e-14,
    )
