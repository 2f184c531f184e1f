"""Answers of a file that export_onnx wrote: torch is not imported."""

from pathlib import Path
from typing import Any

import pandas as pd

from sklearn_din.server.answers import Answers, find_item
from sklearn_din.server.items import Items
from sklearn_din.server.json_values import Values, plain
from sklearn_din.serving.onnx_server import OnnxServer


class OnnxAnswers(Answers):
    """Answers of an ONNX file of the layout "ranking".

    It does not say whose events are whose, so there is no log of histories: they come with each
    request.

    Parameters
    ----------
    path : path
        The file.
    catalogue : DataFrame of shape (n_items, ...)
        The columns of candidates, and others for people.
    label : str, default=None
        Of several labels, the one to rank by.
    **shown
        title, image and folder, as for :class:`Items`.
    """

    def __init__(
        self, path: Path, catalogue: pd.DataFrame, *, label: str | None = None, **shown: Any
    ) -> None:
        self._server, self._label = OnnxServer(path), label
        self._server.rank({}, [], label=label)  # another layout is refused
        columns = self._server.columns_
        self.user_columns = [name for name in columns if name not in catalogue]
        of_items = [name for name in columns if name in catalogue]
        self.event_columns = {f"hist_{n}": n for n in of_items if f"hist_{n}" in columns}
        known = self._server.n_known_
        compared = {name: known[name] for name in self.event_columns.values() if name in known}
        item = find_item(catalogue, compared or known)
        self.items = Items(catalogue, item, **shown)
        frame = self.items.frame
        self._columns = {name: plain(frame[name].tolist()) for name in of_items}
        self.number = "probability" if self._server.classes_ else "prediction"

    def best(
        self, user: Values, rows: list[int] | None, top_k: int, exclude: str | None
    ) -> tuple[list[int], list[float]]:
        """Return rows of the catalogue, the best first, and their numbers."""
        if exclude is not None:
            seen = {
                event
                for name, source in self.event_columns.items()
                if source == self.items.item
                for event in user.get(name) or []
            }
            rows = [*range(len(self.items))] if rows is None else rows
            rows = [row for row in rows if self.items.ids[row] not in seen]
        columns = self._columns
        if rows is not None:
            columns = {name: [cells[row] for row in rows] for name, cells in columns.items()}
        best, numbers = self._server.rank(user, columns, top_k=top_k, label=self._label)
        positions = best.tolist()
        return positions if rows is None else [rows[n] for n in positions], numbers.tolist()

    def predict_rows(self, rows: list[Values]) -> list[Any]:
        """Return the number of each row."""
        numbers = []
        for row in rows:
            item = {name: [row[name]] for name in self._columns if name in row}
            user = {name: cell for name, cell in row.items() if name not in item}
            _, of_row = self._server.rank(user, item, top_k=1, label=self._label)
            numbers += of_row.tolist()
        return numbers
