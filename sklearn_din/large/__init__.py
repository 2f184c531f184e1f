"""Tables larger than memory: scans of Parquet files, and logs that DuckDB sorts.

``parquet_scan`` is ``scan_parquet`` and registers what attaching and sampling do with a scan.
``sql`` computes histories and aggregates, ``sql_negatives`` samples negatives, ``sorting`` sorts
rows, ``stored_log`` keeps a sorted log, ``attached_scan`` adds columns to a scan.
"""
