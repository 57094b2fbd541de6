"""launch.py as a user runs it: in a process of its own, from the command line."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Launcher:
    """Runs launch.py with data and compiled programs shared by all tests of the session."""

    env: dict[str, str]

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(ROOT / 'launch.py'), *map(str, arguments)]

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*arguments),
            cwd=ROOT,
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def ok(self, *arguments: str, **env: str) -> subprocess.CompletedProcess:
        done = self(*arguments, **env)
        assert done.returncode == 0, done.stderr
        return done

    def refused(self, *arguments: str, status: int = 2) -> str:
        """The message of a command that must fail without a traceback."""
        done = self(*arguments)
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        assert 'Traceback' not in done.stderr
        return done.stderr

    def stopped(
        self, *arguments: str, when: Callable[[], bool], number: int
    ) -> subprocess.CompletedProcess:
        """Sends a signal as soon as `when` says so."""
        process = subprocess.Popen(
            self.command(*arguments),
            cwd=ROOT,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 120
        while not when():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        if number != signal.SIGKILL:
            assert 'Traceback' not in err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope='session')
def launch(tmp_path_factory) -> Launcher:
    shared = tmp_path_factory.mktemp('shared')
    env = os.environ | {
        'JAX_PLATFORMS': 'cpu',
        'TFDS_DATA_DIR': str(shared / 'tfds'),
        'XDG_CACHE_HOME': str(shared / 'cache'),
    }
    return Launcher(env)
