"""A drawing of the network as the data flow, as SVG text: for notebooks and the docs."""

from __future__ import annotations

import textwrap
from html import escape
from typing import NamedTuple

from sklearn.base import BaseEstimator

from sklearn_din.inspection.fitted import classifier_of
from sklearn_din.inspection.summary import layers_of, mlp_layers, n_parameters
from sklearn_din.module import DIN
from sklearn_din.network.interest import Interest

ROW, GAP, TOP = 62, 14, 12
COLUMNS = {"columns": (10, 176), "embeddings": (222, 140), "interest": (412, 196)}
JOIN, MLP, CLICK = (654, 74), (760, 128), (920, 70)
WIDTH = 1000
LINE_LENGTH = 26
TIMES = "\N{MULTIPLICATION SIGN}"
ARROW = " → "
NORMALIZATIONS = {None: [], "sqrt": ["÷ √length"], "softmax": ["softmax"]}
FILL = {
    "number": ("#f1f5f9", "#94a3b8"),
    "id": ("#f1f5f9", "#94a3b8"),
    "candidate": ("#dbeafe", "#3b82f6"),
    "history": ("#ffedd5", "#ea7a30"),
    "layer": ("#ffffff", "#64748b"),
}


def network_diagram(model: DIN | BaseEstimator) -> str:
    """Draw the network of a fitted model as the data flow.

    Notebooks show the drawing inside the classifier's box, also in a Pipeline. In a notebook,
    ``IPython.display.SVG(network_diagram(model))`` shows it alone; ``Path("net.svg").write_text``
    keeps it.

    Parameters
    ----------
    model : DINClassifier, Pipeline that ends in one, search over either, or DIN
        Fitted.

    Returns
    -------
    str
        An ``<svg>`` element. Data flow from the columns at the left, through embeddings and
        attention, to the probability of a click (or the number) at the right.

    Raises
    ------
    TypeError
        If there is no DINClassifier.
    NotFittedError
        If it is not fitted.

    Examples
    --------
    >>> from sklearn_din.features import Field, Schema
    >>> svg = network_diagram(DIN(Schema((Field("price", "numeric"),))))
    >>> svg[:4], svg[-6:], "price" in svg
    ('<svg', '</svg>', True)
    """
    if isinstance(model, DIN):
        return _Drawing(model, ["probability"]).svg()
    estimator = classifier_of(model, purpose="network_diagram")
    return _Drawing(estimator.module_, estimator._target.value_words).svg()


def drawing_in_a_box(model: BaseEstimator) -> str:
    """Return the drawing as HTML with a width of its own: scikit-learn's boxes fit their text."""
    style = f"width:min({WIDTH}px, 80vw);margin:0.5em"
    return f'<div class="sklearn-din-network" style="{style}">{network_diagram(model)}</div>'


class _Row(NamedTuple):
    """One line of data flow, from its columns to the join.

    ``interest`` is the module that a behaviour goes through, ``top`` the upper edge on the canvas.
    """

    kind: str
    title: str
    names: list[str]
    interest: Interest | None = None
    top: int = 0

    @property
    def middle(self) -> int:
        """Height at which data flow through the row."""
        return self.top + ROW // 2

    @property
    def is_attention(self) -> bool:
        """Return whether the candidate is led to this row."""
        return self.interest is not None and self.interest.pooling == "attention"


class _Drawing:
    """Lays out a row for numbers, other ids, candidates and each behaviour, in that order."""

    def __init__(self, module: DIN, result: list[str]) -> None:
        self.module, self.result = module, result
        self.shapes: list[str] = []
        rows = enumerate(_rows(module))
        self.rows = [row._replace(top=TOP + number * (ROW + GAP)) for number, row in rows]
        self.bottom = TOP + len(self.rows) * (ROW + GAP) - GAP

    def svg(self) -> str:
        """Return the whole drawing."""
        with_ids = [row for row in self.rows if row.kind != "number"]
        if with_ids:
            self._embeddings(with_ids)
        for row in self.rows:
            x, width = COLUMNS["columns"]
            names = ", ".join(row.names)
            lines = textwrap.wrap(names, LINE_LENGTH, max_lines=2, placeholder=" …")
            self._box(x, row.top, width, ROW, row.kind, [row.title, *lines])
            self._path_to_join(row)
        self._lead_candidate()
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

    def _embeddings(self, rows: list[_Row]) -> None:
        x, width = COLUMNS["embeddings"]
        top, bottom = rows[0].top, rows[-1].top + ROW
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
        for row in rows:
            self._arrow(self._end("columns"), row.middle, x)

    def _path_to_join(self, row: _Row) -> None:
        y = row.middle
        if row.interest is None:
            start = self._end("columns" if row.kind == "number" else "embeddings")
            self._arrow(start, y, JOIN[0])
            return
        x, width = COLUMNS["interest"]
        divisor = NORMALIZATIONS[row.interest.divisor]
        lines = [f"{row.interest.pooling} of the events", *divisor]
        if row.is_attention:
            unit = layers_of(row.interest.unit).text(ARROW)
            weighted = ", ".join([f"Σ weight {TIMES} event", *divisor])
            lines = ["attention to each event", unit, weighted]
        self._box(x, row.top, width, ROW, row.kind, lines)
        below_the_candidate = y + 16 if row.is_attention else y
        self._arrow(self._end("embeddings"), below_the_candidate, x)
        self._arrow(x + width, y, JOIN[0])

    def _lead_candidate(self) -> None:
        candidates = [row for row in self.rows if row.kind == "candidate"]
        attentions = [row for row in self.rows if row.is_attention]
        if not candidates or not attentions:
            return
        x, start = self._end("embeddings") + 24, candidates[0].middle
        colour = FILL["candidate"][1]
        for row in attentions:
            end = row.middle - 16
            self.shapes.append(
                f'<path d="M{x},{start} V{end} H{COLUMNS["interest"][0]}" fill="none" '
                f'stroke="{colour}" stroke-width="1.5" marker-end="url(#din-tip)"/>'
            )
        self.shapes.append(f'<circle cx="{x}" cy="{start}" r="3" fill="{colour}"/>')

    def _head(self) -> None:
        top, middle = TOP, (TOP + self.bottom) // 2
        layers = mlp_layers(self.module)
        n_inputs, *hidden, _ = layers.widths
        join = ["join", f"{n_inputs} wide"]
        self._box(JOIN[0], top, JOIN[1], self.bottom - top, "layer", join)
        mlp = ["MLP", ARROW.join(map(str, hidden)), layers.activation]
        self._box(MLP[0], middle - 32, MLP[1], 64, "layer", mlp)
        self._box(CLICK[0], middle - 32, CLICK[1], 64, "candidate", self.result)
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


def _rows(module: DIN) -> list[_Row]:
    """Numbers, ids that no history is compared with, candidates, and a row per behaviour."""
    schema = module.schema
    compared = {candidate for b in schema.behaviours for candidate in b.candidates}
    numbers, ids = schema.names("numeric"), schema.names("categorical", "list")
    others = [name for name in ids if name not in compared]
    rows = [
        _Row("number", f"numbers ({len(numbers)})", numbers),
        _Row("id", f"other ids ({len(others)})", others),
        _Row("candidate", "candidate", [name for name in ids if name in compared]),
    ]
    for interest in module.interest_modules:
        behaviour = interest.behaviour
        title = "bag" if behaviour.is_bag else f"history, newest {schema.max_length}"
        names = [*behaviour.histories, *behaviour.numbers]
        rows.append(_Row("history", title, names, interest))
    return [row for row in rows if row.names]


def _cut(name: str, longest: int) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
