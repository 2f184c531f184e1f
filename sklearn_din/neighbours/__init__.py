"""Numbers per impression: items that go together in all histories, and levels of users."""
