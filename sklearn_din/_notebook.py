"""The link to the documentation in the box that notebooks show of our estimators.

scikit-learn documents the two attributes for estimators of other packages ("Developer API for HTML
representation").
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, metadata

from sklearn.base import BaseEstimator

DISTRIBUTION = "sklearn-din"
DOCUMENTATION = {"docs", "documentation"}  # labels that PyPI takes for a link to documentation


class ShownInNotebooks(BaseEstimator):
    """An estimator whose box in scikit-learn's HTML links to its page of the documentation.

    The address is the one that ``[project.urls]`` names. Where it names none, there is no link.
    """

    _doc_link_module = "sklearn_din"

    @property
    def _doc_link_template(self) -> str:
        root = documentation_url()
        return f"{root}/generated/sklearn_din.{{estimator_name}}.html" if root else ""


@cache
def documentation_url() -> str:
    """Return the documentation's address in the package's metadata; empty where there is none."""
    try:
        urls = metadata(DISTRIBUTION).get_all("Project-URL") or []
    except PackageNotFoundError:  # a checkout that is not installed
        return ""
    for entry in urls:
        label, _, address = entry.partition(",")
        if label.strip().lower() in DOCUMENTATION:
            return address.strip().rstrip("/")
    return ""
