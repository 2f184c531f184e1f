"""Anonymous memory of this process, without the pages of files, which the kernel may drop."""

import threading
from pathlib import Path

SECONDS_BETWEEN = 0.02  # two looks at the memory in use


def anonymous_memory():
    """Return ``RssAnon`` of this process in MB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e6


class Peak:
    """The most that ``read`` returns within a ``with`` block, beyond that at its start."""

    def __init__(self, read=anonymous_memory, seconds=SECONDS_BETWEEN):
        self.read, self.seconds = read, seconds

    def __enter__(self):
        self.before = self._most = self.read()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._is_over.set()
        self._thread.join()

    def _watch(self):
        while not self._is_over.wait(self.seconds):
            self.beyond_start()

    def beyond_start(self):
        """Return the peak until now, less what there was at the start."""
        self._most = max(self._most, self.read())
        return self._most - self.before
