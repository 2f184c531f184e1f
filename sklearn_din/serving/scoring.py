"""Predictions for tables of any size: into a Parquet file, or partition by partition."""

import functools
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from narwhals.typing import IntoDataFrame
from pandas.arrays import ArrowExtensionArray
from sklearn.base import is_regressor

from sklearn_din.saving import load
from sklearn_din.utils.frames import CallerFrame
from sklearn_din.utils.progress import show_progress
from sklearn_din.utils.scan import Scan
from sklearn_din.utils.validation import check_columns, check_frame, check_names
from sklearn_din.utils.whole_files import whole_file

FRAME_ROWS = 131_072  # rows of a part, where X is a frame in memory
# Columns by the method that is asked; the last one of regressors alone
COLUMN_OF = {"predict_proba": "probability", "decision_function": "decision"}
COLUMN_OF |= {"predict": "prediction"}
N_MODELS = 4  # models that a process keeps: the latest ones

Part = tuple[Any, pd.DataFrame]  # rows as the model takes them, and columns that are copied

Frames = TypeVar("Frames", pd.DataFrame, Iterator[pd.DataFrame])


def predict_to_parquet(
    model: Any,
    X: Scan | IntoDataFrame,
    path: str | os.PathLike[str],
    *,
    columns: str | Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write a model's predictions for a table of any size to a Parquet file, in bounded memory.

    The table is read in chunks; each chunk goes through all steps of the Pipeline as a frame, and
    its predictions are written before the next chunk is read. They equal those of
    ``predict_proba`` on the whole table, in the order of the rows.

    Parameters
    ----------
    model : Pipeline or classifier
        Fitted. Predictions are those of ``predict_proba`` or, if it has none,
        ``decision_function``; for a regressor those of ``predict``.
    X : scan, or pandas, polars or Arrow frame
        Rows to predict, with the columns that the model was fitted on.
    path : str or path
        The file. It is written under another name in the same folder and renamed when it is
        complete.
    columns : str or list of str, default=()
        Columns of X to write before the predictions, such as join keys. The target of a scan may
        be among them.
    overwrite : bool, default=False
        Whether to replace an existing file.

    Returns
    -------
    Path
        The file. With two classes it has the column "probability": that of ``classes_[1]``. With
        more classes it has "probability_<class>" for each. Without ``predict_proba`` it has
        "decision" in their place.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is False.
    TypeError
        If the model has neither method.

    See Also
    --------
    scan_parquet : Tables larger than memory.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.linear_model import LogisticRegression
    >>> X = pd.DataFrame({"price": [1.0, 2.0, 3.0, 4.0], "row": [0, 1, 2, 3]})
    >>> model = LogisticRegression().fit(X, [0, 0, 1, 1])
    >>> path = Path(tempfile.mkdtemp()) / "predictions.parquet"
    >>> table = pd.read_parquet(predict_to_parquet(model, X, path, columns="row"))
    >>> table.columns.tolist(), len(table)
    (['row', 'probability'], 4)
    """
    method = scoring_method(model)
    names = check_names(columns, name="columns")
    target = Path(path)
    _refuse_existing(target, overwrite=overwrite)
    n_rows = len(X) if isinstance(X, Scan) else 0
    parts = _scan_parts(X, names) if isinstance(X, Scan) else _frame_parts(X, names)
    writer = None
    with whole_file(target) as partial, ExitStack() as files:
        for rows, copied in show_progress(parts, "predicting", n_rows):
            predicted = predictions_of(model, method, rows)
            _check_taken(predicted, names)
            arrays = {str(n): pa.array(copied[n].array, from_pandas=True) for n in names}
            table = pa.table(arrays | predicted)
            writer = writer or files.enter_context(pq.ParquetWriter(partial, table.schema))
            writer.write_table(table.cast(writer.schema))
        _refuse_existing(target, overwrite=overwrite)
    return target


@dataclass(frozen=True)
class PartitionScorer:
    """Scores frames, or an iterator of frames, by a saved model. Made by :func:`score_partitions`.

    It holds a path and names, so that it travels at no cost; each process loads the file once.
    """

    path: str
    columns: tuple[str, ...]
    trusted: tuple[str, ...]
    device: str

    def __call__(self, frames: Frames) -> Frames:
        """Score one frame, or one after the other."""
        if isinstance(frames, pd.DataFrame):
            return self._score(frames)
        return cast(Frames, map(self._score, frames))

    def meta(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the result for a frame such as ``ddf._meta``, without rows: Dask's ``meta``."""
        return self._score(frame.head(0))

    def _score(self, frame: pd.DataFrame) -> pd.DataFrame:
        check_frame(frame, list(self.columns), name="the partition")
        status = os.stat(self.path)
        stamp = status.st_mtime_ns, status.st_size
        model = _load(self.path, stamp, self.trusted, self.device)
        predicted = predictions_of(model, scoring_method(model), frame)
        _check_taken(predicted, self.columns)
        return frame[list(self.columns)].assign(**predicted)


def score_partitions(
    model_path: str | os.PathLike[str],
    *,
    columns: str | Sequence[str] = (),
    trusted: Sequence[str] = (),
    device: str = "cpu",
) -> PartitionScorer:
    """Return a function that scores the partitions of a table on a cluster.

    The function takes and returns a pandas frame, or an iterator of frames, as required by
    ``dask.dataframe.map_partitions``, Ray's ``map_batches(batch_format="pandas")`` and Spark's
    ``mapInPandas``. It is sent to workers as a path; each worker process loads the model with its
    first partition, from a file that runs no code (:func:`save`), and keeps it.

    Parameters
    ----------
    model_path : str or path
        A file written by :func:`save`, readable by every worker.
    columns : str or list of str, default=()
        Columns of the table to return before the predictions, such as keys.
    trusted : list of str, default=()
        Types of other packages that the file may contain, as for :func:`load`.
    device : str, default="cpu"
        torch device to predict on.

    Returns
    -------
    PartitionScorer
        A function whose result for a partition has ``columns`` and "probability", that of
        ``classes_[1]``, in the order and with the index of its rows. With more than two classes,
        and for models without ``predict_proba``, the predictions are named as by
        :func:`predict_to_parquet`. An empty partition gives an empty result.

    Raises
    ------
    FileNotFoundError
        If there is no such file here. Workers without it raise the same error.

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


@functools.lru_cache(maxsize=N_MODELS)
def _load(path: str, stamp: tuple[int, int], trusted: tuple[str, ...], device: str) -> Any:
    return load(path, trusted=trusted, device=device)


def _scan_parts(X: Scan, names: Sequence[str]) -> Iterator[Part]:
    check_columns(X.all_dtypes, names, name="X")
    parts = X.parts(list(dict.fromkeys([*X.columns, *names])))
    for _, part in parts if len(X) else [(0, X.frame)]:
        yield part[X.columns], part


def _frame_parts(X: IntoDataFrame, names: Sequence[str]) -> Iterator[Part]:
    shown = CallerFrame(X, name="X")
    check_frame(shown.pandas, names, name="X")
    copied, n_rows = shown.pandas[names].copy(deep=False), len(shown.pandas)
    for name in names:  # objects whole: one part may hold integers and another floats
        if copied[name].dtype == object:
            copied[name] = ArrowExtensionArray(pa.array(copied[name].array, from_pandas=True))
    for start in range(0, max(n_rows, 1), FRAME_ROWS):
        stop = min(start + FRAME_ROWS, n_rows)
        yield shown.between(start, stop), copied.iloc[start:stop]


def _check_taken(predicted: Collection[str], columns: Collection[str]) -> None:
    taken = sorted({*predicted} & {*columns})
    if taken:
        raise ValueError(
            f"columns must not have the name of a prediction, got {taken}. Rename them in X."
        )


def scoring_method(model: Any) -> str:
    """Return the name of the method that gives a model's scores."""
    has_numbers = hasattr(model, "__sklearn_tags__") and is_regressor(model)
    for method in COLUMN_OF:
        if hasattr(model, method) and (has_numbers or method != "predict"):
            return method
    raise TypeError(
        "scoring needs a fitted model with predict_proba or decision_function, got "
        f"{model!r:.60}. Pass the fitted Pipeline or classifier."
    )


def predictions_of(model: Any, method: str, rows: Any) -> dict[str, np.ndarray]:
    """Return predictions by name of column; of no rows too, which most models refuse."""
    name = COLUMN_OF[method]
    classes = list(getattr(model, "classes_", range(2)))
    if len(rows) == 0:
        shape = (0,) if method == "predict" else (0, len(classes))
        scores = np.empty(shape, dtype=np.float32)
    else:
        scores = getattr(model, method)(rows)
    if isinstance(scores, list):  # several labels, as scikit-learn has them
        fitted = getattr(model, "best_estimator_", model)  # of a search
        last = fitted.steps[-1][1] if hasattr(fitted, "steps") else fitted
        labels = getattr(last, "label_names_", range(len(scores)))
        return {f"{name}_{n}": of_label[:, 1] for n, of_label in zip(labels, scores, strict=True)}
    scores = np.asarray(scores)
    if scores.ndim == 1:
        return {name: scores}
    if scores.shape[-1] == 2:
        return {name: cast(np.ndarray, scores[:, 1])}
    return {f"{name}_{label}": scores[:, number] for number, label in enumerate(classes)}


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(
            f"predict_to_parquet needs a new path, got {str(path)!r}, which exists. Choose "
            "another, or pass overwrite=True to replace it."
        )
