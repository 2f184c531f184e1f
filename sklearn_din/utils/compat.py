"""Private names of scikit-learn that this package imports, so that new releases affect one file.

Other private names are set where they are used: ``_parameter_constraints`` in each estimator.
"""

from sklearn.base import _fit_context as _fit_context
from sklearn.utils import _safe_indexing as _safe_indexing
from sklearn.utils._param_validation import Interval as Interval
from sklearn.utils._param_validation import StrOptions as StrOptions
from sklearn.utils.validation import _check_feature_names_in as _check_feature_names_in
