"""The rows of a catalogue: ids, titles and pictures, found by id or by text."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sklearn_din.server.json_values import Values, check_spelling, plain, read_id
from sklearn_din.utils.validation import check_frame

MOST_FACTS = 3  # columns of an item that people see, beside its id
PICTURES = (".avif", ".gif", ".jpeg", ".jpg", ".png", ".webp")  # no SVG: it may hold scripts


class Items:
    """What may be ranked, each item once.

    ``item`` is the column that tells items from each other, ``title`` that of names that people
    know, ``image`` that of files of pictures, none of them outside ``folder``.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        item: str,
        *,
        title: str | None = None,
        image: str | None = None,
        folder: Path = Path(),
    ) -> None:
        check_frame(frame, [name for name in (item, title, image) if name], name="the catalogue")
        self.item, self.folder = item, folder.resolve()
        self.frame = frame.dropna(subset=[item]).drop_duplicates(item).reset_index(drop=True)
        self.ids = [plain(value) for value in self.frame[item].tolist()]
        self._rows = {value: row for row, value in enumerate(self.ids)}
        self._others = [name for name in self.frame if name not in (item, title, image)]
        self._facts = ([] if title is None else [item]) + self._others[:MOST_FACTS]
        titles, ids = self.frame[title or item], self.frame[item].astype(str)
        is_empty = titles.isna() | (titles.astype(str).str.strip() == "")
        self._titles = titles.astype(object).mask(is_empty, ids).astype(str)
        self._texts = (self._titles + "\n" + ids).str.lower()
        self._images = None if image is None else self.frame[image]
        if self._images is not None:
            outside = self._images.astype(str).str.contains("://", regex=False)
            if outside.any():
                raise ValueError(
                    f"--image {image} must hold files beside the catalogue, got "
                    f"{self._images[outside].iloc[0]!r:.60}: the page loads nothing from elsewhere."
                )

    def __len__(self) -> int:
        return len(self.ids)

    def row_of(self, item: Any) -> int | None:
        """Return the row of an item; None where the catalogue has none."""
        return self._rows.get(item) if isinstance(item, str | int) else None

    def find(self, items: list[Any]) -> list[int]:
        """Return the rows of items, those of the catalogue; raise where it has none of them."""
        check_spelling(items, self.ids[:1], name="items")
        rows = [self._rows[item] for item in dict.fromkeys(items) if item in self._rows]
        if not rows:
            raise ValueError(
                f"no item of the request is in the catalogue, got {list(items[:5])!r}; its items "
                f"are such as {self.ids[0]!r}. Leave items out to rank all of them."
            )
        return rows

    def row(self, row: int, names: Collection[str] | None = None) -> Values:
        """Return the columns of an item; of some names those that the catalogue has."""
        own = self.frame.columns if names is None else [n for n in names if n in self.frame]
        return {str(name): plain(self.frame[name].iloc[row]) for name in own}

    def facts(self, row: int) -> Values:
        """Return the columns of an item but its id, title and picture."""
        return {name: value for name, value in self.row(row).items() if name in self._others}

    def search(self, text: str, n: int) -> list[Values]:
        """Return items whose title or id contains a text, first the one whose id it is."""
        is_hit = self._texts.str.contains(text.lower(), regex=False)
        exact = self.row_of(read_id(text, self.ids[0]))
        rows = ([] if exact is None else [exact]) + np.flatnonzero(is_hit)[:n].tolist()
        return [self.show(row) for row in [*dict.fromkeys(rows)][:n]]

    def show(self, row: int) -> Values:
        """Return what people see of an item."""
        image = None if self.picture(row) is None else f"page/image/{row}"
        facts = {name: plain(self.frame[name].iloc[row]) for name in self._facts}
        about = ", ".join(f"{name} {v!s:.40}" for name, v in facts.items() if v is not None)
        shown = {"title": self._titles.iloc[row], "about": about, "image": image}
        return {"item": self.ids[row], **shown}

    def show_id(self, item: Any) -> Values:
        """Return what people see of an id, which need not be in the catalogue."""
        row = self.row_of(item)
        unknown = {"item": item, "title": str(item), "about": "", "image": None}
        return unknown if row is None else self.show(row)

    def picture(self, row: int) -> Path | None:
        """Return the file of an item's picture, where there is one within the folder."""
        if self._images is None or not isinstance(self._images.iloc[row], str):
            return None
        path = (self.folder / self._images.iloc[row]).resolve()
        is_shown = path.is_relative_to(self.folder) and path.suffix.lower() in PICTURES
        return path if is_shown and path.is_file() else None
