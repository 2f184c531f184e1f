"""Private names of scikit-learn that this package imports, so that new releases affect one file.

Other private names are set where they are used: ``_parameter_constraints`` in each estimator.
``utils/callbacks.py`` has the names that scikit-learn gives to estimators that support callbacks.
"""

from sklearn.base import _fit_context as _fit_context
from sklearn.utils import _safe_indexing as _safe_indexing
from sklearn.utils._param_validation import Interval as Interval
from sklearn.utils._param_validation import StrOptions as StrOptions
from sklearn.utils.validation import _check_feature_names_in as _check_feature_names_in

try:
    from sklearn.callback import CallbackSupportMixin
except ModuleNotFoundError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Replacement for the class in scikit-learn 1.9: callbacks cannot be set."""
