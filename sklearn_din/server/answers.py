"""What a request is answered by: one model beside one catalogue and the log of what users did."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import pandas as pd

from sklearn_din.features.schema import item_column
from sklearn_din.server.histories import Histories
from sklearn_din.server.items import Items
from sklearn_din.server.json_values import Values

MAX_EVENTS = 1_000  # of each history in a request

User = Values | str | int  # a value for each column, or an id of the histories


class Answers(ABC):
    """What a request is answered by. Never changed: another model is another object.

    Attributes
    ----------
    items : Items
        The catalogue.
    histories : Histories or None
        What users did, where a log is known.
    user_columns : list of str
        What a user needs a value for.
    event_columns : dict of str to str
        Histories that are compared with the item, and the columns of an event that they hold.
    choices : dict of str to list
        Values that the model knows of columns of a user.
    number : {"probability", "prediction"}
        What the model says of a pair.
    training : list of dict
        The checks of the training.
    report : list of dict or None
        How far the log's newest events are from the training rows, column by column.
    """

    items: Items
    histories: Histories | None = None
    user_columns: list[str]
    event_columns: dict[str, str]
    choices: Mapping[str, list[Any]] = {}
    number = "probability"
    has_reasons = False
    training: list[Values] = []
    calibration: str | None = None
    report: list[Values] | None = None

    @abstractmethod
    def best(
        self, user: Values, rows: list[int] | None, top_k: int, exclude: str | None
    ) -> tuple[list[int], list[float]]:
        """Return rows of the catalogue, the best first, and their numbers."""

    @abstractmethod
    def predict_rows(self, rows: list[Values]) -> list[Any]:
        """Return the number of each row."""

    def rank(
        self, user: User, items: list[Any] | None, top_k: int, exclude: str | None
    ) -> dict[str, list[Any]]:
        """Return the best items and their numbers; items of no catalogue are left out."""
        rows = None if items is None else self.items.find(items)
        best, numbers = self.best(self.read_user(user), rows, top_k, exclude)
        if not best:
            raise ValueError("the user's history has every item. Leave exclude out.")
        ids = self.items.ids
        return {"items": [ids[row] for row in best], self.plural: numbers}

    def predict(self, rows: list[Values]) -> dict[str, list[Any]]:
        """Return the number of each row: a user beside an item of the catalogue."""
        whole = [self._with_item(self.read_user(row)) for row in rows]
        return {self.plural: self.predict_rows(whole)}

    @property
    def plural(self) -> str:
        """The key of an answer's numbers."""
        return {"probability": "probabilities", "prediction": "predictions"}[self.number]

    def read_user(self, user: User) -> Values:
        """Return a user with the histories and the columns that are known of the id."""
        log = self.histories
        if not isinstance(user, Mapping):
            if log is None:
                raise ValueError(
                    f"user as an id, {user!r:.40}, needs a log of what users did: start the server "
                    f"with --history. Or give the user's columns: {self.user_columns}."
                )
            user = {log.user: user}
        for name, cell in user.items():
            if isinstance(cell, list) and len(cell) > MAX_EVENTS:
                raise ValueError(f"{name} may have {MAX_EVENTS} events, got {len(cell)}.")
        if log is None or log.user not in user or any(name in user for name in log.sources):
            return user
        own, _ = log.of(user[log.user])
        names = [name for name in self.user_columns if name not in user and name not in own]
        known = {name: log.last_known(user[log.user], name) for name in names}
        return {**known, **own, **user}

    def user_of_events(self, events: list[Values], context: Values) -> Values:
        """Return a user who did some events: what an event lacks, the catalogue has of its item."""
        whole = [self._with_item(event) for event in events]
        histories = {
            name: [event.get(source, 0 if source == name else None) for event in whole]
            for name, source in self.event_columns.items()
        }  # a time elapsed, which has its own name, is 0: just now
        others = {name: context.get(name) for name in self.user_columns if name not in histories}
        return {**others, **histories}

    def fill_events(self, events: list[Values]) -> list[Values]:
        """Return events of the log: what one lacks beside user and time is that of its item."""
        columns = [] if self.histories is None else self.histories.columns
        items = [self._with_item(event) for event in events]
        return [
            {**{name: item[name] for name in columns if name in item}, **event}
            for item, event in zip(items, events, strict=True)
        ]

    def example_user(self) -> Values:
        """Return a user for the documentation."""
        items = [{self.items.item: item} for item in self.items.ids[:3]]
        return self.user_of_events(items, {name: known[0] for name, known in self.choices.items()})

    def reasons(self, user: Values, row: int) -> dict[str, list[float] | None]:
        """Return the weight and the effect of each event for an item of the catalogue."""
        raise ValueError("a file of ONNX tells no reasons. Serve the Pipeline that save wrote.")

    def _with_item(self, values: Values) -> Values:
        """Return values with what the catalogue has of their item."""
        row = self.items.row_of(values.get(self.items.item))
        return {**({} if row is None else self.items.row(row)), **values}


def find_item(catalogue: pd.DataFrame, n_ids: Mapping[str, int]) -> str:
    """Return the catalogue's column of items: of some, the one whose ids the model knows most of.

    ``n_ids`` says of each column how many the model knows.
    """
    item = item_column(n_ids, catalogue.columns)
    if item is None:
        raise ValueError(
            "the catalogue must have the column of the items that the model was fitted on, got "
            f"{list(catalogue.columns)}."
        )
    return item
