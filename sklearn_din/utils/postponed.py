"""scikit-learn without scipy.stats and pandas, which few of its functions need.

Both are a third to a half of the time of ``from sklearn_din import ...``: HistorySequenceEncoder
takes 1.3 s of a processor's time in place of 2.0, attach_history 1.1 in place of 1.7, DINClassifier
2.9 in place of 3.8 (of seven processes each, the fastest ones).
"""

import importlib
import sys
from types import ModuleType
from typing import Any

POSTPONED = ("scipy.stats", "pandas")


class Postponed(ModuleType):
    """A module that is imported when somebody asks it for something."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            sys.modules.pop(self.__name__, None)
        return getattr(importlib.import_module(self.__name__), name)


def import_sklearn() -> None:
    """Import scikit-learn, whose functions ask for such modules when they are called.

    Whoever imports them meanwhile, in another thread, gets them.
    """
    if "sklearn" in sys.modules:
        return
    postponed = {name: Postponed(name) for name in POSTPONED if name not in sys.modules}
    sys.modules.update(postponed)
    try:
        importlib.import_module("sklearn.base")
    finally:
        for name, module in postponed.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
