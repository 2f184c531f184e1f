"""What a request is answered by: one model beside one catalogue and the log of what users did."""

from collections.abc import Container, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from sklearn_din.features.request_columns import neutral_numbers
from sklearn_din.features.schema import Behaviour, Schema
from sklearn_din.inspection.explain import explain
from sklearn_din.inspection.fitted import split_pipeline, unwrap
from sklearn_din.logs.history_builder import HistoryBuilder
from sklearn_din.server.histories import Event, Histories
from sklearn_din.server.items import Items
from sklearn_din.server.json_values import (
    Values,
    check_keys,
    check_spelling,
    plain,
    read_id,
    refuse_other_keys,
    write,
)
from sklearn_din.server.levels import Levels
from sklearn_din.serving.ranking import Ranker
from sklearn_din.training.early_stopping import CHECK, best_check
from sklearn_din.utils.keys import Keys

MAX_EVENTS = 1_000  # of each history in a request
REPORT_ROWS = 2_000
MOST_CHOICES = 50  # values of a user's column that the page offers

User = Values | str | int  # a value for each column, or an id of the histories
Exclude = Literal["history"] | list[Any] | None


class Answers:
    """What a request is answered by. Never changed: another model is another object.

    Rankings are those of a Ranker. A HistoryBuilder at the model's begin has the log.

    The ``model`` was fitted on a frame, or is of ``load_onnx``. The ``history`` is what users did,
    beside what a HistoryBuilder remembers. ``label`` is the one to rank by; of all candidates a
    ``shortlist`` of so many is scored where a request names none. Others are for :class:`Items`.
    """

    def __init__(
        self,
        model: Any,
        catalogue: pd.DataFrame,
        history: pd.DataFrame | None = None,
        *,
        label: str | None = None,
        shortlist: int | None = None,
        now: Literal["clock", "newest"] | None = None,
        **shown: Any,
    ) -> None:
        pipeline, calibrated = unwrap(model, purpose="serve")
        builder = _first_builder(pipeline)
        if builder is not None:
            pipeline = pipeline[1:]  # Ranker encodes users by themselves
        self._model = calibrated.around(pipeline)
        columns = [*getattr(pipeline, "feature_names_in_", ())]  # if there are none, Ranker raises
        if calibrated.model is not None and columns:
            self._model.feature_names_in_ = np.array(columns, dtype=object)
        self._fitted, self._label = split_pipeline(self._model, purpose="serve"), label
        self._encoder = self._fitted.encoder
        memory = builder if getattr(builder, "memory_", None) is not None else None
        self._memory = None if memory is None else memory.memory_
        compared = self._set_columns(columns, catalogue, memory)
        item = _find_item(catalogue, self._encoder)
        self.items = Items(catalogue, item, **shown)
        of_item = [name for name in dict.fromkeys([*self._needed, *compared]) if name in catalogue]
        options: Values = {"label": label, "shortlist": shortlist, "memory": memory}
        self._ranker = Ranker(self._model, self.items.frame[of_item], **options)
        behaviours = self._encoder.schema_.behaviours
        self.behaviour = next((b for b in behaviours if item in b.candidates), None)
        if builder is None and history is not None:
            builder = _builder_of(self._encoder, self.behaviour)
        self.histories = None if builder is None else Histories(builder, history, now=now)
        self.levels: Levels | None = None  # what came of rows, where the model has a memory
        if memory is not None and self.histories is not None:
            self.levels = Levels(memory, self.histories.clock)
        self._forgotten: Container[Any] = ()
        self._set_values(catalogue)
        self._set_figures(model)

    def _set_columns(
        self, names: list[str], catalogue: pd.DataFrame, memory: HistoryBuilder | None
    ) -> list[str]:
        """Find the columns that requests have; return those compared within a request.

        What compares a row with its request, the Ranker makes; elsewhere a row is alone.
        """
        schema, owner = self._encoder.schema_, self._encoder.user
        self._alone = neutral_numbers(schema, names)
        made = {*self._alone, *(() if self._memory is None else self._memory.names)}
        self.columns = [name for name in names if name not in made]
        self._needed = [name for name in self.columns if name not in self._encoder._optional]
        # A user must have a value for each of these; the user's id, where it has a level, may lack
        self.user_columns = [name for name in self._needed if name not in catalogue]
        user = owner if self._fitted.classifier.net_.reads_users else None
        user = user if memory is None else memory.user
        self.level_columns = [] if user is None else [user]
        self._read = [*self._needed, *self.level_columns]
        return [schema[name].of[0] for name in self._alone]

    def _set_values(self, catalogue: pd.DataFrame) -> None:
        """Find the columns that users and events may have, and values that the model knows."""
        encoder, log, vocabularies = self._encoder, self.histories, self._encoder.vocabularies_
        of_log = {} if log is None else log.sources
        self._asked = {*self.columns, *of_log, encoder.user, None if log is None else log.user}
        self._asked -= {None, encoder.time}  # an answer is as of now
        # By the histories that are compared with the item, the columns of an event that they hold
        sources = _event_columns(self.behaviour, encoder.schema_)
        self.event_columns = {name: of_log.get(name, source) for name, source in sources.items()}
        histories = {field.name for field in encoder.schema_.fields if field.is_history}
        names = [name for name in self.columns if name not in histories]
        values = {name: plain(vocabularies.get(name, [])[:MOST_CHOICES]) for name in names}
        # Other columns that an event may have, for a training to come, with values as at fit
        self.posted_columns: Values = {name: [] for name in catalogue} | {
            name: known[:1] for name, known in values.items()
        }
        self.choices = {n: values[n] for n in self.user_columns if values.get(n)}

    def _set_figures(self, model: Any) -> None:
        """Collect what the page shows of the model."""
        classifier = self._fitted.classifier
        self.calibration = self._fitted.calibration.method or None
        is_classifier = hasattr(classifier, "predict_proba")
        self.number = "probability" if is_classifier else "prediction"
        self._numbers = "probabilities" if is_classifier else "predictions"
        self.training: list[Values] = classifier.history_[list(CHECK)].to_dict("records")
        epochs = getattr(classifier.net_, "history", None)
        self.n_epochs = epochs and sum(not epoch.get("is_refit") for epoch in epochs)
        # On the rows that the classifier held out for itself; then what the main job keeps
        self.validation = best_check(getattr(classifier.net_, "checks_", ())) or {}
        self.figures: Values = {"scores": {}, "calibration": None, "negatives": None}
        self.figures |= getattr(model, "figures_", {})

    def forget(self, users: Container[Any]) -> None:
        """Leave users out of answers, whatever files have of them."""
        self._forgotten = users
        if self.histories is not None:
            self.histories.forgotten = users

    def rank(
        self,
        user: User,
        items: list[Any] | None,
        top_k: int,
        exclude: Exclude,
        whole: Values | None = None,
    ) -> Values:
        """Return the best items and their numbers; items of no catalogue are named.

        ``whole`` is the user as :meth:`read_user` returns it, where it was asked before.
        """
        rows = None if items is None else self.items.find(items)
        whole = self.read_user(user) if whole is None else whole
        best, numbers = self.best(whole, rows, top_k, exclude)
        if not best:
            raise ValueError("the user's history has every item. Leave exclude out.")
        ids = self.items.ids
        answer: Values = {"items": [ids[row] for row in best], self._numbers: numbers}
        unknown = [item for item in items or () if self.items.row_of(item) is None]
        if unknown:
            answer["unknown_items"] = unknown
        if self.histories is not None:
            owner = self.id_of(user)
            answer |= {} if owner is None else {"known": self.histories.n_of(owner) > 0}
        return answer

    def best(
        self, user: Values, rows: list[int] | None, top_k: int, exclude: Exclude
    ) -> tuple[list[int], list[float]]:
        """Return rows of the catalogue, the best first, and their numbers."""
        items = self.items
        only = None if rows is None else [items.ids[row] for row in rows]
        if isinstance(exclude, list):
            check_spelling(exclude, items.ids[:1], name="exclude")
        if self.levels is not None:
            self._ranker.memory = self.levels.builder
            user = {**user, self.levels.time: self.levels.at(self._now_of(user))}
        best = self._ranker.rank(user, top_k=top_k, only=only, exclude=exclude or None)
        ids = plain(best[items.item].tolist())
        return items.find(ids) if ids else [], best.iloc[:, -1].tolist()

    def similar(self, item: str, top_k: int) -> Values:
        """Return the items that go best with one, and how well: by the classifier's own tables."""
        (row,) = self.items.find([read_id(item, self.items.ids[0])])
        rows, scores = self._ranker.find_similar(row, top_k)
        shown = [self.items.show(row) for row in rows.tolist()]
        answer: Values = {f"{name}s": [item[name] for item in shown] for name in ("item", "title")}
        return answer | {"scores": scores.tolist()}

    def show(self, user: User, whole: Values, answer: Values) -> tuple[Any, list[str]]:
        """Return the id of who was shown an answer, and the store's columns of it but the request.

        Histories out of the log are no columns of a request: they can be attached again.
        """
        log = self.histories
        owner = self._encoder.user if log is None else log.user
        from_log = {*log.sources} - {*(user if isinstance(user, Mapping) else ())} if log else set()
        own = {n: v for n, v in whole.items() if n not in from_log and n != owner}
        now = datetime.now(UTC).isoformat()
        if log is not None:
            moment = log.now_of(whole.get(owner))
            now = log.clock.write(log.clock.show(moment), moment)
        of_items = [self.items.facts(row) for row in self.items.find(answer["items"])]
        columns = now, own, answer["items"], answer[self._numbers], of_items
        return whole.get(owner), [write(column) for column in columns]

    def predict(self, rows: list[Values]) -> dict[str, list[Any]]:
        """Return the number of each row, a user beside an item; of labels, of the one to rank."""
        whole = [self._with_item(self.read_user(row)) for row in rows]
        check_keys(whole, self._needed, what="a row")
        frame = self._frame(whole)
        if self.number == "prediction":
            return {self._numbers: self._model.predict(frame).tolist()}
        probability = self._model.predict_proba(frame)
        if self._label is not None:
            names = self._fitted.classifier.label_names_
            probability = probability[list(names).index(self._label)]
        return {self._numbers: probability[:, 1].tolist()}

    def read_user(self, user: User) -> Values:
        """Return a user with the histories and the columns that are known of the id."""
        log = self.histories
        if not isinstance(user, Mapping):
            if log is None:
                raise ValueError(
                    f"user is an id, {user!r:.40}, and this server has no log of events: start it "
                    f"with --history, or give the user's columns: {self.user_columns}."
                )
            user = {log.user: user}
        refuse_other_keys([user], sorted(self._asked), what="a user")
        for name, cell in user.items():
            if isinstance(cell, list) and len(cell) > MAX_EVENTS:
                raise ValueError(f"{name} may have {MAX_EVENTS} events, got {len(cell)}.")
            cells = cell if isinstance(cell, list) else [cell]
            if any(type(c) is bool for c in cells) and not self._holds_booleans(name):
                raise ValueError(f"{name} got true or false, which are neither 1 nor 0.")
        owner = self._encoder.user
        level = {owner: None} if owner in user and user[owner] in self._forgotten else {}
        if log is None or log.user not in user or any(name in user for name in log.sources):
            return {**user, **level}
        own, _ = log.of(user[log.user])
        names = [name for name in self.user_columns if name not in user and name not in own]
        known = {name: log.last_known(user[log.user], name) for name in names}
        return {**known, **own, **user, **level}

    def user_of_events(self, events: list[Values], context: Values) -> Values:
        """Return a user who did some events: what an event lacks, the catalogue has of its item."""
        names = [*self.user_columns, *self.level_columns]
        names = [name for name in names if name not in self.event_columns]
        refuse_other_keys(events, [*self.event_columns.values(), self.items.item], what="an event")
        refuse_other_keys([context], names, what="the context")
        whole = [self._with_item(event) for event in events]
        histories = {
            name: [event.get(source, 0 if source == name else None) for event in whole]
            for name, source in self.event_columns.items()
        }  # a time elapsed, which has its own name, is 0: just now
        return {**{name: context.get(name) for name in names}, **histories}

    def fill_events(self, events: list[Values]) -> list[Values]:
        """Return events of the log, completed by the columns of their items."""
        names = [] if self.histories is None else self.histories.columns
        whole = []
        for event in events:
            row = self.items.row_of(event.get(self.items.item))
            absent = [] if row is None else [name for name in names if name not in event]
            whole.append({**event, **self.items.row(row or 0, absent)})
        return whole

    def id_of(self, user: User) -> Any:
        """Return the id of a user, who may be given by columns; None: there is none."""
        owner = self._encoder.user if self.histories is None else self.histories.user
        return user.get(owner) if isinstance(user, Mapping) else user

    def knows(self, user: Any) -> bool:
        """Return whether files have events of a user, or levels, forgotten or not."""
        if self.histories is not None and user in self.histories.span_of:
            return True
        neighbours, memory = self._fitted.classifier.net_.neighbours_, self._memory
        known = [part.users for part in neighbours.parts if part.reads_users]
        mixture = getattr(self._fitted.classifier.net_, "mixture_", None)  # a file of ONNX has none
        known += [] if mixture is None else [mixture.users]
        if memory is not None and self._encoder.user in memory.columns:
            known.append(memory.hashes[memory.columns.index(self._encoder.user)])
        (key,) = Keys.read(pd.Series([user], dtype=object)).hashes
        return any(key in hashes for hashes in known)

    def note_posts(self, events: list[Event], given: list[Values]) -> Values:
        """Return of which posted items there is no catalogue, and from when on outcomes count."""
        items = [values.get(self.items.item) for values in given]
        unknown = [item for item in items if item is not None and self.items.row_of(item) is None]
        notes: Values = {"unknown_items": unknown} if unknown else {}
        log = self.histories
        if log is not None and self.levels is not None:
            now, newest = log.clock.now(), max(event.time for event in events)
            if newest >= now:  # for the users who posted, now is later
                notes |= {"counts_from": log.clock.show(newest), "now": log.clock.show(now)}
        return notes

    def explain(self, user: User, item: Any) -> Values:
        """Return an item's number for a user, what each event counts for it, and the levels."""
        whole = self.read_user(user)
        (row,) = self.items.find([item])
        number, reasons = self.best(whole, [row], 1, None)[1][0], self.reasons(whole, row)
        cells = [plain(whole.get(name)) or [] for name in self.event_columns]
        names = self.event_columns.values()
        events = [dict(zip(names, own, strict=True)) for own in zip(*cells, strict=True)]
        for name in ("weight", "effect"):
            values = reasons.pop(name) or []
            for event, value in zip(events[len(events) - len(values) :], values, strict=True):
                event[name] = value
        return {self.number: number, "events": events, **reasons}

    def reasons(self, user: Values, row: int) -> Values:
        """Return the weight and the effect of each event for an item of the catalogue.

        The oldest event comes first; those older than attention reads have none. Where a
        network has no weights, or several labels, ``notes`` says why. ``levels`` are what the
        memory knows of user and item, ``online`` what each adds to the online model's estimate.
        """
        pair = {**user, **self.items.row(row)}
        frame = self._frame([pair])
        reasons: Values = {"weight": None, "effect": None, "levels": [], "online": [], "notes": []}
        if self.levels is not None:
            now = self._now_of(pair)
            reasons["levels"] = self.levels.describe(pair, now)
            reasons["online"] = self.levels.describe_online(pair, now)
        for by, name in (("weight", "weight"), ("leave_out", "effect")):
            try:
                table = explain(self._model, frame, by=by)
            except ValueError as error:  # of a network without weights, or of several labels
                reasons["notes"].append(str(error))
                continue
            is_shown = table["behaviour"] == self._encoder.schema_.display_name(self.behaviour)
            reasons[name] = table.loc[is_shown, name].tolist()
        return reasons

    @cached_property
    def report(self) -> list[Values] | None:
        """How far the log's newest events are from the training rows, column by column.

        Of columns of the item no shift is told: events are of items that users chose.
        """
        if self.histories is None:
            return None
        rows = self.histories.rows(REPORT_ROWS)
        names = [name for name in self._encoder.feature_names_in_ if name not in rows]
        of_items = self.items.frame.set_index(self.items.item).reindex(columns=names)
        rows = rows.join(of_items.astype(object), on=self.items.item)
        table = self._encoder.report(rows).drop(index=names, errors="ignore")
        table.loc[table.index.isin(self.items.frame.columns), "shift"] = np.nan
        table.insert(0, "column", table.index)
        return [{n: plain(v) for n, v in row.items()} for row in table.to_dict("records")]

    def _frame(self, rows: list[Values]) -> pd.DataFrame:
        """Return users beside items as the model is given them, with their levels."""
        frame = pd.DataFrame(rows, columns=self._read, dtype=object).assign(**self._alone)
        if self.levels is None:
            return frame
        return frame.assign(**self.levels.of_rows(rows, [self._now_of(row) for row in rows]))

    def _now_of(self, user: Values) -> Any:
        log = self.histories
        return None if log is None else log.now_of(user.get(log.user))

    def _holds_booleans(self, name: str) -> bool:
        known = self._encoder.vocabularies_.get(name, ())
        return len(known) > 0 and isinstance(known[0], bool)

    def _with_item(self, values: Values) -> Values:
        """Return values with what the catalogue has of their item."""
        row = self.items.row_of(values.get(self.items.item))
        return {**({} if row is None else self.items.row(row)), **values}


