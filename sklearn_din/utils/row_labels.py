"""Whether X and y have their rows in one order, by their pandas index."""

from typing import Any

import pandas as pd

from sklearn_din.utils.warnings import warn_user


def check_row_labels(X: Any, y: Any) -> None:
    """Raise, or warn, where X and y have the same row labels in different orders.

    A default index of y may number labels that were computed row by row, whatever the index of X.
    """
    if not isinstance(X, pd.DataFrame) or not issubclass(type(y), pd.DataFrame | pd.Series):
        return
    mine, theirs = X.index, y.index
    if len(mine) != len(theirs) or mine.equals(theirs) or not mine.is_unique:
        return
    if not theirs.isin(mine).all() or not theirs.is_unique:
        return
    row = int((mine != theirs).argmax())
    of_x, of_y = (labels[row : row + 1].tolist()[0] for labels in (mine, theirs))
    ways = (
        f"the label of row {row} is {of_x!r} in X and {of_y!r} in y. Rows are paired "
        "by position: y.loc[X.index] brings y into the order of X; y.to_numpy() says that it is in "
        "that order already."
    )
    if isinstance(theirs, pd.RangeIndex):
        warn_user(f"X and y have the same index labels in two orders: {ways}")
        return
    raise ValueError(
        f"X and y must have their rows in one order, got the same index labels in two: {ways}"
    )
