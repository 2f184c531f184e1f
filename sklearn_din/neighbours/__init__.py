"""Numbers that are learned from all training rows: item neighbours, and running rates of users.

Each row reads a table that does not count the row itself: ``blocks`` selects it, by time or by
user. ``tables`` learns all numbers and adds them to rows. ``learnt_numbers`` is their base class:
``pairs`` (14 numbers for a history and its candidate) and ``levels`` (the user's running rate).

- ``cooccurrence`` counts which items the same users had, ``item_scores`` computes EASE and cosine
  scores from the counts, and ``holding`` checks whether the scores still help in the last block.
- ``shortlist`` finds candidates of a large catalogue that go with a user.
"""
