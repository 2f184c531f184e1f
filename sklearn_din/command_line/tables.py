"""Files of rows: separator, encoding, missing values, ids and times; read and written.

Times are numbers, or dates whose order of day and month is never a silent guess.
"""

import bz2
import gzip
import json
import lzma
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.tseries.api import guess_datetime_format

from sklearn_din.command_line.options import PARQUET, Options
from sklearn_din.utils.validation import check_frame
from sklearn_din.utils.whole_files import whole_file

SEPARATORS = (",", "\t", ";", "|")
JSON = {".json", ".jsonl", ".ndjson"}
# By the last suffix of a file.
OPEN: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
LARGEST_INTEGER = 2**63
LARGEST_WHOLE_FLOAT = 2**53  # from here on, floats skip whole numbers
DAY_MONTH = re.compile(r"(?P<first>\d{1,2})[/.\-](?P<second>\d{1,2})[/.\-](?:\d{4}|\d{2})\b")
ZONE = r":\d\d(?:\.\d+)?\s*(?:Z|[+\-]\d\d(?::?\d\d)?)$"
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")
LAST_MONTH = 12
UNREADABLE = (ValueError, LookupError, pd.errors.ParserWarning)  # text, encoding, long rows
UNPACKING = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


def read_table(path: Path, columns: Sequence[str], options: Options) -> pd.DataFrame:
    """Read CSV or JSON (also compressed), Parquet or a folder of it, with ``columns``."""
    if path.suffix in PARQUET or path.is_dir():
        if options.sep is not None or options.encoding is not None:
            raise ValueError(f"--sep and --encoding are for text, but {path} is Parquet.")
        table = pd.read_parquet(path)
        objects = [str(name) for name in table if table[name].dtype == object]
        table = table.assign(**{name: _read_decimals(table[name]) for name in objects})
        table = _as_text(table, options.text)
    elif JSON.intersection(path.suffixes):
        if options.sep is not None:
            raise ValueError(f"--sep is for CSV, but {path} is JSON.")
        table = _as_text(_read_json(path, options.encoding or "utf-8"), options.text)
    else:
        table = _read_text(path, columns, options)
    check_frame(table, columns, name=str(path))
    if not len(table):
        raise ValueError(f"{path} has no rows, only the names of its columns.")
    return table.reset_index(drop=True)


