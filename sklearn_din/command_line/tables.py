"""Files of rows: read with the separator that their header shows, and written."""

from __future__ import annotations

import lzma
import re
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from sklearn_din._validation import check_frame
from sklearn_din._whole_files import whole_file
from sklearn_din.command_line.options import TableOptions

SEPARATORS = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a vertical bar"}
LARGEST_WHOLE_FLOAT = 2**53  # from here on, floats skip whole numbers


def read_table(path: Path, columns: Sequence[str], options: TableOptions) -> pd.DataFrame:
    """Read a CSV (also compressed) or Parquet file that has ``columns``."""
    if path.suffix in (".parquet", ".pq"):
        if options.sep is not None or options.encoding is not None:
            raise ValueError(f"--sep and --encoding are for text, but {path} is Parquet.")
        table = pd.read_parquet(path)
    else:
        table = _read_text(path, columns, options)
    check_frame(table, columns, name=str(path))
    if not len(table):
        raise ValueError(f"{path} has no rows, only the names of its columns.")
    return table.reset_index(drop=True)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write Parquet, or text by the file's name; no half of it is ever there."""
    with whole_file(path) as partial:
        if path.suffix in (".parquet", ".pq"):
            table.to_parquet(partial, index=False)
        else:
            table.to_csv(partial, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    print(f"{len(table):,} rows: {path}")


def refuse_histories(table: pd.DataFrame, path: Path) -> None:
    """Histories are made from clicks: columns of their names cannot be there already."""
    taken = [name for name in table.columns if str(name).startswith("hist_")]
    if taken:
        raise ValueError(
            f"{path} has columns {taken} of its own, but histories are made from the clicks of the "
            "log. Rename or drop these columns."
        )


def without_missing(
    table: pd.DataFrame, columns: Sequence[str], path: Path, *, drop: bool
) -> pd.DataFrame:
    """Rows that have a value in each of ``columns``; raise if others are there, unless ``drop``."""
    missing = table[list(columns)].isna()
    n_rows = int(missing.any(axis=1).sum())
    if not n_rows:
        return table
    where = ", ".join(
        f"{missing[name].sum()} in {name!r}" for name in missing if missing[name].any()
    )
    if not drop:
        raise ValueError(
            f"{path} has {n_rows} rows without a value: {where}. --drop-missing leaves them out."
        )
    if n_rows == len(table):
        raise ValueError(f"every row of {path} lacks a value: {where}.")
    print(f"note: {n_rows} of {len(table)} rows left out, which lack a value: {where}")
    return table[~missing.any(axis=1)]


def as_ids(column: pd.Series) -> pd.Series:
    """Whole floats as integers: a missing value had made floats of them."""
    if not pd.api.types.is_float_dtype(column.dtype):
        return column
    values = column.dropna().astype("float64")  # float16 holds no limit of 2**53
    fractions = values[values % 1 != 0]
    if len(fractions):
        raise ValueError(
            f"{column.name!r} must hold ids, integers or text, got {fractions.iloc[0]} in row "
            f"{fractions.index[0] + 1}. A column of numbers can be a --context."
        )
    if (values.abs() >= LARGEST_WHOLE_FLOAT).any():
        raise ValueError(
            f"{column.name!r} has missing values beside ids of more than 15 digits, which lose "
            "digits when they are read so. Take the rows without a value out of the file."
        )
    return column.astype("Int64" if len(values) < len(column) else "int64")


def _read_text(path: Path, columns: Sequence[str], options: TableOptions) -> pd.DataFrame:
    encoding = options.encoding or "utf-8"
    try:
        separator = _separator(path, columns, options.sep, encoding)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return _read_csv(path, separator, encoding)
    except pd.errors.ParserWarning as error:
        raise ValueError(
            f"{path} has rows with more values than its header has names. Correct them, or name "
            "the separator with --sep."
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not text in {encoding}: {error}. Name its --encoding, such as latin-1."
        ) from error
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be unpacked: {error}.") from error


def _read_csv(path: Path, separator: str, encoding: str) -> pd.DataFrame:
    if len(separator) > 1:  # to pandas, a regular expression
        return pd.read_csv(
            path, sep=re.escape(separator), encoding=encoding, index_col=False, engine="python"
        )
    return pd.read_csv(path, sep=separator, encoding=encoding, index_col=False, low_memory=False)


def _separator(path: Path, columns: Sequence[str], sep: str | None, encoding: str) -> str:
    """Return the separator given, or the one by which the header has most of ``columns``."""
    if sep is not None:
        return {"\\t": "\t", "tab": "\t"}.get(sep, sep)
    headers = {
        separator: pd.read_csv(path, sep=separator, encoding=encoding, nrows=0).columns
        for separator in SEPARATORS
    }
    found = max(headers, key=lambda s: (len({*columns} & {*headers[s]}), len(headers[s])))
    if found != ",":
        print(f"note: {path} is separated by {SEPARATORS[found]} (--sep names another)")
    return found
