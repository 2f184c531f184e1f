"""The version of this package, and those of the libraries that wrote a saved model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

__version__ = "0.1.0"

_IS_CHECKED = ContextVar("_IS_CHECKED", default=False)  # the file that is being read was checked


def warn_of_other_versions(
    written: Mapping[str, str], present: Mapping[str, str], *, what: str
) -> None:
    """Warn once where libraries that are present are not those that wrote a saved model.

    Parameters
    ----------
    written, present : mapping of str to str
        Library -> version. What follows a "+" (the build for a device) makes no difference.
    what : str
        What was saved; the warning begins with it.

    Examples
    --------
    >>> warn_of_other_versions({"torch": "2.9.0+cpu"}, {"torch": "2.9.0+cu128"}, what="a model")
    """
    other = [
        f"{name} {version} (here {present[name]})"
        for name, version in written.items()
        if name in present and version.partition("+")[0] != present[name].partition("+")[0]
    ]
    if other and not _IS_CHECKED.get():
        warnings.warn(
            f"{what} was saved with {', '.join(other)}. Predictions may differ in their last "
            "digits or fail: compare some with known ones, or install the versions named.",
            UserWarning,
            stacklevel=3,
        )


@contextmanager
def versions_checked() -> Iterator[None]:
    """Say nothing of versions meanwhile: the file's own were compared already."""
    token = _IS_CHECKED.set(True)
    try:
        yield
    finally:
        _IS_CHECKED.reset(token)
