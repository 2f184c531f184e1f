"""Which objects a safe file can hold: each kind by a short name, none by the name of a class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline

from sklearn_din._group_scorer import GroupScorer
from sklearn_din.estimator import DINClassifier
from sklearn_din.logs.history import HistoryBuilder
from sklearn_din.metrics import group_roc_auc_score
from sklearn_din.model_selection import TimeSplit
from sklearn_din.neighbours.transformer import ItemNeighbours
from sklearn_din.state.estimators import EstimatorState
from sklearn_din.state.plain_state import PlainState, read_state, write_state
from sklearn_din.transformers import HistorySequenceEncoder

SEARCH_RESULTS = (
    *("best_estimator_", "best_params_", "best_score_", "best_index_", "cv_results_"),
    *("n_splits_", "multimetric_", "refit_time_", "feature_names_in_"),
)
MOST_INTEGER = 2**63 - 1
GROUP_SCORES: dict[str, Callable[..., float]] = {"group_roc_auc_score": group_roc_auc_score}


@dataclass(frozen=True)
class Kind:
    """How objects of one class are kept.

    Parameters
    ----------
    its_type : type
        Exactly this class; a subclass of it is not of this kind.
    write : callable
        Object -> PlainState, whose ``objects`` are kept by their own kinds.
    read : callable
        PlainState -> object, or ValueError.
    """

    its_type: type
    write: Callable[[Any], PlainState]
    read: Callable[[PlainState], Any]


def _own(its_type: type[EstimatorState]) -> Kind:
    """An estimator of this package."""

    def write(estimator: Any) -> PlainState:
        _check_parameters(estimator)
        return estimator.plain_state()

    def read(state: PlainState) -> EstimatorState:
        estimator: Any = its_type.__new__(its_type)
        estimator.restore(state)
        _check_parameters(estimator)
        return estimator

    return Kind(its_type, write, read)


def _check_parameters(estimator: Any) -> None:
    estimator._validate_params()
    for name, value in estimator.get_params(deep=False).items():
        if type(value) is int and abs(value) > MOST_INTEGER:
            raise ValueError(f"{name} must fit into 64 bits, got one of {value.bit_length()}.")


def _by_parameters(its_type: type) -> Kind:
    """An object that is nothing but its parameters."""
    names = list(inspect.signature(its_type).parameters)

    def write(value: object) -> PlainState:
        return write_state({name: getattr(value, name) for name in names})

    def read(state: PlainState) -> Any:
        return its_type(**_parameters(its_type, read_state(state), names))

    return Kind(its_type, write, read)


def _write_pipeline(pipeline: Pipeline) -> PlainState:
    parameters = pipeline.get_params(deep=False)
    return write_state(parameters | {"steps": dict(pipeline.steps)})


def _read_pipeline(state: PlainState) -> Pipeline:
    names = list(inspect.signature(Pipeline).parameters)
    parameters = _parameters(Pipeline, read_state(state), names)
    steps = parameters.pop("steps")
    if type(steps) is not dict or not steps or any(type(name) is not str for name in steps):
        raise ValueError("a Pipeline must have named steps.")
    for step in steps.values():
        if step not in (None, "passthrough") and not hasattr(step, "fit"):
            raise ValueError(f"a Pipeline's step must be an estimator, got {type(step).__name__}.")
    pipeline = Pipeline(list(steps.items()), **parameters)
    pipeline._validate_params()
    return pipeline


def _search(its_type: type) -> Kind:
    names = list(inspect.signature(its_type).parameters)

    def write(search: Any) -> PlainState:
        results = {name: vars(search)[name] for name in SEARCH_RESULTS if name in vars(search)}
        return write_state({"parameters": search.get_params(deep=False), "results": results})

    def read(state: PlainState) -> Any:
        saved = read_state(state)
        if type(saved) is not dict or saved.keys() != {"parameters", "results"}:
            raise ValueError("a search must have parameters and results.")
        search = its_type(**_parameters(its_type, saved["parameters"], names))
        search._validate_params()
        results = saved["results"]
        if type(results) is not dict or not results.keys() <= set(SEARCH_RESULTS):
            raise ValueError(f"a search's results must be among {', '.join(SEARCH_RESULTS)}.")
        vars(search).update(results)
        if results:
            vars(search)["scorer_"] = _search_scorer(search)
        return search

    return Kind(its_type, write, read)


def _search_scorer(search: Any) -> Any:
    """Make the scorer again that the search made in fit."""
    scorer = check_scoring(getattr(search, "best_estimator_", search.estimator), search.scoring)
    return getattr(scorer, "_scorers", scorer)  # several scores are a dict in a search


def _write_group_scorer(scorer: GroupScorer) -> PlainState:
    names = {score: name for name, score in GROUP_SCORES.items()}
    by_column = scorer._groups is not None
    score = names.get(scorer._score, scorer._score) if by_column else scorer
    return write_state({"score": score, "groups": scorer._groups})


def _read_group_scorer(state: PlainState) -> GroupScorer:
    saved = read_state(state)
    if type(saved) is not dict or saved.keys() != {"score", "groups"}:
        raise ValueError("a scorer by group must have a score and groups.")
    if saved["score"] not in GROUP_SCORES or type(saved["groups"]) is not str:
        raise ValueError(f"a score by group must be among {', '.join(GROUP_SCORES)}.")
    return GroupScorer(GROUP_SCORES[saved["score"]], saved["groups"])


def _parameters(its_type: type, parameters: Any, names: list[str]) -> dict[str, Any]:
    """Saved parameters that the class has; those it lacks are an error unless they are None."""
    if type(parameters) is not dict:
        raise ValueError(f"the parameters of {its_type.__name__} must be a dict.")
    unknown = [name for name, value in parameters.items() if name not in names]
    if any(parameters[name] is not None for name in unknown):
        raise ValueError(
            f"{its_type.__name__} has no parameter {unknown[0]!r:.60} in the version that is here."
        )
    return {name: value for name, value in parameters.items() if name in names}


# Name in the file -> kind. The file chooses among these and can name nothing else. A new entry
# raises the protocol: see saving.py.
KINDS: dict[str, Kind] = {
    "DINClassifier": _own(DINClassifier),
    "HistorySequenceEncoder": _own(HistorySequenceEncoder),
    "HistoryBuilder": _own(HistoryBuilder),
    "ItemNeighbours": _own(ItemNeighbours),
    "Pipeline": Kind(Pipeline, _write_pipeline, _read_pipeline),
    "GridSearchCV": _search(GridSearchCV),
    "RandomizedSearchCV": _search(RandomizedSearchCV),
    "TimeSplit": _by_parameters(TimeSplit),
    "GroupScorer": Kind(GroupScorer, _write_group_scorer, _read_group_scorer),
}
FOREIGN = "skops"  # the kind of all other objects


def kind_of(value: object) -> str | None:
    """Name of an object's kind; None for objects that this package does not know."""
    return next((name for name, kind in KINDS.items() if type(value) is kind.its_type), None)
