"""Hyper-parameters of the estimators, each declared once: its type, its default, allowed values.

Signatures, scikit-learn's checks of values, and what the network and the net are given follow. What
a parameter is for stands in the docstrings of DINClassifier and DINRegressor.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sklearn_din.module import OPTIONS
from sklearn_din.utils.compat import AUTO, COUNT, Interval, StrOptions, parameter

if TYPE_CHECKING:
    from skorch.callbacks import Callback

RATE = Interval(Real, 0, None, closed="neither")


def option(default: str, name: str) -> Any:
    """Return a field with the allowed values of the network's option."""
    texts = {value for value in OPTIONS[name] if value is not None}
    return parameter(default, StrOptions(texts), *({None} & set(OPTIONS[name])))


@dataclass(kw_only=True, eq=False, repr=False)
class NetworkParameters:
    """Parameters that the network is built with."""

    embedding_dim: int | Mapping[str, int] = parameter(16, COUNT, Mapping)
    pooling: str = option("attention", "pooling")
    interest: str = option("extended", "interest")
    attention_units: tuple[int, ...] = parameter((64, 16), tuple, list)
    attention_activation: str = option("prelu", "attention_activation")
    attention_normalization: str | None = option("auto", "attention_normalization")
    hidden_units: tuple[int, ...] = parameter((200, 80), tuple, list)
    activation: str = option("prelu", "activation")
    dropout: float = parameter(0.0, Interval(Real, 0, 1, closed="left"))


@dataclass(kw_only=True, eq=False, repr=False)
class TrainingParameters:
    """Parameters that the skorch net trains by."""

    embedding_l2: float = parameter(250.0, Interval(Real, 0, None, closed="left"))
    lr: float = parameter(0.003, RATE)
    embedding_lr: float | None = parameter(None, RATE, None)
    batch_size: int | str = parameter("auto", COUNT, AUTO)
    max_epochs: int = parameter(20, COUNT)
    early_stopping: bool | str = parameter("auto", "boolean", AUTO)
    validation: str = parameter("auto", StrOptions({"auto", "random", "last", "groups"}))
    validation_fraction: float = parameter(0.1, Interval(Real, 0, 1, closed="neither"))
    refit: str | None = parameter("auto", StrOptions({"auto", "validation"}), None)
    patience: int = parameter(4, COUNT)
    neighbours: str | None = parameter("auto", StrOptions({"auto", "time", "user"}), None)
    trees: bool = parameter(False, "boolean")
    random_state: int | np.random.RandomState | None = parameter(None, "random_state")


@dataclass(kw_only=True, eq=False, repr=False)
class Parameters(TrainingParameters, NetworkParameters):
    """Parameters of all estimators."""

    callbacks: list[Callback] | None = parameter(None, list, None)
    device: str = parameter("auto", str)
    verbose: int = parameter(0, "verbose")


@dataclass(kw_only=True, eq=False, repr=False)
class ClickParameters(Parameters):
    """Parameters of DINClassifier."""

    class_weight: Mapping[Hashable, float] | str | None = parameter(
        None, StrOptions({"balanced"}), dict, None
    )
    after: Mapping[Hashable, Hashable] | None = parameter(None, Mapping, None)
    label_weight: Mapping[Hashable, float] | None = parameter(None, Mapping, None)


@dataclass(kw_only=True, eq=False, repr=False)
class NumberParameters(Parameters):
    """Parameters of DINRegressor. Item neighbours learn from clicks, and gained nothing there."""

    loss: Literal["squared", "log1p"] = parameter("squared", StrOptions({"squared", "log1p"}))
    neighbours: None = field(default=None, init=False)
    trees: bool = field(default=False, init=False)


# Python names the estimator, not these classes, where an argument is unknown.
ClickParameters.__init__.__qualname__ = "DINClassifier.__init__"
NumberParameters.__init__.__qualname__ = "DINRegressor.__init__"


def names_of(parameters: type[NetworkParameters | TrainingParameters]) -> list[str]:
    """Return the names of the parameters that a class declares or inherits."""
    return [entry.name for entry in fields(parameters)]
