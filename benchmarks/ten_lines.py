"""The lines of each library in ``docs/comparison.rst``, run: AUC on the same last rows of users.

The page is the one source: its first block makes the rows, the block named as the library trains
and leaves ``score``. Our own runs here, another library's with the interpreter RIVALS_PYTHON
(``rivals-requirements.txt``; LibRecommender wants an environment of its own)::

    python -m benchmarks.ten_lines sklearn_din
    RIVALS_PYTHON=rivals/bin/python python -m benchmarks.ten_lines deepctr-torch torch-rechub
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "comparison.rst"
BEGIN_OF_BLOCK = r"^\.\. (?:run-python::|code-block:: python\n   :name: (\S+))\n"
BLOCK = re.compile(BEGIN_OF_BLOCK + r"((?:\n|   .*\n)+)", re.M)
READ = "train, test = map(pd.read_parquet, ['train.parquet', 'test.parquet'])"
BEGIN = f"import pandas as pd\n{READ}\n"
END = "\nimport numpy as np\nnp.save('score.npy', np.asarray(score).ravel())\n"


def blocks():
    """Return the page's code: block by name, ``rows`` and ``sklearn_din`` for the two of ours."""
    named = [(name, textwrap.dedent(code)) for name, code in BLOCK.findall(PAGE.read_text("utf-8"))]
    ours = [code for name, code in named if not name]
    return {"rows": ours[0], "sklearn_din": ours[1]} | {name: code for name, code in named if name}


def run(name, code, rows, folder):
    """Return the scores of the test rows by one library's lines."""
    if name == "sklearn_din":
        names = dict(rows)
        exec(compile(code, name, "exec"), names)
        return names["score"]
    script = Path(folder) / "lines.py"
    script.write_text(BEGIN + code + END, "utf-8")
    python = os.environ.get("RIVALS_PYTHON", sys.executable)
    subprocess.run([python, script.name], cwd=folder, check=True, stdout=sys.stderr)
    return np.load(Path(folder) / "score.npy")


def main(arguments=None):
    """Run the lines of the libraries named and print their number and AUC."""
    code = blocks()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", nargs="+", choices=[name for name in code if name != "rows"])
    rows: dict = {}
    exec(compile(code["rows"], "rows", "exec"), rows)
    label = rows["test"]["label"]
    print(f"the truth {roc_auc_score(label, rows['truth']):.3f}")
    for name in parser.parse_args(arguments).libraries:
        with tempfile.TemporaryDirectory() as folder:
            for part in ("train", "test"):
                rows[part].to_parquet(Path(folder) / f"{part}.parquet")
            auc = roc_auc_score(label, run(name, code[name], rows, folder))
        n_lines = sum(bool(line.strip()) for line in code[name].splitlines())
        print(f"{name} {n_lines} lines, AUC {auc:.3f}")


if __name__ == "__main__":
    main()
