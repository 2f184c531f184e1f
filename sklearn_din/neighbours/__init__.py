"""Item neighbours from all histories: counts, scores, and numbers per impression."""
