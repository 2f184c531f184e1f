"""Training with several processes, and continuing a training that was stopped.

``ranks`` joins the processes of a torch group, ``checkpoint`` writes and restores the state of a
training, and ``fingerprint`` tells whether a checkpoint belongs to the same data and parameters.
"""
