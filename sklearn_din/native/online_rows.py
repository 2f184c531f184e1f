"""Rows of an online model, processed one after the other in native code."""

from typing import Any

import numpy as np

from sklearn_din.native.structures import ONLINE_ROWS, load_library


def update_rows(arrays: dict[str, np.ndarray | None], half_life: float) -> bool:
    """Update the state of an online model in place; return False without the native code.

    arrays : by the names in ``online_rows.h``, contiguous and of the types there
    half_life : in the unit of the times; 0 for none
    """
    library, rows = load_library(), np.zeros(1, dtype=ONLINE_ROWS)
    if library is None:
        return False
    sizes = {"n_columns": "priors", "n_rows": "times", "n_asked": "rates"}
    values: dict[str, Any] = {n: len(arrays[of]) for n, of in sizes.items()}  # type: ignore[arg-type]
    values["n_columns"] -= 1
    values |= {n: array.ctypes.data for n, array in arrays.items() if array is not None}
    for name, value in values.items():
        rows[name] = value
    library.din_update_rows(rows.ctypes.data, half_life)
    return True
