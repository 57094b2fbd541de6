"""One process at a time in a directory: a lock that the system takes back when the process ends."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path

from absl import logging

from tljax.errors import UserError

FILE = '.lock'
FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW  # a link is no lock of ours
TRIES, PAUSE = 5, 0.1  # others may look at a lock just when it is to be taken
TAKEN = (errno.EACCES, errno.EAGAIN)
_HELD: dict[Path, int] = {}  # by directory, what is open as long as this process lives


def hold(directory: Path, command: str) -> None:
    """Takes the lock of a directory for as long as this process lives; again is no matter.

    A POSIX record lock, which a killed process leaves no more than one that ended, and a child
    does not inherit. Where a file system has no locks, nothing is locked, and a warning says so.

    Args:
      directory: exists.
      command: what runs there, for whoever comes second.

    Raises:
      UserError: another process holds it; names that.
      OSError: the lock's file cannot be written.
    """
    key = directory.resolve()
    if is_held(key):
        return
    number = os.open(key / FILE, FLAGS, 0o666)
    for left in reversed(range(TRIES)):
        try:
            fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in TAKEN:
                logging.warning(
                    '%s cannot be locked (%s): see to it that nothing else runs there.',
                    directory,
                    error.strerror,
                )
                break
            if not left:
                os.close(number)
                raise in_use(directory) from None
            time.sleep(PAUSE)
    _HELD[key] = number
    holder = {'process': os.getpid(), 'host': socket.gethostname(), 'command': command}
    os.ftruncate(number, 0)
    os.pwrite(number, json.dumps(holder).encode(), 0)


def check(directory: Path) -> None:
    """Raises UserError if another process holds the lock of a directory; takes and writes nothing.

    A process would lose a lock of its own by closing any file of it, so its own are not looked at.
    """
    if is_held(directory.resolve()):
        return
    unlocked = FileNotFoundError, NotADirectoryError, PermissionError
    with contextlib.suppress(*unlocked), open(directory / FILE) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in TAKEN:
                raise in_use(directory) from None


def is_held(key: Path) -> bool:
    """Whether this process holds a directory's lock; one that was deleted since then is let go."""
    if key not in _HELD:
        return False
    try:
        if os.path.samestat(os.fstat(_HELD[key]), os.stat(key / FILE)):
            return True
    except FileNotFoundError:
        pass
    os.close(_HELD.pop(key))
    return False


def in_use(directory: Path) -> UserError:
    """Says who holds the lock."""
    try:
        said = json.loads((directory / FILE).read_text())
        who = f'process {said["process"]} on {said["host"]} (`launch.py {said["command"]}`)'
    except (OSError, ValueError, KeyError, TypeError):
        who = 'another process'
    return UserError(
        f'{directory} is in use by {who}. Wait until that has ended, or choose another --workdir.'
    )
