"""A drawing of the network as the data flow, as SVG text: for notebooks and the docs."""

from __future__ import annotations

from html import escape
from typing import Any

from sklearn_din.inspection.summary import interest_text, layers_text, n_parameters, part_sizes
from sklearn_din.module import DIN

ROW, GAP, TOP = 62, 14, 12
COLUMNS = {"columns": (10, 176), "embeddings": (222, 140), "interest": (412, 196)}
JOIN, MLP, CLICK = (654, 74), (760, 128), (920, 70)
WIDTH = 1000
LINE_LENGTH = 26
TIMES = "\N{MULTIPLICATION SIGN}"
FILL = {
    "number": ("#f1f5f9", "#94a3b8"),
    "id": ("#f1f5f9", "#94a3b8"),
    "candidate": ("#dbeafe", "#3b82f6"),
    "history": ("#ffedd5", "#ea7a30"),
    "layer": ("#ffffff", "#64748b"),
}


def network_diagram(module: DIN) -> str:
    """Draw the network of a fitted classifier: ``network_diagram(classifier.module_)``.

    Parameters
    ----------
    module : DIN

    Returns
    -------
    str
        An ``<svg>`` element. Data flow from the columns at the left, through embeddings and
        attention, to the probability of a click at the right.

    Examples
    --------
    >>> from sklearn_din.features import Field, Schema
    >>> svg = network_diagram(DIN(Schema((Field("price", "numeric"),))))
    >>> svg[:4], svg[-6:], "price" in svg
    ('<svg', '</svg>', True)
    """
    return _Drawing(module).svg()


class _Drawing:
    """Lays out a row for numbers, other ids, candidates and each behaviour, in that order."""

    def __init__(self, module: DIN) -> None:
        self.module = module
        self.shapes: list[str] = []
        self.rows = _rows(module)
        self.bottom = TOP + len(self.rows) * (ROW + GAP) - GAP

    def svg(self) -> str:
        """Return the whole drawing."""
        with_ids = [place for place, row in enumerate(self.rows) if row[0] != "number"]
        if with_ids:
            self._embeddings(with_ids)
        for place, (kind, title, names, interest) in enumerate(self.rows):
            self._column_box(place, kind, title, names)
            self._path_to_join(place, kind, interest)
        self._attended()
        self._head()
        height = self.bottom + TOP
        title = f"Network of {n_parameters(self.module):,} parameters, as the data flow"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'style="max-width:{WIDTH}px;width:100%;font-family:sans-serif;font-size:12px">'
            f"<title>{title}</title>"
            '<defs><marker id="din-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#64748b"/></marker>'
            f'</defs><rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
            f"{''.join(self.shapes)}</svg>"
        )

    def _column_box(self, place: int, kind: str, title: str, names: list[str]) -> None:
        x, width = COLUMNS["columns"]
        self._box(x, self._y(place), width, ROW, kind, [title, *_two_lines(names)])

    def _embeddings(self, places: list[int]) -> None:
        x, width = COLUMNS["embeddings"]
        top, bottom = self._y(places[0]), self._y(places[-1]) + ROW
        sizes = self.module.embeddings.sizes
        room = max(1, (bottom - top - 34) // 15)
        names = list(sizes)
        shown = names if len(names) <= room else names[: room - 1]
        lines = [
            f"{_cut(n, 12)} {sizes[n]:,} {TIMES} {self.module.embeddings.width_of[n]}"
            for n in shown
        ]
        lines += [f"and {len(names) - len(shown)} more"] if len(names) > len(shown) else []
        self._box(x, top, width, bottom - top, "layer", ["embeddings", *lines])
        for place in places:
            self._arrow(self._end("columns"), self._middle(place), x)

    def _path_to_join(self, place: int, kind: str, interest: Any) -> None:
        y = self._middle(place)
        if interest is None:
            start = self._end("columns" if kind == "number" else "embeddings")
            self._arrow(start, y, JOIN[0])
            return
        x, width = COLUMNS["interest"]
        text, *more = interest_text(interest).split(", ")
        if interest.pooling == "attention":
            widths = layers_text(interest.unit).replace("->", "→")
            lines = [
                "attention to each event",
                widths,
                ", ".join([f"Σ weight {TIMES} event", *more]),
            ]
        else:
            lines = [f"{text} of the events", *more]
        self._box(x, self._y(place), width, ROW, kind, [_pretty(line) for line in lines])
        low = y + 16 if not interest.behaviour.is_bag and text == "attention" else y
        self._arrow(self._end("embeddings"), low, x)
        self._arrow(x + width, y, JOIN[0])

    def _attended(self) -> None:
        """Lead the candidate to every attention."""
        kinds = [row[0] for row in self.rows]
        attentions = [
            place
            for place, row in enumerate(self.rows)
            if row[3] is not None and row[3].pooling == "attention"
        ]
        if "candidate" not in kinds or not attentions:
            return
        x, start = self._end("embeddings") + 24, self._middle(kinds.index("candidate"))
        colour = FILL["candidate"][1]
        for place in attentions:
            end = self._middle(place) - 16
            self.shapes.append(
                f'<path d="M{x},{start} V{end} H{COLUMNS["interest"][0]}" fill="none" '
                f'stroke="{colour}" stroke-width="1.5" marker-end="url(#din-tip)"/>'
            )
        self.shapes.append(f'<circle cx="{x}" cy="{start}" r="3" fill="{colour}"/>')

    def _head(self) -> None:
        top, middle = self._y(0), (self._y(0) + self.bottom) // 2
        _, layers, _ = part_sizes(self.module)[-1]
        widths, _, activation = layers.partition(" (")
        n_inputs, *hidden = widths.split(" -> ")[:-1]
        self._box(JOIN[0], top, JOIN[1], self.bottom - top, "layer", ["join", f"{n_inputs} wide"])
        self._box(
            MLP[0],
            middle - 32,
            MLP[1],
            64,
            "layer",
            ["MLP", " → ".join(hidden), activation.rstrip(")")],
        )
        self._box(CLICK[0], middle - 32, CLICK[1], 64, "candidate", ["click", "probability"])
        self._arrow(JOIN[0] + JOIN[1], middle, MLP[0])
        self._arrow(MLP[0] + MLP[1], middle, CLICK[0])

    def _box(self, x: int, y: int, width: int, height: int, kind: str, lines: list[str]) -> None:
        fill, stroke = FILL[kind]
        lines = [line for line in lines if line]
        self.shapes.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" '
            f'stroke="{stroke}"/>'
        )
        first = y + height / 2 - 7.5 * (len(lines) - 1) + 4
        for number, line in enumerate(lines):
            weight = ' font-weight="bold"' if number == 0 else ' font-size="11"'
            self.shapes.append(
                f'<text x="{x + width / 2:g}" y="{first + 15 * number:g}" text-anchor="middle" '
                f'fill="#0f172a"{weight}>{escape(line)}</text>'
            )

    def _arrow(self, x: int, y: int, end: int) -> None:
        self.shapes.append(
            f'<path d="M{x},{y} H{end}" stroke="#64748b" stroke-width="1.2" '
            'marker-end="url(#din-tip)"/>'
        )

    def _end(self, column: str) -> int:
        x, width = COLUMNS[column]
        return x + width

    def _y(self, place: int) -> int:
        return TOP + place * (ROW + GAP)

    def _middle(self, place: int) -> int:
        return self._y(place) + ROW // 2


