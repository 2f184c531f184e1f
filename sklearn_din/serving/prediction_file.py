"""Predictions of a table that is larger than memory, written to a Parquet file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from narwhals.typing import IntoDataFrame

from sklearn_din._frames import CallerFrame
from sklearn_din._progress import Progress
from sklearn_din._validation import check_frame, check_names
from sklearn_din._whole_files import whole_file
from sklearn_din.tables.scan import Scan

FRAME_ROWS = 131_072  # of a part of a frame in memory
PROBABILITY, DECISION = "probability", "decision"


def predict_to_parquet(
    model: Any,
    X: Scan | IntoDataFrame,
    path: str | os.PathLike[str],
    *,
    columns: str | Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write what a model predicts for a table of any size to a Parquet file, in bounded memory.

    The table is read part by part; each part goes through all steps of the Pipeline as a frame,
    and its predictions are written before the next part is read. They are those of
    ``predict_proba`` on the whole table, in the order of the rows.

    Parameters
    ----------
    model : Pipeline or classifier
        Fitted. Its ``predict_proba`` is asked, or where it has none its ``decision_function``.
    X : scan, or pandas, polars or Arrow frame
        Rows to predict, with the columns that the model was fitted on.
    path : str or path
        The file. It is written under another name in the same folder and put in place when it is
        whole.
    columns : str or list of str, default=()
        Columns of X that are written too, before the predictions, such as the keys by which you
        join them. Of a scan its target may be among them.
    overwrite : bool, default=False
        Whether to replace a file that is there already.

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
    n_rows = len(X) if isinstance(X, Scan) else None
    parts = _scan_parts(X, names) if isinstance(X, Scan) else _frame_parts(X, names)
    with whole_file(target) as partial:
        _write(model, method, parts, partial, n_rows)
        _refuse_existing(target, overwrite=overwrite)
    return target


Part = tuple[Any, pa.Table]  # rows as the model takes them, and the columns to write beside


def _scan_parts(X: Scan, names: Sequence[str]) -> Iterator[Part]:
    check_frame(pd.DataFrame(columns=list(X.all_dtypes)), names, name="X")
    n_parts = 0
    for _, part in X.parts(list(dict.fromkeys([*X.columns, *names]))):
        n_parts += 1
        yield part[X.columns], _arrow(part, names, {})
    if n_parts == 0:
        empty = pd.DataFrame(
            {name: pd.Series([], dtype=dtype) for name, dtype in X.all_dtypes.items()}
        )
        yield empty[X.columns], _arrow(empty, names, {})


def _frame_parts(X: IntoDataFrame, names: Sequence[str]) -> Iterator[Part]:
    shown = CallerFrame(X, name="X")
    check_frame(shown.pandas, names, name="X")
    n_rows = len(shown.pandas)
    # The type of objects needs all rows: a part may hold nothing, or integers where others hold
    # floats. Other columns have a type, and histories would be long as a whole.
    objects = [name for name in names if shown.pandas[name].dtype == object]
    whole = {name: _arrow_column(shown.pandas[name]) for name in objects}
    for start in range(0, max(n_rows, 1), FRAME_ROWS):
        stop = min(start + FRAME_ROWS, n_rows)
        known = {name: column.slice(start, stop - start) for name, column in whole.items()}
        yield shown.between(start, stop), _arrow(shown.pandas.iloc[start:stop], names, known)


def _arrow(
    part: pd.DataFrame, names: Sequence[str], known: Mapping[str, pa.ChunkedArray]
) -> pa.Table:
    arrays = [known[name] if name in known else _arrow_column(part[name]) for name in names]
    return pa.table(arrays, names=[str(name) for name in names])


def _arrow_column(column: pd.Series) -> pa.ChunkedArray:
    try:
        return pa.chunked_array(pa.array(column.array, from_pandas=True))
    except pa.ArrowException as error:
        raise ValueError(
            f"columns must hold values of one kind, to be written to a Parquet file, got "
            f"{column.name!r}, of which Arrow says: {error}. Convert that column of X, for example "
            "to text."
        ) from error


def _write(model: Any, method: str, parts: Iterator[Part], path: Path, n_rows: int | None) -> None:
    writer = None
    try:
        with Progress("predicting", n_rows or 0) as progress:
            for rows, beside in parts:
                columns = dict(zip(beside.column_names, beside.columns, strict=True))
                for name, values in predictions_of(model, method, rows).items():
                    if name in columns:
                        raise ValueError(
                            f"columns must not have the name of a prediction, got {name!r}. "
                            "Rename that column of X."
                        )
                    columns[name] = pa.chunked_array([pa.array(values)])
                table = pa.table(columns)
                table = table.cast(writer.schema) if writer else table
                writer = writer or pq.ParquetWriter(path, table.schema)
                writer.write_table(table)
                progress.update(len(rows))
    finally:
        if writer is not None:
            writer.close()


def scoring_method(model: Any) -> str:
    """Return the name of the method that gives a model's scores."""
    method = next((m for m in ("predict_proba", "decision_function") if hasattr(model, m)), None)
    if method is None:
        raise TypeError(
            "scoring needs a fitted model with predict_proba or decision_function, got "
            f"{model!r:.60}. Pass the fitted Pipeline or classifier."
        )
    return method


def predictions_of(model: Any, method: str, rows: Any) -> dict[str, np.ndarray]:
    """Return predictions by name of column; of no rows too, which most models refuse."""
    name = PROBABILITY if method == "predict_proba" else DECISION
    classes = list(getattr(model, "classes_", range(2)))
    if len(rows) == 0:
        scores = np.empty((0, len(classes)), dtype=np.float32)
    else:
        scores = np.asarray(getattr(model, method)(rows))
    if scores.ndim == 1:
        return {name: scores}
    if scores.shape[1] == 2:
        return {name: cast(np.ndarray, scores[:, 1])}
    return {f"{name}_{label}": scores[:, number] for number, label in enumerate(classes)}


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(
            f"predict_to_parquet needs a new path, got {str(path)!r}, which exists. Choose "
            "another, or pass overwrite=True to replace it."
        )
