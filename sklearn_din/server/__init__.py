"""A server of rankings, and a page that shows why."""
