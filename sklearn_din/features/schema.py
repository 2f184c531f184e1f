"""The meaning of each encoded array: fields, behaviours and the schema that holds both."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from sklearn_din.utils.text_table import text_table

PADDING_ID = 0
UNKNOWN_ID = 1
FIRST_KNOWN_ID = 2


class Level(NamedTuple):
    """What a memory says of a key's rows: a statistic of ``attach_aggregates``, and its form.

    A "rate" may have a trend. A "count" and a time "elapsed" grow beyond those of fit, where a
    network ends them; and an older memory knows of an "elapsed" that it is longer by now.
    """

    statistic: str
    form: Literal["rate", "count", "elapsed"]

    @property
    def grows(self) -> bool:
        """Return whether it goes on growing after fit."""
        return self.form != "rate"


LEVELS = {  # by the end of a column's name
    "rate": Level("shrunk_rate", "rate"),  # of clicks
    "mean": Level("mean", "rate"),  # of other numbers
    "count": Level("count", "count"),
    "elapsed": Level("elapsed", "elapsed"),
}
OF_LABELS = (*LEVELS, "offset")  # what labels of earlier rows make
Meaning = tuple[str, tuple[str, ...]]  # ``what`` and ``of`` of a Field
# Of numbers: what the encoder reads from their names.
WHATS = ("", "running", *OF_LABELS, "share", "to_mean", "is_best", "missing", "age")
Kind = Literal["numeric", "categorical", "list", "history", "list_history", "numeric_history"]
KINDS = {
    "numeric": "number",
    "categorical": "id",
    "list": "list of ids",
    "history": "history of ids",
    "list_history": "history of lists of ids",
    "numeric_history": "history of numbers",
}
MOST_ROWS = 12  # fields that a printed table has


@dataclass(frozen=True)
class Field:
    """One encoded column.

    Parameters
    ----------
    name : str
        Column name in the frame and key in :class:`EncodedFeatures`.
    kind : {"numeric", "categorical", "list", "history", "list_history", "numeric_history"}
        One number, one id, one list of ids, or a history per impression, whose events have one id,
        a list of ids, or a number each.
    vocabulary : str, default=""
        Whose vocabulary the ids belong to: the candidate ``item`` and its history
        ``hist_item`` share one. Empty for numbers.
    n_ids : int, default=0
        Size of that vocabulary with padding (0) and unknown (1) included. 0 for numbers.
    digest : str, default=""
        Fingerprint of the vocabulary's values: two encoders fitted on other catalogues differ.
    candidate : str, default=""
        For a number that is looked up by a candidate's id, such as its popularity: that candidate
        column. The number is 0 wherever the candidate's id is unknown. For a history of numbers:
        the number of the impression that those of its events are compared with, if there is one.
    n_dims : int, default=0
        Length of the fixed vectors that the vocabulary's values have (``vectors`` of the encoder).
        0 where they have none.
    what : str, default=""
        What a number is, as the encoder reads it from its name: of a level, the "rate" or "mean" so
        far, the "count" of rows behind it, or the time "elapsed" since the latest of them; another
        "running" number whose name ends so; an "offset", log-odds that an online model gives the
        row and that the network adds to its logit; of a row in its request, "share", "to_mean" or
        "is_best"; whether a number is "missing"; of a history, the "age" of what is known of each
        event.
    of : tuple of str, default=()
        Whose level it is, by columns (none: of the latest rows, whatever their keys; text that
        names no column is kept as it is); of an offset, the columns of all keys; which number is
        compared, or missing; of a history, the column of the events that it has.
    elapsed_scale : float, default=0.0
        For a time elapsed since the latest row of a key, or an "age": it is ``log1p(elapsed /
        elapsed_scale)``.
        0 for other columns.
    neutral : float, default=0.0
        For a number that compares a row with those of its request: what it is of a row alone.
    grown_from : tuple of str, default=()
        Digests that the vocabulary had before ids were appended to it, the oldest first. Two
        fields that differ in nothing else are equal.

    Examples
    --------
    >>> Field("hist_item", "history", vocabulary="item", n_ids=12).is_history
    True
    """

    name: str
    kind: Kind
    vocabulary: str = ""
    n_ids: int = 0
    digest: str = ""
    candidate: str = ""
    n_dims: int = 0
    what: str = ""
    of: tuple[str, ...] = ()
    elapsed_scale: float = 0.0
    neutral: float = 0.0
    grown_from: tuple[str, ...] = dataclasses.field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, options in (("kind", get_args(Kind)), ("what", WHATS)):
            if (value := getattr(self, name)) not in options:
                raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}.")

    @property
    def level(self) -> Level | None:
        """Return what it says of what was known of a key or the latest rows; None: no level."""
        return LEVELS.get(self.what)

    @property
    def follows_labels(self) -> bool:
        """Return whether labels of earlier rows make it: a level, or the offset."""
        return self.what in OF_LABELS

    @property
    def is_history(self) -> bool:
        """Return whether a cell holds one value per event."""
        return self.kind in ("history", "list_history", "numeric_history")

    @property
    def holds_lists(self) -> bool:
        """Return whether each value is a list of ids, such as the genres of a film."""
        return self.kind in ("list", "list_history")

    @property
    def has_ids(self) -> bool:
        """Return whether the values are ids of a vocabulary."""
        return self.kind in ("categorical", "history") or self.holds_lists

    def is_prefix_of(self, other: Field) -> bool:
        """Return whether the other field is this one, or this one with ids appended."""
        if self == other:
            return True
        has_grown = self.digest in other.grown_from and self.n_ids < other.n_ids
        return has_grown and self == dataclasses.replace(
            other, n_ids=self.n_ids, digest=self.digest
        )


@dataclass(frozen=True)
class Behaviour:
    """Histories of the same events: one length, one attention.

    Parameters
    ----------
    name : str
        What people read: the histories' names, joined by "+". Not a key: a column may have the
        same name. What belongs to a behaviour is found by its ``histories``.
    histories : tuple of str
        Histories of ids, one for each attribute of the events (item, category).
    candidates : tuple of (str or None)
        The candidate column each history is compared with, None where there is none.
        A behaviour without any candidate is a bag: it is pooled.
    numbers : tuple of str, default=()
        Numeric histories of the same events (time elapsed, price paid).
    max_length : int, default=0
        Most events that a history keeps (the newest ones).

    Examples
    --------
    >>> Behaviour("tags", ("tags",), (None,)).is_bag
    True
    """

    name: str
    histories: tuple[str, ...]
    candidates: tuple[str | None, ...]
    numbers: tuple[str, ...] = ()
    max_length: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """All histories, of ids and of numbers."""
        return self.histories + self.numbers

    @property
    def candidate_of(self) -> dict[str, str | None]:
        """The candidate of each history of ids."""
        return dict(zip(self.histories, self.candidates, strict=True))

    @property
    def is_bag(self) -> bool:
        """Return whether no history has a candidate to be compared with."""
        return all(candidate is None for candidate in self.candidates)


@dataclass(frozen=True, repr=False)
class Schema:
    """Every field, and which histories form a behaviour.

    Parameters
    ----------
    fields : tuple of Field
        In the order of the output columns.
    behaviours : tuple of Behaviour, default=()
        Each history field belongs to exactly one.
    unused : tuple of str, default=()
        Columns of the frame of which no feature was made: dates, and histories that the user did
        not name.
    user : str, default=""
        Column that says whose each impression is, which is no feature; "" without one.
    item : str, default=""
        Column that identifies the item: the one named, or the guess at fit among those that a
        history is compared with; "" without one. Schemas that differ in it alone are equal.

    Examples
    --------
    >>> schema = Schema((Field("age", "numeric"), Field("item", "categorical", "item", 9)))
    >>> schema["item"].n_ids
    9
    >>> schema
    Schema of 2 fields
    field  kind    ids  compared with  behaviour
    age    number
    item   id        9
    """

    fields: tuple[Field, ...]
    behaviours: tuple[Behaviour, ...] = ()
    unused: tuple[str, ...] = ()
    user: str = ""
    item: str = dataclasses.field(default="", compare=False)

    def __getitem__(self, name: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"no field {name!r}; the fields are {[f.name for f in self.fields]}")

    def __repr__(self) -> str:
        n_fields, longest = f"{len(self.fields):,} fields", ""
        if self.behaviours:
            longest = f", {max(b.max_length for b in self.behaviours)} events at most"
        unused = f"; not used: {', '.join(self.unused)}" if self.unused else ""
        return f"Schema of {n_fields}{longest}{unused}\n{self.table()}"

    def table(self) -> str:
        """Return the fields as lines of text; of many, the histories and some others."""
        fields, more = self.fields, ""
        if len(fields) > MOST_ROWS:
            fields = tuple(sorted(fields, key=lambda field: not field.is_history))[: MOST_ROWS - 1]
            more = f"\n... and {len(self.fields) - len(fields)} more"
        header = ("field", "kind", "ids", "compared with", "behaviour")
        return text_table(header, [self._row(field) for field in fields], numbers=[2]) + more

    def _row(self, field: Field) -> tuple[str, ...]:
        n_ids, candidate, behaviour = f"{field.n_ids:,}" if field.has_ids else "", None, ""
        if field.is_history:
            events = self.behaviour_of(field.name)
            behaviour = self.display_name(events)
            candidate = events.candidate_of.get(field.name) or field.candidate
        return field.name, KINDS[field.kind], n_ids, candidate or "", behaviour

    @property
    def identity(self) -> str:
        """All that two equal schemas have in common, as text: for digests."""
        return repr((self.fields, self.behaviours, self.unused, self.user))

    def indicator_of(self, name: str) -> str:
        """Return the name of the field that is 1 where a number is missing; "" without one."""
        own = (f.name for f in self.fields if f.what == "missing" and f.of == (name,))
        return next(own, "")

    @property
    def offset(self) -> str:
        """Name of the field that a network may add to its logit; "" without one."""
        return next((field.name for field in self.fields if field.what == "offset"), "")

    def names(self, *kinds: Kind) -> list[str]:
        """Names of the fields of the given kinds, in order."""
        return [field.name for field in self.fields if field.kind in kinds]

    @property
    def vector_sizes(self) -> dict[str, int]:
        """Length of the fixed vectors of each vocabulary that has some."""
        return {field.vocabulary: field.n_dims for field in self.fields if field.n_dims}

    @property
    def vocabulary_sizes(self) -> dict[str, int]:
        """Number of ids of each vocabulary, padding and unknown included."""
        return {field.vocabulary: field.n_ids for field in self.fields if field.has_ids}

    @property
    def compared_sizes(self) -> dict[str, int]:
        """Number of ids of each column of single ids that a history is compared with."""
        single = self.names("categorical")
        names = [name for behaviour in self.behaviours for name in behaviour.candidates]
        return {name: self[name].n_ids for name in names if name in single}

    def behaviour_of(self, name: str) -> Behaviour:
        """Return the behaviour that the history field ``name`` belongs to."""
        for behaviour in self.behaviours:
            if name in behaviour.columns:
                return behaviour
        raise KeyError(f"no history {name!r} in the schema")

    def display_name(self, behaviour: Behaviour) -> str:
        """Return the text that tables and pictures show for a behaviour.

        It is the name, or where two share one (a column may be called ``a+b``) the histories in
        quotes.
        """
        names = {other.name for other in self.behaviours}
        if len(names) == len(self.behaviours):
            return behaviour.name
        return " + ".join(map(repr, behaviour.histories))

    def feature_names_out(self) -> list[str]:
        """Names of the columns of ``X.to_numpy()``: a history takes ``max_length`` of them."""
        names: list[str] = []
        for field in self.fields:
            if field.is_history:
                n_events = self.behaviour_of(field.name).max_length
                names.extend(f"{field.name}_{position}" for position in range(n_events))
            else:
                names.append(field.name)
        return names

    def is_prefix_of(self, other: Schema) -> bool:
        """Return whether the other schema is this one, or this one with ids appended."""
        pairs = zip(self.fields, other.fields, strict=False)
        return (
            dataclasses.replace(self, fields=other.fields) == other
            and len(self.fields) == len(other.fields)
            and all(mine.is_prefix_of(theirs) for mine, theirs in pairs)
        )

    def check(self) -> None:
        """Raise ValueError where fields and behaviours contradict each other."""
        by_name = {field.name: field for field in self.fields}
        if len(by_name) < len(self.fields):
            raise ValueError("each field of a schema must have a name of its own.")
        sizes: dict[str, tuple[int, str, tuple[str, ...], int]] = {}
        for field in self.fields:
            has_size = field.n_ids >= FIRST_KNOWN_ID  # a vocabulary's name may be ""
            has_none = field.n_ids == 0 and field.vocabulary == "" and not field.n_dims
            if not (has_size if field.has_ids else has_none) or field.n_dims < 0:
                raise ValueError(f"field {field.name!r:.60} cannot have {field.n_ids} ids.")
            size = (field.n_ids, field.digest, field.grown_from, field.n_dims)
            if field.has_ids and sizes.setdefault(field.vocabulary, size) != size:
                raise ValueError(f"fields disagree on the vocabulary {field.vocabulary!r:.60}.")
        histories: list[str] = []
        for behaviour in self.behaviours:
            _check_behaviour(behaviour, by_name)
            histories += behaviour.columns
        if sorted(histories) != sorted(field.name for field in self.fields if field.is_history):
            raise ValueError("each history field must belong to one behaviour.")

    def difference(self, other: Schema) -> str:
        """Describe what differs between two schemas; an empty string where nothing does."""
        mine = {field.name: field for field in self.fields}
        theirs = {field.name: field for field in other.fields}
        if mine.keys() != theirs.keys():
            return f"fields {sorted(mine)} against {sorted(theirs)}"
        for name, field in mine.items():
            for what in ("kind", "vocabulary", "n_dims", "n_ids", "digest"):
                ours, another = getattr(field, what), getattr(theirs[name], what)
                if ours != another:
                    return f"the {what} of {name!r} is {ours} in one and {another} in the other"
        if self != other:
            return f"behaviours {self.behaviours} against {other.behaviours}"
        return ""


def indicator(name: str) -> str:
    """Return the name of the field that is 1 where a number is missing."""
    return f"{name}_missing"


def _check_behaviour(behaviour: Behaviour, by_name: dict[str, Field]) -> None:
    """Raise ValueError where the fields of a behaviour are not as it says."""
    if len(behaviour.histories) != len(behaviour.candidates):
        raise ValueError("a behaviour needs a candidate, or None, for each history.")
    if behaviour.max_length < 0:
        raise ValueError(f"max_length must not be negative, got {behaviour.max_length}.")
    pairs = behaviour.candidate_of.items()
    of_lists = {name for name, field in by_name.items() if field.holds_lists}
    kinds = [(h, "list_history" if h in of_lists else "history") for h, _ in pairs]
    kinds += [(name, "numeric_history") for name in behaviour.numbers]
    kinds += [(c, "list" if h in of_lists else "categorical") for h, c in pairs if c is not None]
    for name, kind in kinds:
        if name not in by_name or by_name[name].kind != kind:
            raise ValueError(f"a behaviour needs a field {name!r:.60} of kind {kind}.")
    for history, candidate in pairs:
        if candidate is not None and by_name[history].vocabulary != by_name[candidate].vocabulary:
            raise ValueError(f"{history!r:.60} and its candidate must share a vocabulary.")
