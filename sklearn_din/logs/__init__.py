"""From a click log to impressions with their past, on pandas and pyarrow.

- ``attach``: ``attach_history``, each row's earlier events as history columns. ``timeline`` defines
  which events are earlier, and ``windows`` stores the log and each row's window.
- ``history_builder``: ``HistoryBuilder``, the same as a step of a Pipeline. ``row_memory`` keeps
  the running rates of users, items and pairs, and ``appended_events`` adds later events.
- ``aggregates``: ``attach_aggregates``; ``requests``: ``attach_request``.
- ``negatives``: ``sample_negatives``, with ``other_items`` (draws) and ``sampling_notices``
  (warnings about what negatives would reveal).
- ``clocks``: whether the times of two tables agree; ``distinct``: values as codes.
"""
