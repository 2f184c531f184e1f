"""Parameters that other libraries have, and what takes their place here."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])

HERE = {
    **dict.fromkeys(("n_estimators", "num_boost_round", "iterations", "epochs"), "max_epochs"),
    **dict.fromkeys(("learning_rate", "eta", "learning_rate_init"), "lr and embedding_lr"),
    **dict.fromkeys(("num_leaves", "max_depth"), "embedding_dim and hidden_units"),
    "hidden_layer_sizes": "hidden_units",
    **dict.fromkeys(("reg_lambda", "l2_leaf_reg", "alpha", "weight_decay"), "embedding_l2"),
    **dict.fromkeys(("scale_pos_weight", "is_unbalance", "auto_class_weights"), "class_weight"),
    **dict.fromkeys(("early_stopping_rounds", "n_iter_no_change"), "patience"),
    **dict.fromkeys(
        ("eval_set", "eval_metric", "validation_data", "validation_split"),
        "validation and validation_fraction: fit sets validation rows aside by itself",
    ),
    **dict.fromkeys(
        ("cat_features", "categorical_feature", "categorical_features"),
        "categorical of HistorySequenceEncoder",
    ),
    **dict.fromkeys(("n_jobs", "num_threads"), "torch.set_num_threads"),
    **dict.fromkeys(("seed", "random_seed"), "random_state"),
}


def explain_unknown(name: str) -> Callable[[Method], Method]:
    """Return a decorator: errors about unknown parameters say what to use instead.

    ``name`` is what the method is called in them.

    >>> fit = explain_unknown("DINClassifier.fit")(lambda X, y: None)
    >>> fit([[1]], [0], eval_set=[])
    Traceback (most recent call last):
        ...
    TypeError: DINClassifier.fit has no parameter 'eval_set'. Use validation and \
validation_fraction: fit sets validation rows aside by itself.
    """

    def decorate(method: Method) -> Method:
        known = [p for p in inspect.signature(method).parameters if p != "self"]

        @wraps(method)
        def call(*args: Any, **parameters: Any) -> Any:
            for unknown in parameters.keys() - {*known}:
                use = f"Use {HERE[unknown]}" if unknown in HERE else f"It has {', '.join(known)}"
                raise TypeError(f"{name} has no parameter {unknown!r}. {use}.")
            return method(*args, **parameters)

        return call  # type: ignore[return-value]

    return decorate
