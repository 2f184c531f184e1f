"""The modules of the Deep Interest Network, from a batch of tensors to the inputs of the MLP.

- ``batch``: a batch of impressions as tensors; ``segments``: sums, maxima and softmax over the
  events of each impression.
- ``embeddings``: ids to vectors; ``number_bins``: numbers, clipped and in bins.
- ``interest``: the inputs of the MLP that one behaviour gives; ``layers``: activations, MLP and
  activation unit. ``sklearn_din/module.py`` joins them to the whole network.
"""
