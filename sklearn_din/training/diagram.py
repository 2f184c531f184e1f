"""A diagram of the network's data flow, as HTML: for notebooks and the docs."""

import textwrap
from html import escape
from typing import Any

from sklearn.utils.validation import check_is_fitted

from sklearn_din.module import DIN
from sklearn_din.network.interest import Interest
from sklearn_din.training.summary import layers_of, mlp_layers

LINE_LENGTH = 26
MOST_LINES = 4  # of embedding tables in one box
TIMES = "\N{MULTIPLICATION SIGN}"
ARROW = " → "
NORMALIZATIONS = {None: [], "sqrt": ["÷ √length"], "softmax": ["softmax"]}
COLOURS = {  # background and border
    "id": ("#f1f5f9", "#94a3b8"),
    "candidate": ("#dbeafe", "#3b82f6"),
    "history": ("#ffedd5", "#ea7a30"),
    "layer": ("#ffffff", "#64748b"),
}


def network_diagram(model: Any) -> str:
    """Draw the network of a fitted model as the data flow.

    Notebooks show the drawing inside the classifier's box, also in a Pipeline. In a notebook,
    ``IPython.display.HTML(network_diagram(model))`` shows it alone; ``Path("net.html").write_text``
    keeps it.

    Parameters
    ----------
    model : DINClassifier, DINRegressor or DIN
        Fitted. Of a Pipeline, its last step.

    Returns
    -------
    str
        A ``<div>`` element. Data flow from the columns at the left, through embeddings and
        attention, to the probability of a click (or the number) at the right.

    Examples
    --------
    >>> from sklearn_din.features import Field, Schema
    >>> drawing = network_diagram(DIN(Schema((Field("price", "numeric"),))))
    >>> drawing[:4], drawing[-6:], "price" in drawing
    ('<div', '</div>', True)
    """
    module, result = model, ["probability"]
    if not isinstance(module, DIN):
        if not hasattr(model, "attention_weights"):
            raise TypeError(
                "network_diagram needs a DINClassifier, a DINRegressor or a DIN, got "
                f"{type(model).__name__}. Of a Pipeline give the last step, pipeline[-1]."
            )
        check_is_fitted(model, "module_")
        module, result = model.module_, model._target.value_words
    layers = mlp_layers(module)
    n_inputs, *hidden, _ = layers.widths
    mlp = ["MLP", ARROW.join(map(str, hidden)), layers.activation]
    boxes = [_box("layer", "join", f"{n_inputs} wide"), _box("layer", *mlp)]
    boxes.append(_box("candidate", *result))
    style = "color:#0f172a;background:#ffffff;font:12px sans-serif;width:max-content;padding:8px"
    flow = _flow([f"<div>{''.join(_rows(module))}</div>", *boxes])
    return f'<div class="sklearn-din-network" style="{style}">{flow}</div>'


def _rows(module: DIN) -> list[str]:
    """Numbers, ids that no history is compared with, candidates, and a row per behaviour."""
    schema = module.schema
    compared = {candidate for b in schema.behaviours for candidate in b.candidates}
    numbers, ids = schema.names("numeric"), schema.names("categorical", "list")
    others = [name for name in ids if name not in compared]
    candidates = [name for name in ids if name in compared]
    rows = [_flow([_names("id", f"numbers ({len(numbers)})", numbers)])] if numbers else []
    for kind, title, names in (
        ("id", f"other ids ({len(others)})", others),
        ("candidate", "candidate", candidates),
    ):
        if names:
            rows.append(_flow([_names(kind, title, names), _embeddings(module, names)]))
    for interest in module.interest_modules:
        behaviour = interest.behaviour
        title = "bag" if behaviour.is_bag else f"history, newest {schema.max_length}"
        columns = _names("history", title, [*behaviour.histories, *behaviour.numbers])
        rows.append(_flow([columns, _embeddings(module, behaviour.histories), _interest(interest)]))
    return rows


def _names(kind: str, title: str, names: list[str]) -> str:
    lines = textwrap.wrap(", ".join(names), LINE_LENGTH, max_lines=2, placeholder=" …")
    return _box(kind, title, *lines)


def _embeddings(module: DIN, names: list[str] | tuple[str, ...]) -> str:
    """Return the box of the tables in which columns are looked up: ids and width of each."""
    owners = list(dict.fromkeys(module.schema[name].vocabulary for name in names))
    shown = owners if len(owners) <= MOST_LINES else owners[: MOST_LINES - 1]
    sizes, widths = module.embeddings.sizes, module.embeddings.width_of
    lines = [f"{owner} {sizes[owner]:,} {TIMES} {widths[owner]}" for owner in shown]
    lines += [f"and {len(owners) - len(shown)} more"] if len(owners) > len(shown) else []
    return _box("layer", "embeddings", *lines)


def _interest(interest: Interest) -> str:
    divisor = NORMALIZATIONS[interest.divisor]
    lines = [f"{interest.pooling} of the events", *divisor]
    if interest.pooling == "attention":
        unit = layers_of(interest.unit).text(ARROW)
        weighted = ", ".join([f"Σ weight {TIMES} event", *divisor])
        lines = ["attention to each event", f"for the candidate: {unit}", weighted]
    return _box("history", *lines)


def _box(kind: str, title: str, *lines: str) -> str:
    fill, border = COLOURS[kind]
    style = f"background:{fill};border:1px solid {border};border-radius:6px;padding:4px 8px"
    shown = "".join(f"<br/><small>{escape(line)}</small>" for line in lines if line)
    return f'<div style="{style};text-align:center"><b>{escape(title)}</b>{shown}</div>'


def _flow(boxes: list[str]) -> str:
    style = "display:flex;align-items:center;gap:6px;margin:4px 0"
    return f'<div style="{style}">{f"<i>{ARROW}</i>".join(boxes)}</div>'