def user_and_time(model: Any) -> tuple[str | None, str | None]:
    """Return the names of the columns by which a model's histories are made."""
    pipeline, _ = unwrap(model, purpose="serve")
    owner = _first_builder(pipeline) or split_pipeline(model, purpose="serve").encoder
    return owner.user, owner.time


def _find_item(catalogue: pd.DataFrame, encoder: Any) -> str:
    """Return the item column: that of fit, or where histories tell none, one of the catalogue."""
    schema, known = encoder.schema_, encoder.vocabularies_
    single = {name: schema[name].n_ids for name in schema.names("categorical")}
    largest = max((n for n in single if n in catalogue), key=single.__getitem__, default="")
    item = schema.item or largest
    if item not in catalogue:
        raise ValueError(
            "the catalogue must have the column of the items that the model was fitted on"
            f"{f', {item!r}' if item else ''}, got {list(catalogue.columns)}."
        )
    if item in known and not catalogue[item].isin(known[item]).any():
        raise ValueError(
            f"the model knows no item of the catalogue: {item!r} has values such as "
            f"{catalogue[item].tolist()[0]!r}, and the model such as {plain(known[item][0])!r}. Is "
            "the file of another catalogue, or are ids text in one of both?"
        )
    return item


def _first_builder(pipeline: Any) -> HistoryBuilder | None:
    first = pipeline[0] if isinstance(pipeline, Pipeline) else None
    return first if isinstance(first, HistoryBuilder) else None


def _event_columns(behaviour: Behaviour | None, schema: Schema) -> dict[str, str]:
    """Return the columns of an event that each history of a behaviour holds."""
    if behaviour is None:
        return {}
    candidates = behaviour.candidate_of
    return {name: candidates.get(name) or schema[name].of[0] for name in behaviour.columns}


def _builder_of(encoder: Any, behaviour: Behaviour | None) -> HistoryBuilder:
    """Return a builder of histories as long as those that an encoder was fitted on."""
    sources = _event_columns(behaviour, encoder.schema_)
    elapsed = [name for name in sources if encoder.schema_[name].of == (name,)]
    if not sources or encoder.user is None or encoder.time is None or len(elapsed) > 1:
        raise ValueError(
            "--history needs histories called hist_ and the column's name, and an encoder that "
            "knows the columns of user and time: HistorySequenceEncoder(user=..., time=...). Or "
            "fit a Pipeline that begins with a HistoryBuilder."
        )
    return HistoryBuilder(
        user=encoder.user,
        time=encoder.time,
        columns=[source for name, source in sources.items() if name not in elapsed],
        elapsed=elapsed[0] if elapsed else None,
        max_length=max(encoder.longest_history_, 1),
        events="all",
    )
