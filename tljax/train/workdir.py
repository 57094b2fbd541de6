"""The run's directory: claimed by one config, written whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from tljax import config as config_lib
from tljax.errors import UserError
from tljax.train import lock
from tljax.train.placing import agreed

# Sections that one run does not read: of `compare`, `rank` and `tune`.
OF_STUDIES = ('rank.', 'study.', 'tune.')


def check(workdir: Path, config: ConfigDict, command: str) -> None:
    """Checks, before any work, that a run may have this workdir; writes nothing that stays.

    Raises:
      UserError: it holds a run of another config (the differing keys are named) or of another
        command, or another process runs there, or it cannot be written.
    """
    path = workdir / 'config.json'
    if path.exists():
        check_claim(path, config, command)
    if jax.process_count() == 1:
        lock.check(workdir)
    existing = next(parent for parent in (workdir, *workdir.absolute().parents) if parent.exists())
    probe = existing / f'.tljax-{os.getpid()}'
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _unwritable(workdir, error) from error


def claim(workdir: Path, config: ConfigDict, command: str) -> None:
    """Makes the workdir this config's, when the config has been found to fit.

    Until this process ends no other may claim it.

    Raises:
      UserError: as for `check`.
    """
    content = {
        'command': command,
        'config': config_lib.plain(config),
        'fingerprint': config_lib.fingerprint(config),
    }
    hold(workdir, command)
    check(workdir, config, command)
    try:
        if not (workdir / 'config.json').exists():
            write_json(workdir / 'config.json', content)
    except OSError as error:
        raise _unwritable(workdir, error) from error


def hold(workdir: Path, command: str) -> None:
    """Keeps other processes out of a workdir; of several of one job, the first one does it.

    Raises:
      UserError: another process runs there, or it cannot be written.
    """
    refused: UserError | None = None
    if jax.process_index() == 0:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            lock.hold(workdir, command)
        except UserError as error:
            refused = error
        except OSError as error:
            refused = _unwritable(workdir, error)
    if not agreed(refused is None):
        raise refused or lock.in_use(workdir)


def _unwritable(workdir: Path, error: OSError) -> UserError:
    return UserError(f'--workdir={workdir} cannot be written: {error.strerror or error}.')


def check_claim(
    path: Path,
    config: ConfigDict,
    command: str,
    do: str = 'Choose another --workdir, or run with the old values.',
) -> None:
    """Compares the config.json of a workdir with a config and a command.

    A model that was trained is the same whatever the studies' sections say.

    Args:
      path: of that file.
      config: of now.
      command: of now.
      do: what to do where the configs differ.

    Raises:
      UserError: the commands or the configs differ.
    """
    held = read_json(path)
    if held.get('command') != command:
        raise UserError(
            f'{path.parent} holds a run of `{held.get("command")}`, not of `{command}`; '
            'choose another --workdir.'
        )
    if held.get('fingerprint') == config_lib.fingerprint(config):
        return
    changed = config_lib.differences(held.get('config', {}), config)
    if command in ('train', 'average'):
        changed = [line for line in changed if not line.startswith(OF_STUDIES)]
    if not changed:
        return
    raise UserError(
        f'{path.parent} holds a run of another config. What differs:\n  '
        + '\n  '.join(changed)
        + f'\n{do}'
    )


def check_trained(workdir: Path, config: ConfigDict) -> None:
    """Checks that a workdir's model, trained or averaged, is of a config.

    Raises:
      UserError: as for `check`.
    """
    path = workdir / 'config.json'
    averaged = read_json(path).get('command') == 'average'
    do = (
        'Choose another --workdir, give the old values, or leave --config out: the config is then '
        'the one that the workdir holds.'
    )
    check_claim(path, config, 'average' if averaged else 'train', do)


def held_config(workdir: Path) -> ConfigDict:
    """The config that a workdir was claimed with.

    Raises:
      UserError: it holds none.
    """
    path = workdir / 'config.json'
    if not path.exists():
        raise UserError(f'--workdir={workdir} holds no run (no config.json).')
    return config_lib.resolve(read_json(path).get('config', {}), where=str(path))


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file.

    Raises:
      UserError: it is no JSON object, or cannot be read.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f'{path} cannot be read: {error}. Delete it, or choose another --workdir.'
        ) from error
    if not isinstance(content, dict):
        raise UserError(f'{path} holds no JSON object.')
    return content


def write_json(path: Path, content: Any) -> None:
    """Writes JSON whole or not at all; with several processes, the first one writes.

    Other runs may write the same file, as where features are kept: each first has its own.
    """
    if jax.process_index() != 0:
        return
    partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
    partial.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + '\n')
    os.replace(partial, path)
