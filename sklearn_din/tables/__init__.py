"""Tables as sequences of parts: a frame is one, a scan of Parquet files has many."""