def _as_text(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the table with some columns as text; missing values stay missing."""
    texts = {name: table[name] for name in names if name in table}
    return table.assign(**{n: c.astype(str).where(c.notna()) for n, c in texts.items()})


def _read_json(path: Path, encoding: str) -> pd.DataFrame:
    """Read one object per line, or an array of objects."""
    try:
        with OPEN.get(path.suffix, open)(path, "rb") as file:
            text = file.read().decode(encoding).removeprefix("\ufeff")
        is_array = text.lstrip().startswith("[")
        lines = filter(str.strip, text.split("\n"))
        rows = json.loads(text) if is_array else [json.loads(line) for line in lines]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("some rows are no objects")
    except (*UNREADABLE, *UNPACKING, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as JSON in {encoding}: {error}. It needs one object per line, "
            "or one array of objects; name another --encoding, such as latin-1."
        ) from error
    table = pd.DataFrame(rows)
    is_nested = {n: table[n].map(lambda value: isinstance(value, dict | list)) for n in table}
    nested = [name for name, column in is_nested.items() if column.any()]
    if nested:
        print(f"note: columns of lists or objects are not read: {', '.join(map(str, nested))}")
    return table.drop(columns=nested)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write Parquet, or text by the file's name; no half of it is ever there."""
    with whole_file(path) as partial:
        if path.suffix in PARQUET:
            table.to_parquet(partial, index=False)
        else:
            table.to_csv(partial, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    print(f"{len(table):,} rows: {path}")


def refuse_histories(table: pd.DataFrame, path: Path) -> None:
    """Raise where the table has columns of the names that histories get."""
    taken = [name for name in table.columns if str(name).startswith("hist_")]
    if taken:
        raise ValueError(
            f"{path} has columns {taken} of its own, but histories are made from the clicks of the "
            "log. Rename or drop these columns."
        )


def read_log(
    table: pd.DataFrame,
    path: Path,
    options: Options,
    *,
    needed: Sequence[str],
    ids: Sequence[str],
    times: Sequence[str],
) -> pd.DataFrame:
    """Return the rows that have a value in each of the columns needed, with ids and times read."""
    problems: list[str] = []
    with gather(problems):
        table = _drop_missing(table, needed, path, drop=options.drop_bad)
    if problems:
        table = table.dropna(subset=list(needed))
    for name in times if len(table) else ():
        with gather(problems):
            read = _read_times(table[name], options)
            table = table.assign(**{name: read})[read.notna()]  # others are left out by --drop-bad
    for name in ids:
        with gather(problems):
            table = table.assign(**{name: read_ids(table[name])})
    raise_all(problems)
    return table


@contextmanager
def gather(problems: list[str]) -> Iterator[None]:
    """Note what is wrong and go on, so that all of it is said at once."""
    try:
        yield
    except ValueError as error:
        problems.append(str(error))


def raise_all(problems: Sequence[str]) -> None:
    """Raise for what was gathered."""
    if problems:
        raise ValueError(" Also: ".join(problems))


def _drop_missing(
    table: pd.DataFrame, columns: Sequence[str], path: Path, *, drop: bool
) -> pd.DataFrame:
    """Return the rows with a value in each of ``columns``; raise for others, unless ``drop``."""
    missing = table[list(columns)].isna()
    n_rows = int(missing.any(axis=1).sum())
    if not n_rows:
        return table
    where = ", ".join(
        f"{missing[name].sum()} in {name!r}" for name in missing if missing[name].any()
    )
    if not drop:
        raise ValueError(
            f"{path} has {n_rows} rows without a value: {where}. --drop-bad leaves them out."
        )
    if n_rows == len(table):
        raise ValueError(f"every row of {path} lacks a value: {where}.")
    print(f"note: {n_rows} of {len(table)} rows left out, which lack a value: {where}")
    return table[~missing.any(axis=1)]


def read_ids(column: pd.Series) -> pd.Series:
    """Return whole floats as integers: a missing value had made floats of them."""
    if not pd.api.types.is_float_dtype(column.dtype):
        return column
    values = column.dropna().astype("float64")  # float16 holds no limit of 2**53
    fractions = values[values % 1 != 0]
    if len(fractions):
        raise ValueError(
            f"{column.name!r} must hold ids, integers or text, got {fractions.iloc[0]} in row "
            f"{fractions.index[0] + 1}. --text {column.name} reads such ids as text; a column of "
            "numbers can be a --context."
        )
    if (values.abs() >= LARGEST_WHOLE_FLOAT).any():
        raise ValueError(
            f"{column.name!r} has missing values beside ids of more than 15 digits, which lose "
            "digits when they are read so. Take the rows without a value out of the file."
        )
    return column.astype("Int64" if len(values) < len(column) else "int64")


def _read_decimals(column: pd.Series) -> pd.Series:
    """Return a database's decimals as integers, or as floats where some have fractions."""
    if pd.api.types.infer_dtype(column, skipna=True) != "decimal":
        return column
    present = column.dropna().tolist()
    if any(value != int(value) for value in present):
        return pd.to_numeric(column)
    fits = all(abs(value) < LARGEST_INTEGER for value in present)
    return column.astype("Int64" if len(present) < len(column) else "int64") if fits else column


def _read_times(times: pd.Series, options: Options) -> pd.Series:
    """Return times as numbers or datetimes; raise at the first value that is no time, with its row.

    The index of ``times`` counts the rows of the file from 0; none is missing.
    """
    is_number = pd.api.types.is_numeric_dtype(times.dtype)
    if options.time_format is not None:
        if is_number and (times % 1 == 0).all():  # 20240131.0, which a missing value made a float
            times = times.astype("int64")
        texts, how = times.astype(str).str.strip(), options.time_format
        read = pd.to_datetime(texts, format=how, errors="coerce", utc="%z" in how)
        return _check_times(read, texts, options, how)
    if is_number or getattr(times.dtype, "kind", None) == "M":
        return times
    texts = times.astype(str).str.strip()
    first = texts.iloc[0]
    if NUMBER.fullmatch(first):
        return _check_times(pd.to_numeric(texts, errors="coerce"), texts, options)
    if pd.notna(pd.to_datetime(first, format="ISO8601", errors="coerce")):
        return _read_iso(texts, options)
    day_first = bool(DAY_MONTH.match(first)) and _is_day_first(texts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas, about the order of day and month
        time_format = guess_datetime_format(first, dayfirst=day_first) or "mixed"
        read = pd.to_datetime(texts, format=time_format, dayfirst=day_first, errors="coerce")
    return _check_times(read, texts, options, time_format.removeprefix("mixed"))


def _read_text(path: Path, columns: Sequence[str], options: Options) -> pd.DataFrame:
    encoding = options.encoding or "utf-8"
    try:
        separator = _find_separator(path, columns, options.sep, encoding)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            parser: dict[str, Any] = {"sep": separator, "low_memory": False}
            parser["dtype"] = dict.fromkeys(options.text, str)
            if len(separator) > 1:  # to pandas, a regular expression
                parser = {"sep": re.escape(separator), "engine": "python"}
            return pd.read_csv(path, encoding=encoding, index_col=False, **parser)
    except (*UNREADABLE, *UNPACKING) as error:
        raise ValueError(
            f"{path} cannot be read as text in {encoding}: {error}. Correct the file, or name its "
            "--sep or its --encoding, such as latin-1."
        ) from error


def _find_separator(path: Path, columns: Sequence[str], sep: str | None, encoding: str) -> str:
    """Return the separator given, or the one by which the header has most of ``columns``."""
    if sep is not None:
        return {"\\t": "\t", "tab": "\t"}.get(sep, sep)
    headers = {
        separator: pd.read_csv(path, sep=separator, encoding=encoding, nrows=0).columns
        for separator in SEPARATORS
    }
    separator = max(headers, key=lambda s: (len({*columns} & {*headers[s]}), len(headers[s])))
    if separator != ",":
        print(f"note: {path} is separated by {separator!r} (--sep names another)")
    return separator


def _check_times(
    read: pd.Series, texts: pd.Series, options: Options, time_format: str = ""
) -> pd.Series:
    """Raise where times could not be read; with ``--drop-bad``, print how many."""
    bad = texts[read.isna()]
    if bad.empty:
        return read
    example = next(iter(texts[read.notna()]), texts.iloc[0])
    as_what = f"in the format {time_format}" if time_format else f"such as {example!r}"
    if options.drop_bad and len(bad) < len(texts):
        print(
            f"note: {len(bad):,} of {len(texts):,} rows left out, whose {texts.name!r} is no time "
            f"{as_what}, such as {bad.iloc[0]!r}"
        )
        return read
    raise ValueError(
        f"{texts.name!r} must hold times {as_what}, got {bad.iloc[0]!r} in row "
        f"{bad.index[0] + 1} (below the header), {len(bad):,} of {len(texts):,} such rows in all. "
        "Correct them, give --time-format, or leave them out with --drop-bad."
    )


def _read_iso(texts: pd.Series, options: Options) -> pd.Series:
    zoned = texts.str.contains(ZONE)
    read = pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=bool(zoned.any()))
    read = _check_times(read, texts, options)
    if zoned.any() and not zoned.all():
        bare = texts[~zoned]
        raise ValueError(
            f"{texts.name!r} must have a time zone in every row or in none, got "
            f"{bare.iloc[0]!r} in row {bare.index[0] + 1} without one."
        )
    return read


def _is_day_first(texts: pd.Series) -> bool:
    """Return whether some first number is no month; print a note where no number tells."""
    is_no_month = texts.str.extract(DAY_MONTH)[["first", "second"]].astype(float) > LAST_MONTH
    if is_no_month.any().all():
        day, month = (texts[is_no_month[place]] for place in ("first", "second"))
        raise ValueError(
            f"{texts.name!r} has the day first in {len(day):,} rows, such as {day.iloc[0]!r}, and "
            f"the month in {len(month):,}, such as {month.iloc[0]!r}. Give --time-format, and "
            "--drop-bad to leave out the others."
        )
    if not is_no_month.any(axis=None):
        print(
            f"note: the times of {texts.name!r}, such as {texts.iloc[0]}, could begin with the day "
            "or with the month; they are read with the month first (--time-format says it)"
        )
    return bool(is_no_month["first"].any())
