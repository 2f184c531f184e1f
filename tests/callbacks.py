"""A callback of skorch's that calls functions."""

from skorch.callbacks import Callback


class On(Callback):
    """Calls functions with the net and what skorch tells: ``On(epoch_end=note)``."""

    def __init__(self, **functions):
        for event, function in functions.items():
            setattr(self, f"on_{event}", function)
