"""An installed wheel at work, outside pytest: ``python -I tests/wheel.py [README.md]``.

On the machine that a wheel was compiled for: its library is loaded and computes, and the server is
imported. The first example of a README prints what is written below it.
"""

import io
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from sklearn_din import DINClassifier
from sklearn_din.native.structures import load_library
from sklearn_din.server.app import create_app

X = np.random.default_rng(0).normal(size=(300, 2)).astype("float32")
classifier = DINClassifier(max_epochs=1, random_state=0).fit(X, X[:, 0] > 0)
assert load_library() is not None, classifier.summary()
assert "computed by: native code" in classifier.summary()
assert classifier.predict_proba(X).shape == (300, 2)
assert callable(create_app)

for readme in sys.argv[1:]:
    text = Path(readme).read_text(encoding="utf-8")
    code, expected = re.search(r"```python\n(.*?)```\s+```text\n(.*?)```", text, re.S).groups()
    with redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    assert printed.getvalue() == expected, printed.getvalue()
