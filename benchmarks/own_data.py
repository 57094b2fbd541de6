"""Preparing a folder of many images: killed half-way, gone on with, opened again.

Images are made first (noise, 128x128 JPEG, 100 classes; synthetic). Then a process that prepares
them is killed once half are examined, a second one goes on, and a third opens what is prepared.
Printed for each: seconds, files examined, and the largest resident memory, which includes what
the libraries take before anything is read.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import cv2
import numpy as np

from tljax import config as config_lib
from tljax.data import prepared
from tljax.data.own.examine import PART

CLASSES = 100


def make(root: Path, images: int) -> None:
    """Writes `images` different JPEG files into class folders."""
    rng = np.random.default_rng(0)
    large = [cv2.resize(rng.integers(0, 256, (12, 12, 3), np.uint8), (128, 128)) for _ in range(64)]
    for i in range(images):
        picture = large[i % len(large)] // 2
        bits = np.unpackbits(np.frombuffer(np.uint32(i).tobytes(), np.uint8)).reshape(4, 8)
        picture[:32, :64] = np.kron(bits, np.ones((8, 8), np.uint8))[..., None] * 255
        folder = root / f'class{i % CLASSES:03}'
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f'{i:07}.jpg').write_bytes(cv2.imencode('.jpg', picture)[1].tobytes())


def prepare(root: str, where: str) -> None:
    """In a process of its own: prepares the folder, and prints what it took."""
    import tensorflow_datasets as tfds

    config = config_lib.default().data
    config.update(name='folder', dir=root, prepared=where)
    tfds.core.constants  # noqa: B018  # lazily imported: its memory is not the data's
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    builder = prepared.open_set(config)
    print(
        json.dumps(
            {
                'seconds': time.perf_counter() - began,
                'before': before / 1e3,
                'peak': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
                'examples': {n: s.num_examples for n, s in builder.info.splits.items()},
            }
        )
    )


def started(root: Path, where: Path) -> subprocess.Popen:
    command = [sys.executable, __file__, '--prepare', str(root), str(where)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen) -> dict[str, Any]:
    out, _ = process.communicate()
    assert process.returncode == 0, process.returncode
    return json.loads(out.splitlines()[-1])


def main() -> None:
    chosen = common.settings(__doc__, dict(images=10_000), dict(images=100_000))
    common.header(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        root, where = Path(folder) / 'mine', Path(folder) / 'prepared'
        make(root, chosen.images)
        process, began = started(root, where), time.perf_counter()
        parts = lambda: len(list(where.glob('unfinished/*/*[0-9].json')))  # noqa: E731
        while parts() * PART * 2 < chosen.images:
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        done = parts() * PART
        print(f'  killed after {time.perf_counter() - began:.1f} s, {done} files examined')
        for name in ('gone on with', 'opened again'):
            told = finished(started(root, where))
            print(
                f'  {name}: {told["seconds"]:.1f} s, peak {told["peak"]:.0f} MB '
                f'({told["before"]:.0f} MB before); {told["examples"]}'
            )


if __name__ == '__main__':
    if sys.argv[1:2] == ['--prepare']:
        prepare(*sys.argv[2:])
    else:
        main()
