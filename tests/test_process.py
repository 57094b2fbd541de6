"""What launch.py does to its process."""

import subprocess
import sys

import pytest

# Page faults of allocating and freeing 64 MB twenty times, each page written to.
FAULTS = """
import resource, numpy as np
from tljax.process import keep_memory

print(keep_memory() if {kept} else None)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(kept):
    done = subprocess.run(
        [sys.executable, '-c', FAULTS.format(kept=kept)],
        capture_output=True,
        text=True,
        check=True,
    )
    told, count = done.stdout.split()
    return told, int(count)


def test_freed_memory_is_used_again():
    told, kept = faults(True)
    if told == 'False':
        pytest.skip('another C library than glibc')
    _, given_back = faults(False)
    assert told == 'True'
    assert kept < given_back / 4
