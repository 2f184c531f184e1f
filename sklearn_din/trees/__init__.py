"""Boosted trees beside the network: their columns out of encoded rows, and their nodes."""
