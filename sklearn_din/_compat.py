"""The private names of scikit-learn that this package imports: a new release is met in this file.

Others are overridden where they act: ``_parameter_constraints`` in each estimator; in
``_notebook.py`` and DINClassifier what notebooks show (``_doc_link_module``,
``_doc_link_template``, ``_get_params_html``, ``_sk_visual_block_``, ``_repr_html_inner``).
``_callbacks.py`` uses the names that scikit-learn gives to estimators that support callbacks.
"""

from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_feature_names_in

try:
    from sklearn.utils._repr_html.estimator import _VisualBlock
except ImportError:  # before scikit-learn 1.7
    from sklearn.utils._estimator_html_repr import _VisualBlock

try:
    from sklearn.callback import CallbackSupportMixin
except ModuleNotFoundError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands for the class that scikit-learn has from 1.9: here no callback can be set."""


__all__ = [
    "CallbackSupportMixin",
    "Interval",
    "StrOptions",
    "_VisualBlock",
    "_check_feature_names_in",
    "_fit_context",
]
