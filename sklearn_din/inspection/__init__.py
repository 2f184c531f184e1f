"""What a fitted model looks like: summaries, pictures, explanations."""
