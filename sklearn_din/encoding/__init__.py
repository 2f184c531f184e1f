"""Encoding of the columns of a frame as ids and numbers, without torch."""
