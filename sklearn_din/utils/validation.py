"""Checks used throughout the package: frames, column names, times, plain values."""

import datetime as dt
import difflib
from collections.abc import Collection, Hashable, Iterable, Sequence
from numbers import Integral, Number, Real
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

Age = float | str | dt.timedelta | np.timedelta64 | None  # pd.Timedelta is a dt.timedelta

UNITS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def check_frame(frame: object, columns: Iterable[Hashable], *, name: str, advice: str = "") -> None:
    """Raise unless ``frame`` is a pandas frame with distinct names that holds ``columns``."""
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(
            f"{name} must be a pandas DataFrame, got {type(frame).__name__}. "
            "Wrap an array in pd.DataFrame(...); a polars frame has .to_pandas()."
        )
    check_distinct(frame.columns, name=name)
    check_columns(frame.columns, columns, name=name, index=frame.index.names, advice=advice)


def check_distinct(names: pd.Index, *, name: str) -> None:
    """Raise if two columns have the same name."""
    if not names.is_unique:
        twice = names[names.duplicated()].unique().tolist()
        raise ValueError(
            f"{name} must have distinct column names, got {_list_names(twice)} more than once. "
            "Rename or drop the repeated columns."
        )


def check_columns(
    present: Collection[Hashable],
    columns: Iterable[Hashable],
    *,
    name: str,
    index: Collection[Hashable] = (),
    advice: str = "",
) -> None:
    """Raise unless all ``columns`` are among those ``present``, or name the ``index`` at fault."""
    for column in columns:
        if column not in present:
            prefixed = [name for name in map(str, present) if name.endswith(f"__{column}")]
            close = prefixed or difflib.get_close_matches(str(column), map(str, present), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            if close and close[0].endswith(f"__{column}"):  # by default ColumnTransformer's names
                hint += (
                    " ColumnTransformer(verbose_feature_names_out=False) keeps names as they are."
                )
            if column is not None and column in index:  # an index without a name has None
                hint = "; it is the index: use reset_index()."
            raise ValueError(
                f"{name} has no column {column!r}{hint} Its columns are: {_list_names(present)}."
                f"{advice}"
            )


def refuse_new_columns(given: Iterable[Hashable], known: Collection[Hashable]) -> None:
    """Raise where rows to learn from have columns that those of fit did not have."""
    new = [name for name in given if name not in known]
    if new:
        raise ValueError(
            f"columns {new} were not there at fit: partial_fit and update learn new ids, not new "
            "columns. Fit again on rows that have them, or leave them out of X."
        )


def check_name(column: object, *, name: str) -> None:
    """Raise unless ``column`` can name one column."""
    if not pd.api.types.is_hashable(column):
        raise TypeError(f"{name} must be one column name, got {column!r}.")


def check_choice(value: object, choices: Sequence[object], *, name: str) -> None:
    """Raise unless ``value`` is one of the options that exist."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}.")


def check_count(count: object, *, name: str) -> None:
    """Raise unless it is a whole number of at least 1."""
    if isinstance(count, bool) or not isinstance(count, Integral) or int(count) < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {count!r}.")


def check_names(columns: object, *, name: str) -> list[Any]:
    """Return column names as a list: one name or a sequence of distinct names."""
    if isinstance(columns, str):
        return [columns]
    if not isinstance(columns, Sequence | pd.Index | np.ndarray):
        raise TypeError(
            f"{name} must be a column name or a list of names, got {type(columns).__name__}."
        )
    names = list(columns)
    if len(set(names)) < len(names):
        raise ValueError(f"{name} must name each column once, got {_list_names(names)}.")
    return names


def check_times(
    times: pd.Series, *, name: str, unit: str | None = None
) -> tuple[np.ndarray, str | None, bool]:
    """Return times as int64 or float64, with their unit and whether they carry a zone.

    Datetimes count from 1970 in their own unit, or in a finer ``unit``; that of numbers is None.
    """
    if len(times) == 0 and times.dtype == object:
        return np.empty(0, dtype=np.int64), None, False
    is_number = pd.api.types.is_integer_dtype(times) or pd.api.types.is_float_dtype(times)
    if not is_number and getattr(times.dtype, "kind", None) != "M":
        raise TypeError(
            f"{name} must hold integers, floats or datetimes, got dtype {times.dtype}. Convert "
            "numbers with pd.to_numeric, dates with pd.to_datetime, in polars with "
            ".str.to_datetime()."
        )
    if n_missing := int(missing_rows(times).sum()):
        raise missing_times(name, n_missing)
    if pd.api.types.is_float_dtype(times):
        values = times.to_numpy(dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite, got infinite times. Drop those rows.")
        return values, None, False
    if is_number:
        if len(times) and times.max() > np.iinfo(np.int64).max:
            raise ValueError(f"{name} must fit into int64, got {times.max()}. Use a coarser unit.")
        return times.to_numpy(dtype=np.int64), None, False
    stamps = datetime_index(times)
    if unit is not None and UNITS_PER_SECOND[unit] > UNITS_PER_SECOND[stamps.unit]:
        stamps = stamps.as_unit(unit)  # type: ignore[arg-type]
    return stamps.asi8, stamps.unit, stamps.tz is not None


def check_time_kind(name: str, given: Sequence[Any], needed: Sequence[Any], *, like: str) -> None:
    """Raise where times, by unit and zone, cannot be compared with others."""
    kinds = [
        "numbers" if unit is None else f"datetimes with{'' if zoned else 'out'} a zone"
        for unit, zoned in (needed, given)
    ]
    if kinds[0] != kinds[1]:
        raise TypeError(
            f"{name} must hold {kinds[0]}, as {like}, got {kinds[1]}. Use pd.to_datetime, or "
            "tz_localize / tz_convert."
        )


def read_times_alike(columns: Sequence[pd.Series]) -> tuple[list[np.ndarray], str | None]:
    """Return columns of X's times in one unit, the finest, and the unit."""
    read = [check_times(times, name=f"X[{times.name!r}]") for times in columns]
    unit = max((unit for _, unit, _ in read), key=lambda unit: unit_ratio(unit, "s"))
    for times, (_, own, _) in zip(columns, read, strict=True):
        if (own is None) != (read[0][1] is None):
            kinds = ("datetimes", "numbers") if own is None else ("numbers", "datetimes")
            raise TypeError(
                f"X[{times.name!r}] must hold {kinds[0]}, as the times do, got {kinds[1]}."
            )
    return [times * unit_ratio(unit, own) for times, own, _ in read], unit


def unit_ratio(finer: str | None, coarser: str | None) -> int:
    """Return how many of the finer unit make one of the coarser; 1 for numbers."""
    if finer is None or coarser is None:
        return 1
    return UNITS_PER_SECOND[finer] // UNITS_PER_SECOND[coarser]


def unix_unit(column: pd.Series) -> str | None:
    """Return the unit in which whole numbers look like times counted from 1970, or None.

    All must lie between 1990 and 2100 and within forty years, which ids rarely do. Nanoseconds are
    left out: ids that carry a time look like them.

    >>> unix_unit(pd.Series([1396310400, 1398902400])), unix_unit(pd.Series([7, 1396310400]))
    ('s', None)
    """
    if getattr(column.dtype, "kind", "O") not in "iuf":
        return None
    numbers = plain_values(column[~missing_rows(column)])
    if len(numbers) == 0:
        return None
    low, high = float(numbers.min()), float(numbers.max())
    for unit in ("s", "ms", "us"):
        year = 365.25 * 86_400 * UNITS_PER_SECOND[unit]
        if 20 * year <= low and high <= 130 * year and high - low <= 40 * year:
            return unit
    return None


def position_values(column: pd.Series) -> np.ndarray:
    """Return the position of each row as int32, 0 where it is missing."""
    positions, is_known = np.zeros(len(column), dtype=np.int32), ~missing_rows(column)
    values = pd.Series(plain_values(column)[is_known]).infer_objects()
    if len(values) == 0:
        return positions
    is_number = values.dtype.kind in "iuf"
    wrong = values if not is_number else values[(values < 1) | (values % 1 != 0)]
    if len(wrong):
        raise ValueError(
            f"{column.name} must hold positions, whole numbers from 1 on (missing where there is "
            f"none), got {wrong.tolist()[0]!r:.40}. Where they begin with 0, give "
            f"X[{column.name!r}] + 1."
        )
    positions[is_known] = values.clip(upper=np.iinfo(np.int32).max)
    return positions


def missing_rows(column: pd.Series) -> np.ndarray:
    """Return True where a value is missing, also for NaN of polars and Arrow.

    >>> times = pa.array([1.0, float("nan"), None])
    >>> missing_rows(pd.Series(pd.arrays.ArrowExtensionArray(times)))
    array([False,  True,  True])
    """
    if pd.api.types.is_float_dtype(column):
        return np.isnan(plain_values(column))
    return column.isna().to_numpy(dtype=bool)


def missing_times(name: str, n_missing: int) -> ValueError:
    """Make the error for times that are missing."""
    return ValueError(
        f"{name} must not have missing times, got {n_missing} (NaN or NaT). "
        "A row without a time has no past and no future: drop it or fill it in."
    )


def check_max_age(max_age: Age, *, unit: str | None) -> float | int | None:
    """Return ``max_age`` in the times' own unit: a number, or whole units of a duration."""
    if max_age is None:
        return None
    age, length = read_span(max_age, unit=unit, name="max_age", example="30D")
    if not length > 0:
        raise ValueError(f"max_age must be positive, got {max_age!r}. None keeps every age.")
    return None if age == float("inf") else age


def read_span(
    span: Any, *, unit: str | None, name: str, example: str
) -> tuple[float | int, float | int]:
    """Return a span of time in the times' own unit: whole units of a duration, and all of it."""
    is_number = isinstance(span, Real) and not isinstance(span, bool | np.timedelta64)
    if is_number == (unit is not None):
        needed = (
            "a number in the time's unit" if unit is None else f"a duration such as {example!r}"
        )
        kind = "numbers" if unit is None else "datetimes"
        raise TypeError(f"{name} must be {needed} because the times are {kind}, got {span!r}.")
    if unit is None:
        return span, span
    without_unit = isinstance(span, str) and span.strip().isdecimal()  # pandas: nanoseconds
    try:
        duration = None if without_unit else pd.Timedelta(span)
    except (TypeError, ValueError):
        duration = None
    if duration is None:
        raise ValueError(f"{name} must be a duration such as {example!r} or '12h', got {span!r}.")
    whole = pd.Timedelta(1, unit=unit)  # type: ignore[arg-type]
    return duration // whole, duration / whole


def plain_values(column: pd.Series | pd.Index) -> np.ndarray:
    """The column as a 1-D numpy array: integers stay integers, text becomes objects."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes = pd.Series(column).cat.codes.to_numpy()
        values = plain_values(column.dtype.categories)
        if (codes < 0).any():
            values = np.concatenate([values.astype(object), np.array([None])])
        return values[codes]
    if isinstance(column.dtype, pd.SparseDtype):
        return np.asarray(column)
    if pd.api.types.is_float_dtype(column.dtype):
        kind = np.dtype(getattr(column.dtype, "numpy_dtype", column.dtype.name))
        if kind == np.float16:  # pandas has no index of them
            kind = np.dtype(np.float32)
        return column.to_numpy(dtype=kind, na_value=np.nan)
    # With missing values, pandas 3 would make integers floats.
    is_object = pd.api.types.is_extension_array_dtype(column.dtype) and column.hasnans
    try:
        return column.to_numpy(dtype=object) if is_object else column.to_numpy()
    except NotImplementedError as error:
        raise ValueError(
            f"{column.name!r} holds moments with a zone that Python has no date for: {error} "
            "Correct them, or take their zone away."
        ) from error


def python_values(values: np.ndarray) -> np.ndarray:
    """Return objects of several types with Python values instead of numpy scalars.

    numpy's one day equals True, of another hash, and its 2.0 cannot be compared with 2**70.

    >>> python_values(np.array([np.float16(2), "hat"], dtype=object))
    array([2.0, 'hat'], dtype=object)
    """
    if values.dtype != object or "mixed" not in pd.api.types.infer_dtype(values):
        return values
    plain = (value.item() if isinstance(value, np.generic) else value for value in values)
    return np.fromiter(plain, dtype=object, count=len(values))


def refuse_unsure_ids(values: Any, distinct: Any, *, name: str) -> None:
    """Raise if objects are complex, or include both True and 1, or False and 0."""
    if distinct.dtype.kind not in "Oc" or pd.api.types.infer_dtype(distinct) == "string":
        return
    kind = pd.api.types.infer_dtype(values)
    if kind != "complex" and (values.dtype != object or "mixed" not in kind):
        return
    if any(issubclass(each, complex | np.complexfloating) for each in set(map(type, values))):
        raise ValueError(f"{name} must hold ids, got complex numbers. Make real columns of them.")
    booleans = {value for value in values if isinstance(value, bool | np.bool_)}
    numbers = {v for v in values if isinstance(v, Number) and not isinstance(v, bool)}
    for boolean in booleans & numbers:
        raise ValueError(
            f"{name} holds {bool(boolean)} and {int(boolean)}, which Python takes for equal: they "
            "would be one id in rows that are read together and two in others. Make all of them "
            "numbers, or all of them text."
        )


def note_two_kinds(values: Any, *, name: str) -> str | None:
    """Return a warning if distinct ids include both a number and its text."""
    if values.dtype != object or "mixed" not in pd.api.types.infer_dtype(values, skipna=True):
        return None
    texts = {value for value in values if isinstance(value, str)}
    twice = next((v for v in values if isinstance(v, Number) and str(v) in texts), None)
    if twice is None:
        return None
    return (
        f"{name} holds {twice} and '{twice}', which are two ids. Write all in one way, "
        f"{name} = {name}.astype(str)."
    )


def check_keys(values: np.ndarray, *, name: str) -> None:
    """Raise where a value could be no key: lists, dicts."""
    if values.dtype == object:
        for value in values:
            if not pd.api.types.is_hashable(value):
                raise TypeError(
                    f"{name} must hold one key per row, text or integers, got {value!r:.40} "
                    f"({type(value).__name__}). Make one value of it, or explode the column."
                )


def is_auto(value: object) -> bool:
    """Return whether a parameter leaves the choice to the rules."""
    return isinstance(value, str) and value == "auto"


def as_tuple(value: Hashable) -> tuple:
    """Return the names that a key or a value of ``histories`` consists of."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def spread(values: Any, most: int) -> Any:
    """Return about so many of the values at most, evenly spread over all of them."""
    return values[:: len(values) // most + 1]


def spells_integer(text: str) -> bool:
    """Return whether text is how an integer is written that int64 holds: "12", not "012"."""
    digits = text.removeprefix("-")
    return digits.isdecimal() and len(digits) < 19 and str(int(text)) == text


def check_exact(ids: np.ndarray, *, name: str) -> None:
    """Raise where floats are integers so large that neighbouring ones are the same float.

    >>> float(2**53) == float(2**53 + 1)
    True
    >>> check_exact(np.array([7.0, np.nan, 2.0**52]), name="user")
    """
    limit = 2 ** (np.finfo(ids.dtype).nmant + 1)
    if np.abs(ids[np.isfinite(ids)]).max(initial=0) >= limit:
        raise ValueError(
            f"{name} holds ids as {ids.dtype} from {limit} on, where neighbouring ids merge. "
            "Read the column as integers (dtype 'Int64' where some are missing) or as text."
        )


def time_values(column: pd.Series) -> np.ndarray:
    """Return times as a plain array: datetime64 (UTC where they have a zone), or numbers."""
    if getattr(column.dtype, "kind", None) == "M":
        stamps = datetime_index(column)
        return (stamps if stamps.tz is None else stamps.tz_convert(None)).to_numpy()
    return plain_values(column)


def time_numbers(times: np.ndarray) -> np.ndarray:
    """Return times as :func:`time_values` gives them as floats: nanoseconds since 1970, or numbers.

    >>> time_numbers(np.array(["1970-01-02"], dtype="datetime64[s]"))
    array([8.64e+13])
    """
    if times.dtype.kind == "M":
        times = times.astype("datetime64[ns]").astype(np.int64)
    return times.astype(np.float64)


def datetime_index(times: pd.Series) -> pd.DatetimeIndex:
    """Return datetimes as an index; those of Arrow without a Python object for each."""
    kind = getattr(times.dtype, "pyarrow_dtype", None)
    if kind is None or not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return pd.DatetimeIndex(times)
    unit, zone = ("s", None) if pa.types.is_date(kind) else (kind.unit, kind.tz and "UTC")
    moments = pa.chunked_array(pa.array(times.array)).cast(pa.timestamp(unit, zone))
    return pd.DatetimeIndex(moments.to_pandas())


def _list_names(names: Iterable[object], limit: int = 20) -> str:
    shown = [repr(name) for name in names]
    more = f", ... ({len(shown)} in all)" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + more
