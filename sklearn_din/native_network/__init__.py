"""The default network in native code (C++): forward, gradients and the optimizer's step.

torch computes the same numbers and is the reference in tests. ``coverage`` lists which networks are
computed. ``plan`` prepares a network, ``logits`` computes batches and whole training steps,
``optimizer`` applies gradients.
"""
