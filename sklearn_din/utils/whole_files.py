"""Atomic writing of files: under another name, then renamed."""

import errno
import os
import shutil
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path to write to, which is renamed to the target at the end of the block.

    If the block fails, the file that was there stays; a killed process may leave a ".partial-"
    file, which nobody reads. A device or a pipe is written directly, a link is followed.
    """
    target = Path(os.path.realpath(path))
    refuse_folder(target)
    if target.exists() and not target.is_file():
        yield target
        return
    if not target.parent.is_dir():
        message = f"{target.name} needs a folder that is there: make it first"
        raise FileNotFoundError(errno.ENOENT, message, str(target.parent))
    partial = target.with_name(f".partial-{uuid.uuid4().hex[:16]}-{target.name[-80:]}")
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    sync(target.parent)


def refuse_folder(path: str | os.PathLike[str]) -> None:
    """Raise IsADirectoryError where a path to a file is that of a folder."""
    if os.path.isdir(path):
        message = "this is a folder: give the path of a file, such as 'model.din' in it"
        raise IsADirectoryError(errno.EISDIR, message, os.fspath(path))


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names where possible, survive a power failure."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_with(owner: object, path: Path) -> None:
    """Remove a file or folder when its reader is gone, or Python ends; not in a fork."""
    weakref.finalize(owner, _remove, path, os.getpid())


def _remove(path: Path, process: int) -> None:
    if os.getpid() != process:
        return
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


class ModelFileError(ValueError):
    """A file is no model of ours, is damaged, was changed, or needs to be trusted."""


def damaged_file(path: str | os.PathLike[str], error: Exception, *, writer: str) -> ModelFileError:
    """Return what to raise where a file is not what a function of ours, ``writer``, wrote."""
    problem = (str(error) or type(error).__name__).rstrip(".")
    return ModelFileError(
        f"{str(path)!r} is no whole, unchanged file that sklearn_din.{writer} wrote: {problem}. "
        "Copy the file again, or save the model again."
    )
