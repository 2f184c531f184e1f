"""The modules of the Deep Interest Network, from tensors to one logit."""
