"""Where the two real data sets lie: tests and benchmarks ask here."""

import os
from pathlib import Path

VARIABLE = "SKLEARN_DIN_DATA"
WHERE = f"set {VARIABLE} to their folder, or put them in ../shared/data beside this project"


def find_real_data():
    """Folder that the variable names, else the one beside the project; None where there is none."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


def real_data_folder():
    """The folder; raises where there is none."""
    folder = find_real_data()
    if folder is None:
        raise FileNotFoundError(f"the real data sets are not there: {WHERE}")
    return folder
