"""Columns of a frame as ids and numbers, without torch.

- Reading: ``frames`` and ``table`` (parts of rows), ``cells`` (any cell as flat values).
- Kinds of columns: ``facts`` collects facts about the values, ``roles`` chooses the kind of each
  column and pairs histories with candidates, ``item_columns`` finds the item's column. ``column``
  is the base class of ``ids``, ``number`` and ``histories``; ``fixed_vectors`` adds vectors.
- Fitting: ``table_columns`` is the list of all columns, ``vocabulary`` gives ids to values,
  ``scaling`` scales numbers, ``profile`` keeps what the training rows looked like.
- Encoding: ``rows`` and ``stored_rows`` (in files). ``notices`` warns about unusual values.
"""
