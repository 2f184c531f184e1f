"""What all parts share: a concept a file."""
