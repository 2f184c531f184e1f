"""The command `python -m sklearn_din`: options, tables, study, results."""
