"""Starting: `launch.py --help`, and a small `compare` with a cold and a warm compilation cache.

Every row is a process of its own, data prepared and source trained beforehand. Cold: the cache
on disk is empty; warm: an earlier process filled it. Aim: `launch.py --help` in less than 2 s.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import common

ROOT = Path(__file__).parents[1]
SMALL = dict(steps=10, seeds=2, repeats=3)
FULL = dict(steps=50, seeds=10, repeats=7)


def run(*arguments: str, **env: str) -> str:
    """Runs Python in the repository and returns what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=os.environ | env, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f'{arguments} ended with {done.returncode}:\n{done.stderr}')
    return done.stdout


class Compare:
    """A small `launch.py compare`, each time in a new workdir.

    Args:
      folder: for everything it writes.
      chosen: its size.
    """

    def __init__(self, folder: Path, chosen):
        self.folder, self.count = folder, 0
        self.small = [
            '--quiet',
            f'--config.source.uri={folder / "source"}',
            f'--config.train.steps={chosen.steps}',
            f'--config.study.seeds={chosen.seeds}',
            '--config.study.trials=1',
        ]
        train = ('train', '--config=configs/digits.py:source', '--config.train.steps=20')
        run('launch.py', *train, f'--workdir={folder / "source"}', '--quiet')
        self('warm')

    def __call__(self, cache: str) -> None:
        self.count += 1
        workdir = f'--workdir={self.folder / str(self.count)}'
        arguments = ('compare', '--config=configs/digits.py', workdir, *self.small)
        run('launch.py', *arguments, JAX_COMPILATION_CACHE_DIR=str(self.folder / cache))

    def cold(self) -> None:
        shutil.rmtree(self.folder / 'cold', ignore_errors=True)
        self('cold')


def main() -> None:
    chosen = common.settings(__doc__, SMALL, FULL)
    print((__doc__ or '').splitlines()[0])
    # In a process of its own: one that holds a GPU's memory would leave none to the others.
    print(run(str(ROOT / 'benchmarks' / 'common.py')), end='', flush=True)
    quick = {
        'python -c pass': lambda: run('-c', 'pass'),
        'launch.py --help': lambda: run('launch.py', '--help'),
        'launch.py compare --help': lambda: run('launch.py', 'compare', '--help'),
        'python -c "import jax, flax"': lambda: run('-c', 'import jax, flax.nnx'),
    }
    common.table('Help', common.measure(quick, 2 * chosen.repeats))
    with tempfile.TemporaryDirectory() as name:
        compare = Compare(Path(name), chosen)
        starts = {'cold cache': compare.cold, 'warm cache': lambda: compare('warm')}
        times = common.measure(starts, chosen.repeats, warmup=0)
    common.table(f'compare, {chosen.seeds} seeds of {chosen.steps} steps', times)


if __name__ == '__main__':
    main()
