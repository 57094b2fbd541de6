"""SIGTERM and Ctrl-C: whether somebody asked a run to end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

AGREE_EVERY = 20  # steps after which several processes ask each other whether to stop


@contextmanager
def stop_requested() -> Iterator[Any]:
    """Gives `stop(step) -> bool`: whether SIGTERM or Ctrl-C asked the run to end.

    A second Ctrl-C ends it at once. With several processes they agree on the step.
    """
    asked = threading.Event()

    def ask(number, frame):
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    def stop(step: int) -> bool:
        if jax.process_count() > 1:
            if step % AGREE_EVERY:
                return False
            from jax.experimental import multihost_utils

            return bool(multihost_utils.process_allgather(np.array(asked.is_set())).any())
        return asked.is_set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