def _rows(module: DIN) -> list[tuple[str, str, list[str], Any]]:
    """Kind, title, column names and, for a behaviour, its interest module."""
    schema = module.schema
    shown = {candidate for b in schema.behaviours for candidate in b.candidates}
    ids = schema.names("categorical")
    candidates = [name for name in ids if name in shown]
    others = [name for name in ids if name not in shown]
    rows: list[tuple[str, str, list[str], Any]] = [
        ("number", "numbers", schema.names("numeric"), None),
        ("id", "other ids", others, None),
        ("candidate", "candidate", candidates, None),
    ]
    interests: Any = module.interests
    for interest in interests:
        behaviour = interest.behaviour
        title = "bag" if behaviour.is_bag else f"history, newest {schema.max_length}"
        rows.append(("history", title, [*behaviour.histories, *behaviour.numbers], interest))
    return [row for row in rows if row[2]]


def _two_lines(names: list[str]) -> list[str]:
    """As many names as two lines take, and how many more there are."""
    for n_shown in range(len(names), 0, -1):
        lines = [""]
        n_more = len(names) - n_shown
        for name in [*names[:n_shown], *([f"+{n_more} more"] if n_more else [])]:
            name = _cut(name, LINE_LENGTH)
            joined = f"{lines[-1]}, {name}".removeprefix(", ")
            if len(joined) <= LINE_LENGTH:
                lines[-1] = joined
            else:
                lines.append(name)
        if len(lines) <= 2:
            break
    return lines


def _cut(name: str, longest: int) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _pretty(text: str) -> str:
    return text.replace("/ sqrt(length)", "÷ √length")
