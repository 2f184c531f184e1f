"""From encoded features to tensors, whole batches at a time."""
