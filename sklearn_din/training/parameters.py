"""The classifier's parameters: what scikit-learn checks of each, and what device="auto" is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Integral, Real

import torch

from sklearn_din._compat import Interval, StrOptions
from sklearn_din.module import OPTIONS

PARAMETER_CONSTRAINTS: dict = {
    "embedding_dim": [Interval(Integral, 1, None, closed="left"), Mapping],
    **{
        name: [StrOptions({option for option in options if option}), *({None} & set(options))]
        for name, options in OPTIONS.items()
    },
    "attention_units": [tuple, list],
    "hidden_units": [tuple, list],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "embedding_l2": [Interval(Real, 0, None, closed="left")],
    "lr": [Interval(Real, 0, None, closed="neither")],
    "embedding_lr": [Interval(Real, 0, None, closed="neither"), None],
    "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "max_epochs": [Interval(Integral, 1, None, closed="left")],
    "early_stopping": ["boolean", StrOptions({"auto"})],
    "validation": [StrOptions({"auto", "random", "last", "groups"})],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "patience": [Interval(Integral, 1, None, closed="left")],
    "class_weight": [StrOptions({"balanced"}), dict, None],
    "neighbours": [StrOptions({"auto", "time", "user"}), None],
    "callbacks": [list, None],
    "checkpoint_dir": [str, os.PathLike, None],
    "device": [str],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


def device_for(device: str) -> str:
    """Name of the torch device; "auto" is a GPU where there is one."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
