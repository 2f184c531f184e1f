"""Tables larger than memory: scans of Parquet files, and logs that DuckDB sorts."""
