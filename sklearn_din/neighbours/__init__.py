"""Items that go together in all histories: counts, scores, and numbers per impression."""
