"""Item neighbours among the classifier's inputs: learnt at fit, before rows are counted."""

from __future__ import annotations

import numpy as np

from sklearn_din.neighbours.tables import NeighbourTables, choose_order, learn_neighbours
from sklearn_din.training.distributed import Ranks
from sklearn_din.training.inputs import FitInputs


def learn_inputs(
    inputs: FitInputs, neighbours: str | None, ranks: Ranks | None = None
) -> tuple[FitInputs, NeighbourTables]:
    """Learn item neighbours from all rows given to ``fit``, and add their numbers to these rows.

    It comes before validation rows are set aside and ids counted: each row's numbers come from
    earlier blocks of rows alone, those of validation rows from training rows before them.

    Parameters
    ----------
    inputs : FitInputs
        What ``fit`` was given, checked.
    neighbours : {"auto", "time", "user"} or None
        The classifier's parameter.
    ranks : Ranks, default=None
        The processes that train together. Rank 0 learns first: where rows are mapped, what it
        writes beside them is read by the others. None: this one trains alone.

    Returns
    -------
    inputs : FitInputs
        Its X has the numbers: what the module is trained on.
    tables : NeighbourTables
        What later rows are looked up in.
    """
    order = choose_order(inputs.X, neighbours)
    waiting = ranks if inputs.X.store is not None else None
    if waiting is not None and waiting.rank > 0:
        waiting.of_all(None)
    tables, X = learn_neighbours(inputs.X, _is_click(inputs), order=order)
    if waiting is not None and waiting.rank == 0:
        waiting.of_all(None)
    return inputs._replace(X=X), tables


def look_up_inputs(inputs: FitInputs, tables: NeighbourTables) -> tuple[FitInputs, NeighbourTables]:
    """Add the numbers of further rows from the tables before these rows; then count their clicks.

    Looked up in the tables that have counted it, a row's own click would be told. The tables
    given stay as they are: where training fails, nothing has changed.

    Parameters
    ----------
    inputs : FitInputs
        What ``partial_fit`` was given, checked. There may be more ids than at fit.
    tables : NeighbourTables
        Of all rows before.

    Returns
    -------
    inputs : FitInputs
        Its X has the numbers.
    tables : NeighbourTables
        Grown.
    """
    if not tables.pairs:
        return inputs, tables
    grown = tables.grow(inputs.X, _is_click(inputs))
    return inputs._replace(X=tables.add_to(inputs.X)), grown


def _is_click(inputs: FitInputs) -> np.ndarray:
    return inputs.clicks > 0
