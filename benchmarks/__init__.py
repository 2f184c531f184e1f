"""Speed and quality of sklearn_din beside its rivals: run with ``python -m benchmarks.NAME``."""
