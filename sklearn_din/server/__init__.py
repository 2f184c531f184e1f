"""A server of rankings over HTTP, and a page that explains them.

- ``app``: the routes; ``guard``: sizes, headers, token and log of each request; ``connections``:
  limits; ``state``: the model that is served now; ``page``: the page and its files.
- ``answers``: rankings of one model, with ``items`` (the catalogue), ``histories``, ``levels``
  (running rates), ``clock`` and ``json_values``.
- ``posts``: posted events, kept by ``store`` in SQL; ``shown``: shown and clicked items as rows.
"""
