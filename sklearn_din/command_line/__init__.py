"""What `python -m sklearn_din` does, one file per step: options, reading, models, results."""
