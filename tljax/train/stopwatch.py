"""Time spent in updates, compilation and evaluation left out."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import jax


class Stopwatch:
    """Runs from its creation; time inside `paused` does not count.

    Args:
      seconds: counted before.
    """

    def __init__(self, seconds: float = 0.0):
        self._since, self._total = time.monotonic(), seconds

    @contextlib.contextmanager
    def paused(self, pending: Any) -> Iterator[None]:
        """Waits for the work that `pending` depends on, then lets time pass uncounted."""
        self.read(pending)
        yield
        self._since = time.monotonic()

    def add(self, seconds: float) -> None:
        """Counts time that was spent while it was paused."""
        self._total += seconds

    def read(self, pending: Any) -> float:
        """Seconds counted until the work that `pending` depends on was done."""
        jax.block_until_ready(pending)
        now = time.monotonic()
        self._total += now - self._since
        self._since = now
        return self._total
