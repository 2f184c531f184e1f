"""Uses of a fitted model: rankings, predictions of large tables, updates and ONNX files.

- ``ranking``: ``rank_candidates`` and ``Ranker``, with ``catalogue`` (candidates encoded once),
  ``pair_levels`` (running rates of pairs), ``pair_requests`` and ``allowed_pairs``.
- ``updating``: ``update``; ``remembering``: ``remember``, ``forget`` and ``live_predictions``.
- ``scoring``: ``predict_to_parquet`` and ``score_partitions``.
- ``export`` writes an ONNX file with ``onnx_graph``; ``onnx_model`` loads it without torch.
"""
