"""Recipes: Python files with `get_config(arg)`."""

import importlib.util
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tljax.config.checking import resolve
from tljax.errors import UserError, nearest


def load(spec: str) -> ConfigDict:
    """Loads `FILE.py` or `FILE.py:ARG`, relative to here or to the project, and resolves it.

    Raises:
      UserError: no such file, no `get_config`, or the config is wrong.
    """
    return resolve(read(spec), where=spec)


def read(spec: str) -> Any:
    """What a recipe's `get_config` returns, not checked.

    Raises:
      UserError: as for `load`; whatever goes wrong inside the recipe is the recipe's.
    """
    file, _, argument = spec.partition(':')
    path = path_of(file)
    module_spec = importlib.util.spec_from_file_location('tljax_recipe', path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        if hasattr(module, 'get_config'):
            return module.get_config(argument) if argument else module.get_config()
    except Exception as error:
        words = ' '.join(str(error.args[0] if error.args else error).replace('\\n', ' ').split())
        raise UserError(f'{spec}: {type(error).__name__}: {words}') from error
    raise UserError(f'{path} has no get_config(arg), so it is no recipe.')


def path_of(file: str) -> Path:
    """Where a recipe lies: here, or else in the project.

    Raises:
      UserError: in neither.
    """
    for path in (Path(file), Path(__file__).parents[2] / file):
        if path.is_file():
            return path
    recipes = [str(path) for path in Path('configs').glob('**/*.py')]
    raise UserError(f'there is no config file {file!r}.{nearest(file, recipes)}')
