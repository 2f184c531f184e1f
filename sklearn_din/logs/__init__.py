"""From a click log to impressions with their past, on pandas and pyarrow."""
