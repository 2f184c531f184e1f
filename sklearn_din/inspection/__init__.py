"""Summaries, plots and explanations of a fitted model.

``check`` runs every check of a training as a table, ``explain`` weighs past events,
``importance`` measures what a column or a history is worth, ``display`` is AttentionDisplay, and
``fitted`` takes a fitted Pipeline apart.
"""
