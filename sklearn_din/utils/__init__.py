"""Concepts that several parts of the package share, one per file."""
