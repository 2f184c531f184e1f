"""The library of native code (C++): its sources, how to build it, and functions without torch.

``build`` compiles the library, ``structures`` loads it and exchanges arrays with it. ``pairs``
counts and scores item neighbours, ``online_rows`` updates an online model row by row. The functions
for networks are in ``native_network``. Each one has a twin in Python, the reference in tests.
"""
