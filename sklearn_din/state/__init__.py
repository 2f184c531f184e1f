"""How objects become plain values that can be kept, and come back: no code, no foreign names."""
