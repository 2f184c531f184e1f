"""Numbers of a row among the rows of one choice: a shelf, a search page, a slate."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrameT

from sklearn_din.features.request_columns import compare_within, name_columns
from sklearn_din.logs.aggregates import holds_numbers, present_numbers
from sklearn_din.utils.frames import CallerFrame
from sklearn_din.utils.keys import Keys, join_hashes
from sklearn_din.utils.scan import Scan
from sklearn_din.utils.validation import check_frame, check_names


def attach_request(
    frame: IntoDataFrameT, *, request: str | Sequence[str], columns: str | Sequence[str]
) -> IntoDataFrameT:
    """Attach to each row how its numbers compare with those of the other rows of its request.

    Whoever chooses from a shelf, a search page or a slate compares: the cheapest offer is another
    one on each shelf. A network that scores rows by themselves does not see that. Of each column,
    three numbers say it without a unit and whatever the length of the list:

    - ``NAME_share``: the fraction of the other rows with a smaller value, those of an equal one
      by half: 0 is the smallest, 1 the largest
    - ``NAME_to_mean``: the difference to the mean of the request, in its standard deviations, at
      most 3
    - ``NAME_is_best``: 1 for the largest value, -1 for the smallest, 0 for all others

    A row alone in its request, a row without a request, a missing value, and equal values are
    neutral: 0.5, 0 and 0. Rows must be all that was shown in the request: with clicks and sampled
    negatives the numbers compare with items that nobody saw. So they do where rows of a request
    are drawn apart: hold out whole requests.

    :class:`Ranker`, :func:`rank_candidates` and the server make these columns of the list that
    they rank, after ``exclude``, ``only`` and ``shortlist``. A classifier sees a tenth of the
    training rows as neutral ones, so that rows alone can be scored, too.

    Parameters
    ----------
    frame : pandas, polars or Arrow frame of shape (n_rows, ...)
        Rows that were shown, in any order. The frame is not changed, and the result is of the same
        kind.
    request : str or list of str
        Column whose equal values are one request, such as the id of a search; of several columns,
        such as user and time, rows that are equal in all of them.
    columns : str or list of str
        Columns of numbers to compare, such as the price, or rates so far
        (:func:`attach_aggregates`). Dates are none.

    Returns
    -------
    DataFrame or Table
        The rows, in their order and with their index, and three float64 columns for each column.

    Raises
    ------
    ValueError
        If a column is not there, or one of the new names is taken.
    TypeError
        If a column to compare does not hold numbers, or the frame is a scan.

    See Also
    --------
    attach_aggregates : What was known of a row's user and item before it.

    Examples
    --------
    >>> import pandas as pd
    >>> shelf = pd.DataFrame({"search": [1, 1, 1, 2], "price": [2.0, 3.0, 7.0, 5.0]})
    >>> attach_request(shelf, request="search", columns="price").round(2)
       search  price  price_share  price_to_mean  price_is_best
    0       1    2.0          0.0          -0.93           -1.0
    1       1    3.0          0.5          -0.46            0.0
    2       1    7.0          1.0           1.39            1.0
    3       2    5.0          0.5           0.00            0.0
    """
    keys = check_names(request, name="request")
    names = check_names(columns, name="columns")
    for what, given in (("request", keys), ("columns", names)):
        if not given:
            raise ValueError(f"{what} must name at least one column, got none.")
    if isinstance(frame, Scan):
        raise TypeError(
            "attach_request takes frames, got a scan. Attach the columns to parts of whole "
            "requests before the Parquet files are written."
        )
    caller = CallerFrame(frame, name="frame")
    _check_compared(caller.pandas, keys, names)
    read = [Keys.read(caller.pandas[name], name=f"frame[{name!r}]") for name in keys]
    requests = join_hashes([own.hashes for own in read])  # 0 where one is missing
    compared: dict[str, np.ndarray] = {}
    for name in names:
        is_there, numbers = present_numbers(caller.pandas[name])
        values = np.where(is_there & (requests != 0), numbers, np.nan)
        columns_of, own = name_columns(name), compare_within(values, requests)
        compared |= {columns_of[what]: column for what, column in own.items()}
    return caller.with_columns(compared)


def _check_compared(frame: pd.DataFrame, request: list[str], columns: list[str]) -> None:
    """Raise where columns are not there, are no numbers, or a new name is taken."""
    check_frame(frame, [*request, *columns], name="frame")
    for name in columns:
        if not holds_numbers(frame[name].dtype):
            raise TypeError(
                f"columns must hold numbers to compare, but frame[{name!r}] has dtype "
                f"{frame[name].dtype}. Convert it, such as frame[{name!r}].astype(float), or leave "
                "it out."
            )
        if taken := [new for new in name_columns(name).values() if new in frame]:
            raise ValueError(
                f"frame already has the columns {taken}. Drop them: attach_request makes them of "
                f"{name!r}."
            )
