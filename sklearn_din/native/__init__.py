"""The default network in native code: forward and gradients, of which torch is the twin."""
