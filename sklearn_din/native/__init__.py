"""The default network in native code (C++): forward, gradients and the optimizer's step.

torch computes the same numbers and is the reference in tests. ``build`` compiles the library,
``structures`` exchanges arrays with it, ``coverage`` lists which networks it computes. ``plan``
prepares a network, ``logits`` computes batches and whole training steps, ``optimizer`` applies
gradients, ``pairs`` counts and scores item neighbours.
"""
