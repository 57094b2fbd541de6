"""The run's directory: claimed by one config, written whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from tljax import config as config_lib
from tljax.errors import UserError


def check(workdir: Path, config: ConfigDict, command: str) -> None:
    """Checks, before any work, that a run may have this workdir; writes nothing that stays.

    Raises:
      UserError: it holds a run of another config (the differing keys are named) or of another
        command, or cannot be written.
    """
    path = workdir / 'config.json'
    if path.exists():
        check_claim(path, config, command)
    existing = next(parent for parent in (workdir, *workdir.absolute().parents) if parent.exists())
    probe = existing / f'.tljax-{os.getpid()}'
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _unwritable(workdir, error) from error


def claim(workdir: Path, config: ConfigDict, command: str) -> None:
    """Makes the workdir this config's, when the config has been found to fit.

    Raises:
      UserError: as for `check`.
    """
    check(workdir, config, command)
    content = {
        'command': command,
        'config': config_lib.plain(config),
        'fingerprint': config_lib.fingerprint(config),
    }
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not (workdir / 'config.json').exists():
            write_json(workdir / 'config.json', content)
    except OSError as error:
        raise _unwritable(workdir, error) from error


def _unwritable(workdir: Path, error: OSError) -> UserError:
    return UserError(f'--workdir={workdir} cannot be written: {error.strerror or error}.')


def check_claim(path: Path, config: ConfigDict, command: str) -> None:
    """Compares the config.json of a workdir with a config and a command."""
    held = read_json(path)
    if held.get('command') != command:
        raise UserError(
            f'{path.parent} holds a run of `{held.get("command")}`, not of `{command}`; '
            'choose another --workdir.'
        )
    if held.get('fingerprint') == config_lib.fingerprint(config):
        return
    changed = config_lib.differences(held.get('config', {}), config)
    if not changed:
        return
    raise UserError(
        f'{path.parent} holds a run of another config. What differs:\n  '
        + '\n  '.join(changed)
        + '\nChoose another --workdir, or run with the old values.'
    )


def check_trained(workdir: Path, config: ConfigDict) -> None:
    """Checks that a workdir's model, trained or averaged, is of a config.

    Raises:
      UserError: as for `check`.
    """
    path = workdir / 'config.json'
    averaged = read_json(path).get('command') == 'average'
    check_claim(path, config, 'average' if averaged else 'train')


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
    """Writes JSON whole or not at all; with several processes, the first one writes."""
    if jax.process_index() != 0:
        return
    partial = path.with_name(path.name + '.partial')
    partial.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + '\n')
    os.replace(partial, path)
