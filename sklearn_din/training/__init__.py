"""Training of the network: the skorch net, its optimizer and early stopping.

- ``parameters``: every hyper-parameter with its default and allowed values. ``inputs`` checks X and
  y; ``target`` defines the loss and the meaning of outputs, ``reading`` turns outputs into numbers.
- ``net``: the skorch net. ``rows`` starts a training: it holds out rows (``validation``,
  ``copies``), hides new ids (``novelty``), ages running rates (``aged_levels``) and makes
  ``batches``. ``training`` runs it: ``steps``, ``optim``, ``occurrences`` (L2 per id), ``threads``,
  ``seeding``, ``alone`` (one process).
- Stopping: ``validation_checks``, ``weight_average``, ``early_stopping``, ``platt_scaling``;
  ``newest_rows`` trains on the held-out rows at the end.
- Few labels: ``few_labels`` shrinks logits by folds. ``mixture`` averages the network and trees.
- Later: ``growth`` continues a net with more ids, ``net_state`` saves and restores it, ``summary``
  describes it.
- Checks of the rows: ``leaks``, ``label_means``, ``own_counts``, ``repeated_rows``,
  ``wrong_histories``; ``neutral_requests`` prepares rows that are scored one by one.
"""
