"""How a notebook shows our estimators: a link to their documentation, and what is ours to add."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, metadata

from sklearn.base import BaseEstimator

from sklearn_din._compat import _VisualBlock

DISTRIBUTION = "sklearn-din"
DOCUMENTATION = {"docs", "documentation"}  # labels that PyPI takes for a link to documentation


# scikit-learn lists a transformer's output features under its box: for each history that would be
# ``max_length`` names. The encoder's box says instead how many columns it encodes.
HIDE_FEATURES = (
    '<span class="sklearn-din-encoder"></span>'
    "<style>.sk-item:has(.sklearn-din-encoder) + .features { display: none }</style>"
)


class ShownInNotebooks(BaseEstimator):
    """An estimator whose box in scikit-learn's HTML has a link and may hold more.

    The "?" opens the estimator's page of the documentation that ``[project.urls]`` names. Where
    it names none, there is no "?".
    """

    _doc_link_module = "sklearn_din"

    @property
    def _doc_link_template(self) -> str:
        root = documentation_url()
        return f"{root}/generated/sklearn_din.{{estimator_name}}.html" if root else ""

    def _html_addition(self) -> str:
        """HTML to show below the table of parameters."""
        return ""

    def _get_params_html(self, *args: object, **kwargs: object) -> object:
        # scikit-learn writes what this returns into the box, also inside a Pipeline's
        table = super()._get_params_html(*args, **kwargs)
        html = table._html_repr
        table._html_repr = lambda: html() + self._html_addition()
        return table


class EncoderInNotebooks(ShownInNotebooks):
    """A transformer that says how many columns it encodes."""

    def _sk_visual_block_(self) -> _VisualBlock:
        name = type(self).__name__
        caption = _columns_text(self) if self._has_histories() else None
        return _VisualBlock(
            "single", self, names=name, name_details=str(self), name_caption=caption
        )

    def _html_addition(self) -> str:
        return HIDE_FEATURES if self._has_histories() else ""

    def _has_histories(self) -> bool:
        schema = getattr(self, "schema_", None)
        return schema is not None and bool(schema.behaviours)


def _columns_text(encoder: BaseEstimator) -> str:
    schema = encoder.schema_
    columns = "column" if len(schema.fields) == 1 else "columns"
    return f"{len(schema.fields)} {columns}, histories of up to {schema.max_length} events"


@cache
def documentation_url() -> str:
    """Address of the documentation in the package's own metadata; empty where there is none."""
    try:
        urls = metadata(DISTRIBUTION).get_all("Project-URL") or []
    except PackageNotFoundError:  # a checkout that is not installed
        return ""
    for entry in urls:
        label, _, address = entry.partition(",")
        if label.strip().lower() in DOCUMENTATION:
            return address.strip().rstrip("/")
    return ""
