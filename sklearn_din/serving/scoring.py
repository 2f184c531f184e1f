"""Scoring on a cluster: one function for Dask, Spark and Ray; each worker loads the model once."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import pandas as pd

from sklearn_din._validation import check_frame, check_names
from sklearn_din.serving.prediction_file import predictions_of, scoring_method
from sklearn_din.serving.saving import load

N_MODELS = 4  # in one process, the latest ones


@dataclass(frozen=True)
class PartitionScorer:
    """Scores frames, or an iterator of frames, by a saved model. Made by :func:`score_partitions`.

    It holds a path and names, so that it travels to workers at no cost. The first frame in a
    process loads the model; the same file is not loaded a second time, unless it has changed.

    Parameters
    ----------
    path : str
        The safe file, as an absolute path that every worker can read.
    columns : tuple of str
        Columns of each frame that are given back beside its predictions.
    trusted : tuple of str
        Types of other packages that the file may hold, as for :func:`load`.
    device : str
        torch device to predict on.
    """

    path: str
    columns: tuple[str, ...]
    trusted: tuple[str, ...]
    device: str

    @overload
    def __call__(self, frames: pd.DataFrame) -> pd.DataFrame: ...

    @overload
    def __call__(self, frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]: ...

    def __call__(
        self, frames: pd.DataFrame | Iterator[pd.DataFrame]
    ) -> pd.DataFrame | Iterator[pd.DataFrame]:
        """Score one frame, or one after the other."""
        if isinstance(frames, pd.DataFrame):
            return self._score(frames)
        return map(self._score, frames)

    def meta(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return what comes back for a frame, without rows: Dask's ``meta``.

        Parameters
        ----------
        frame : DataFrame
            Any rows, or none, with the columns of those to score: ``ddf._meta`` of Dask.
        """
        return self._score(frame.head(0))

    def _score(self, frame: pd.DataFrame) -> pd.DataFrame:
        check_frame(frame, list(self.columns), name="the partition")
        model = _load(self.path, _stamp(self.path), self.trusted, self.device)
        predicted = predictions_of(model, scoring_method(model), frame)
        taken = sorted(set(predicted) & set(self.columns))
        if taken:
            raise ValueError(
                f"columns must not have the name of a prediction, got {taken}. Rename them."
            )
        return frame[list(self.columns)].assign(**predicted)


def score_partitions(
    model_path: str | os.PathLike[str],
    *,
    columns: str | Sequence[str] = (),
    trusted: Sequence[str] = (),
    device: str = "cpu",
) -> PartitionScorer:
    """Return a function that scores the partitions of a table on a cluster.

    The function takes a pandas frame and gives one back, or an iterator of frames and gives an
    iterator: what ``dask.dataframe.map_partitions``, Ray's ``map_batches(batch_format="pandas")``
    and Spark's ``mapInPandas`` ask for. It travels as a path; each worker process loads the model
    when its first partition comes, from a file that runs no code (:func:`save`), and keeps it.

    Parameters
    ----------
    model_path : str or path
        A file that :func:`save` has written, where every worker can read it.
    columns : str or list of str, default=()
        Columns of the table that are given back before the predictions, such as the keys.
    trusted : list of str, default=()
        Types of other packages that the file may hold, as for :func:`load`.
    device : str, default="cpu"
        torch device to predict on.

    Returns
    -------
    PartitionScorer
        A partition gives ``columns`` and "probability", that of ``classes_[1]``, in the order and
        with the index of its rows. With more than two classes, and for models without
        ``predict_proba``, the predictions are named as by :func:`predict_to_parquet`. A partition
        without rows gives none.

    Raises
    ------
    FileNotFoundError
        Where there is no such file here. Workers that lack it raise it by themselves.

    See Also
    --------
    predict_to_parquet : The same for one machine and a table of any size.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn_din import DINClassifier, save
    >>> X = pd.DataFrame({"price": [1.0, 2.0, 3.0, 4.0], "row": [0, 1, 2, 3]})
    >>> path = Path(tempfile.mkdtemp()) / "model.din"
    >>> save(DINClassifier(max_epochs=1, random_state=0).fit(X, [0, 0, 1, 1]), path)
    >>> score = score_partitions(path, columns="row")
    >>> score(X).columns.tolist(), [len(part) for part in score(iter([X[:1], X[1:]]))]
    (['row', 'probability'], [1, 3])
    """
    path = Path(os.path.abspath(model_path))
    if not path.is_file():
        raise FileNotFoundError(
            f"score_partitions needs the file of a saved model, got {str(path)!r}, which is no "
            "file. Write it with sklearn_din.save(model, path), where every worker can read it."
        )
    names = tuple(check_names(columns, name="columns"))
    return PartitionScorer(str(path), names, tuple(trusted), device)


def _stamp(path: str) -> tuple[int, int]:
    """Return the time and size by which a file that has changed is known."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=N_MODELS)
def _load(path: str, stamp: tuple[int, int], trusted: tuple[str, ...], device: str) -> Any:
    return load(path, trusted=trusted, device=device)
