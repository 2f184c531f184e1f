"""From tensors to one logit: the parts of the Deep Interest Network."""
