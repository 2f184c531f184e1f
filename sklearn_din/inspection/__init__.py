"""Summaries, pictures and explanations of a fitted model."""
