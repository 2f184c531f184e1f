"""Helpers that several layers of the package share. No file here imports from another layer.

- Input and checks: ``compat`` (every private name of scikit-learn in use), ``validation``,
  ``frames`` (pandas, polars and Arrow), ``arrow``, ``scan`` (tables read in parts), ``row_labels``,
  ``spelling``, ``labels``, ``label_waits``, ``page_rows``.
- Arrays: ``spans`` (windows over flat arrays), ``keys`` (users, items and groups as codes and
  hashes), ``shrinkage`` (shrunk rates), ``calibration``.
- State and files: ``estimator_state``, ``plain_values``, ``typed_fields``, ``whole_files``,
  ``digests``, ``version``.
- Running: ``warnings``, ``progress``, ``parallel``, ``blas``, ``postponed`` (imports on first use),
  ``extras`` (optional packages), ``text_table``.
"""
