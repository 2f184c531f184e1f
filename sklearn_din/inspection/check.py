"""check: what is wrong with impressions, before anything is trained on them."""

import textwrap
from collections.abc import Iterator

import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length

from sklearn_din.training.inputs import warn_of_flip
from sklearn_din.training.leaks import CHECKS
from sklearn_din.transformers import HistorySequenceEncoder
from sklearn_din.utils.frames import CallerFrame
from sklearn_din.utils.page_rows import note_pages
from sklearn_din.utils.row_labels import check_row_labels
from sklearn_din.utils.scan import Scan
from sklearn_din.utils.validation import check_columns, plain_values
from sklearn_din.utils.warnings import Finding, collect_messages

CHECKED_ROWS = 200_000
NOTHING = "nothing found"
PAGES = "rows of one page"
COLUMNS = ["name", "verdict", "what to do"]
LINE_WIDTH = 88


def check(
    X: IntoDataFrame | Scan,
    y: ArrayLike | None = None,
    *,
    user: str | None = None,
    time: str | None = None,
) -> pd.DataFrame:
    """Run every check of a training on impressions, without a training.

    These are what :class:`HistorySequenceEncoder` and :class:`DINClassifier` warn of, or log, at
    ``fit``: columns taken differently from how they look, labels whose larger one may be no click,
    rows of X and y in two orders, histories that hold the row's own click, stand on other rows or
    keep the oldest events, clocks that differ for some users, columns that are the label, a mean of
    it or a count that includes the row, rows logged twice, guests that are one user, sampled rows
    that reveal themselves, and rows of one page that know of each other's clicks.

    Parameters
    ----------
    X : pandas, polars or Arrow frame, or scan, of shape (n_rows, n_columns)
        Impressions with their histories, as for the encoder. Of more than 200,000 rows, those of
        some users are checked, or, without ``user``, rows at equal distances.
    y : array-like of shape (n_rows,), default=None
        Labels of two kinds, the larger of which is the click. None: a scan's target, where it has
        one; without labels, checks that need them are left out.
    user : str, default=None
        Column that identifies each row's user. Needed to check histories along a user's rows.
    time : str, default=None
        Column with each row's time. Needed to check histories along a user's rows.

    Returns
    -------
    DataFrame
        One row per finding, and one per check that found nothing: name, verdict, what to do.
        Printed, it shows its sentences whole.

    Examples
    --------
    >>> import pandas as pd
    >>> X = pd.DataFrame({"item": ["hat", "tie", "cap", "hat"] * 50, "price": range(200)})
    >>> X["clicked"] = [1.0, 0.0] * 100
    >>> table = check(X.astype({"price": float}), [1, 0] * 100)
    >>> list(table["name"][table["verdict"] != "nothing found"])
    ['histories on their rows', 'columns that are the label', 'guests', 'rows of one page']
    >>> print(table["verdict"][3], table["what to do"][3], sep=": ")
    not checked: Pass user= and time=.
    """
    rows = _choose_rows(X, user, time)
    chosen = X[rows] if isinstance(X, Scan) else CallerFrame(X, name="X").pandas.iloc[rows]
    if y is None and isinstance(X, Scan) and X.target is not None:
        y = X.target_
    labels, order = None, list[str]()
    if y is not None:
        check_consistent_length(np.empty(len(X)), y)
        labels = np.asarray(y)[rows]
        with collect_messages() as order:
            try:
                check_row_labels(X, y)
            except ValueError as error:
                order.append(str(error))
    found = _find(chosen, labels, user, time, order)
    return Findings([finding[:3] for finding in found], columns=COLUMNS)


class Findings(pd.DataFrame):
    """A table of findings; printed, it is one paragraph per finding, and no sentence is cut.

    >>> Findings([("labels", "The label 2 is the click.", "Swap them.")], columns=COLUMNS)
    labels: The label 2 is the click.
        Swap them.
    """

    def __repr__(self) -> str:
        lines = []
        for name, verdict, advice in self.astype(str).itertuples(index=False):
            lines += textwrap.wrap(f"{name}: {verdict}", LINE_WIDTH, subsequent_indent="    ")
            lines += textwrap.wrap(
                advice, LINE_WIDTH, initial_indent="    ", subsequent_indent="    "
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return self.to_html(index=False)


def _choose_rows(X: IntoDataFrame | Scan, user: str | None, time: str | None) -> np.ndarray:
    """Return the rows to check: all, those of some users, or some at equal distances."""
    frame = X if isinstance(X, Scan) else CallerFrame(X, name="X").pandas
    check_columns(list(frame.columns), filter(None, [user, time]), name="X")
    n_rows = len(frame)
    if n_rows <= CHECKED_ROWS:
        return np.arange(n_rows)
    step = -(-n_rows // CHECKED_ROWS)
    if user is None:
        return np.arange(0, n_rows, step)
    hashes = pd.util.hash_array(plain_values(frame[user]))
    return np.flatnonzero(hashes % np.uint64(step) == 0)


def _find(
    frame: pd.DataFrame | Scan,
    labels: np.ndarray | None,
    user: str | None,
    time: str | None,
    order: list[str],
) -> Iterator[Finding]:
    with collect_messages() as messages:
        try:
            encoded = HistorySequenceEncoder(user=user, time=time).fit_transform(frame)
        except (TypeError, ValueError) as error:
            messages.append(str(error))
            encoded = None
    yield from _split("columns", messages)
    if encoded is None:
        return
    classes = [] if labels is None else np.unique(labels[~pd.isna(labels)]).tolist()
    clicks = None
    if labels is not None and labels.ndim == 1 and len(classes) == 2:
        clicks = (labels == classes[1]).astype(np.float32)
        with collect_messages() as messages:
            warn_of_flip(labels, classes)
        yield from _split("labels", order + messages)
    for name, find in CHECKS.items():
        needs = "y, one label of two kinds" if clicks is None and name != "guests" else None
        if name == "guests" and user is None:
            needs = "user="
        if name == "histories on their rows":
            needs = "user= and time=" if user is None or time is None else None
        if needs is not None:
            yield Finding(name, "not checked", f"Pass {needs}.")
            continue
        found = list(find(encoded, np.empty(0) if clicks is None else clicks))
        yield from found or [Finding(name, NOTHING, "")]
    if clicks is None or user is None or time is None:
        yield Finding(PAGES, "not checked", "Pass y, one label of two kinds, user= and time=.")
        return
    if isinstance(frame, Scan):
        frame = pd.concat([part for _, part in frame.parts([user, time])])
    yield from _split(PAGES, [*filter(None, [note_pages(frame, user, time, clicks)])])


def _split(name: str, messages: list[str]) -> Iterator[Finding]:
    """Yield messages as findings: what was seen, up to the end of the first sentence."""
    for message in dict.fromkeys(messages):
        verdict, _, advice = message.partition(". ")
        yield Finding(name, verdict.removesuffix(".") + ".", advice)
    if not messages:
        yield Finding(name, NOTHING, "")
