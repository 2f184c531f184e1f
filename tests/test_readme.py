"""The README's code runs as it stands there."""

import re
import warnings
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_readmes_python_blocks_run_in_order():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    assert len(blocks) >= 3
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in blocks:
            exec(compile(block, str(README), "exec"), names)
    assert len(names["scores"]) == 2
    assert names["probability"].min() >= 0
    assert names["search"].best_params_


def test_both_readmes_give_the_same_commands():
    blocks = [
        re.findall(
            r"^(make \w+|pip install \S+|python -m .*?)(?: {2,}#| *$)",
            path.read_text(encoding="utf-8"),
            re.M,
        )
        for path in (README, README.with_name("README.zh.md"))
    ]
    assert blocks[0] == blocks[1]
    assert blocks[0][0] == 'pip install ".[plot]"'  # for users, before make
    assert blocks[0][-2:] == ["make main", "make test"]
