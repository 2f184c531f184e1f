"""The structures of ``network.h`` as arrays of numpy, and the functions of ``library.cpp``."""

import ctypes
import functools
import os
from pathlib import Path
from typing import Any

import numpy as np

from sklearn_din.native.build import FAILURE, digest_of_sources, library_name

WHICH = "SKLEARN_DIN_NATIVE"  # environment variable: a library's path, or 0, which hides it
FACTORS = {None: 0, "sqrt": 1, "mean": 2}
LOSSES = {"given": 0, "log": 1, "squares": 2}
ACTIVATIONS = {"NONE": 0, "PReLU": 1, "Sigmoid": 2}
UNKNOWN_ID, NO_MEMORY, FAILED = 1, 2, 3  # what a call may come to, besides 0
WORD = 8  # bytes of each member
POINTER = np.dtype(np.int64)
TYPES = {"p": ctypes.c_void_p, "n": ctypes.c_int64, "f": ctypes.c_float, "d": ctypes.c_double}


def _structure(members: str) -> np.dtype:
    """Return the type of a structure."""
    return np.dtype([(name, POINTER) for name in members.split()])


IDS = _structure("ids table first_row n_ids width column candidate likeness")
LINEAR = _structure("weight bias slope n_inputs n_outputs activation")
BEHAVIOUR = _structure(
    "offsets is_shared first_ids n_attributes first_number n_numbers n_own_numbers first_layer "
    "n_layers width column factor is_extended trains_embeddings"
)
TABLE = _structure("rows width touched values n_touched")
NETWORK = _structure(
    "ids behaviours layers tables numbers offsets event_numbers decays n_fields n_behaviours "
    "n_layers n_tables n_numbers n_inputs n_decays n_counted n_added "
    "targets weights loss n_joint_rows n_rows n_threads team updates"
)

DENSE_UPDATE = _structure("weight gradient mean square n_steps n rates")
ROW_UPDATE = _structure(
    "touched gradient decay table square starts total share n_touched n_rows width n_vocabularies "
    "rates"
)
UPDATES = _structure("dense tables n_dense n_tables")
PAIRS = _structure(
    "left_ends right_ends near_ends left_columns right_columns near_columns right_values roots "
    "popular gram ends columns values n_ids n_inner n_popular n_best"
)
ONLINE_ROWS = _structure(
    "keys times labels priors first_keys precisions shifts updated row_precisions row_shifts "
    "asked_keys asked_after asked_times rates n_columns n_rows n_asked"
)
CALLS = {
    "din_run": "ppp",
    "din_begin": "pppp",
    "din_end": "p",
    "din_update": "p",
    "din_score_pairs": "pf",
    "din_select_pairs": "p",
    "din_update_rows": "pd",
}


def _path() -> Path:
    return Path(os.environ.get(WHICH) or Path(__file__).with_name(library_name()))


def why_missing() -> str:
    """Return what the compiler or the system said; nothing where nobody has compiled."""
    path = _path()
    failure = path.with_name(FAILURE)
    if failure.exists():
        return failure.read_text(encoding="utf-8")
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        return str(error) if path.exists() else ""
    return "it was compiled from other sources"


@functools.cache
def load_library() -> Any:
    """Return the compiled library; None where there is none, or one of other sources."""
    try:
        library: Any = ctypes.CDLL(str(_path()))
    except OSError:
        return None
    library.din_sources.restype = ctypes.c_char_p
    if library.din_sources().decode() != digest_of_sources():
        return None
    for name, arguments in CALLS.items():
        function = getattr(library, name)
        function.argtypes = [TYPES[letter] for letter in arguments]
        function.restype, function.errcheck = ctypes.c_int64, _check_code
    library.din_open_team.restype = ctypes.c_void_p
    library.din_open_team.argtypes = [ctypes.c_int64]
    library.din_close_team.argtypes = [ctypes.c_void_p]
    library.din_choose_kernels.restype = ctypes.c_int64
    library.din_choose_kernels.argtypes = [ctypes.c_int64]
    return library


def _check_code(code: int, *call: object) -> int:
    if code == NO_MEMORY:
        raise MemoryError(
            "native code needs more memory than is left. Free some, lower batch_size, or encode "
            "shorter histories (max_length)."
        )
    if code == FAILED:
        raise RuntimeError("native code failed: sizes that it was given may not fit each other.")
    return code
