"""Anonymous memory of this process, without the pages of files, which the kernel may drop."""

import threading
from pathlib import Path

SECONDS_BETWEEN = 0.02  # two looks at the memory in use


def anonymous_memory():
    """Return ``RssAnon`` of this process in MB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e6


class AnonymousPeak:
    """The most anonymous memory within a ``with`` block beyond that at its start, in MB."""

    def __enter__(self):
        self.before = self._most = anonymous_memory()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._is_over.set()
        self._thread.join()

    def _watch(self):
        while not self._is_over.wait(SECONDS_BETWEEN):
            self._most = max(self._most, anonymous_memory())

    def beyond_start(self):
        """Return the peak until now, less what the process held at the start."""
        self._most = max(self._most, anonymous_memory())
        return self._most - self.before
