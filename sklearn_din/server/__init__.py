"""A server of rankings, and a page that explains them."""
