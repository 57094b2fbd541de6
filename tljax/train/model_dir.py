"""A trained model on disk: `variables/` (Orbax), `card.json` (provenance), `manifest.json`.

Reading one runs no code from it: JSON and arrays only, no pickle.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from tljax import trees
from tljax.errors import UserError
from tljax.pretrained.readers.orbax_directory import held
from tljax.pretrained.readers.weights import check_size
from tljax.train import storage
from tljax.train.placing import agreed
from tljax.train.storage import DamagedError, Record

VARIABLES = 'variables'
# Of a card: the kinds of what readers look into, and the sections of `config` that they do.
FORMS = {'model': dict, 'example': dict, 'label_names': list, 'outputs': int}
SECTIONS = ('source', 'transfer', 'data')


def save_model(
    directory: str | Path,
    variables: Mapping[str, Any],
    card: Mapping[str, Any],
    manifest: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> None:
    """Saves a model; a model that was there before is replaced when the new one is complete.

    Args:
      directory: of the model, such as workdir/model.
      variables: {'params': tree, 'batch_stats': tree}, nested dicts of arrays; may be empty ones.
      card: JSON: where the model comes from.
      manifest: JSON: what surgery did to make it.
      files: name -> text of further files, such as tokenizer.json.

    Raises:
      UserError: the directory cannot be written.
      RunError: the disk is full.

    >>> import tempfile
    >>> import numpy as np
    >>> variables = {'params': {'head': {'bias': np.ones(2, np.float32)}}, 'batch_stats': {}}
    >>> path = tempfile.mkdtemp() + '/model'
    >>> save_model(path, variables, {'name': 'small'})
    >>> load_model(path)
    ({'params': {'head': {'bias': array([1., 1.], dtype=float32)}}, 'batch_stats': {}},
     {'name': 'small'})
    """
    final = Path(directory).absolute()
    new, previous = _beside(final, 'new'), _beside(final, 'previous')
    flat_paths(storage.named_leaves(variables))
    arrays, leaves = storage.snapshot(variables)
    texts = {'card.json': _pretty(card), **(files or {})}
    if manifest is not None:
        texts['manifest.json'] = _pretty(manifest)
    try:
        if jax.process_index() == 0:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            for name, text in texts.items():
                (new / name).write_text(text, encoding='utf-8')
        storage.start_save(new / VARIABLES, arrays).result()
        if jax.process_index() == 0:
            storage.seal(new / VARIABLES, leaves, {'collections': list(variables)})
            # Killed between the two renames, it is `previous` that is loaded.
            if final.exists():
                shutil.rmtree(previous, ignore_errors=True)
                final.rename(previous)
            new.rename(final)
            shutil.rmtree(previous, ignore_errors=True)
        agreed(True)  # no process goes on before the model is in place
    except Exception as error:
        shutil.rmtree(new, ignore_errors=True)
        raise storage.save_error(error, Path(directory)) from error


def load_model(directory: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a model.

    Returns:
      (variables, card): nested dicts of numpy arrays as given to `save_model`, and the card.

    Raises:
      UserError: there is no model, or it is damaged.
    """
    path, record, card = _open(directory)
    try:
        storage.verify(path / VARIABLES, record)
        claimed = sum(trees.nbytes(leaf.stored()) for leaf in record.leaves.values())
        check_size(claimed, held(path / VARIABLES), path)
        flat = storage.read_arrays(path / VARIABLES, record)
    except DamagedError as error:
        raise _damaged(directory, str(error)) from error
    nested = trees.unflatten(flat)
    return {name: nested.get(name, {}) for name in record.extra['collections']}, card


def model_metadata(directory: str | Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a model's leaves without reading the arrays.

    Returns:
      Parameters and batch statistics in one flat dict by path, such as 'head/kernel'.

    Raises:
      UserError: there is no model, or it is damaged.
    """
    _, record, _ = _open(directory)
    return {
        path: jax.ShapeDtypeStruct(leaf.shape, jax.numpy.dtype(leaf.dtype))
        for path, leaf in flat_paths(record.leaves).items()
    }


def load_card(directory: str | Path) -> dict[str, Any]:
    """The card of a model.

    Raises:
      UserError: there is no model, or it is damaged.
    """
    return _open(directory)[2]


def flat_paths(named: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves named 'collection/path' as one flat world of paths.

    Raises:
      ValueError: a path is in two collections.

    >>> flat_paths({'params/norm/scale': 1, 'batch_stats/norm/mean': 2})
    {'norm/scale': 1, 'norm/mean': 2}
    """
    flat: dict[str, Any] = {}
    for name, leaf in named.items():
        path = name.partition('/')[2]
        if path in flat:
            raise ValueError(f'The leaf {path!r} is in two collections of the variables.')
        flat[path] = leaf
    return flat


def check_card(card: Any) -> None:
    """Checks that what a card tells has the form that readers rely on; it may tell little.

    Raises:
      DamagedError: it hasn't.

    >>> check_card({'title': 'digits', 'config': {'data': {'mean': [0.5]}}})
    """
    if not isinstance(card, dict):
        raise DamagedError('card.json is no JSON object')
    config = card.get('config') or {}
    sections = config.items() if isinstance(config, dict) else ()
    forms: list[tuple[str, Any, type | tuple[type, ...]]] = [
        ('config', config, dict),
        *((f'config.{key}', value, dict) for key, value in sections if key in SECTIONS),
        *((key, card[key], kind) for key, kind in FORMS.items() if key in card),
    ]
    for key, value, kind in forms:
        if not isinstance(value, kind):
            raise DamagedError(f'card.json: {key} is {value!r:.80}')


def _open(directory: str | Path) -> tuple[Path, Record, dict[str, Any]]:
    """Where the model really is, its record and its card."""
    path = Path(directory).absolute()
    if not path.exists() and _beside(path, 'previous').exists():
        path = _beside(path, 'previous')
    if not (path / 'card.json').is_file() or not (path / VARIABLES).is_dir():
        what = 'is no directory' if not path.is_dir() else 'holds no model of tljax'
        raise UserError(
            f'{directory} {what}. A model is a directory with card.json and {VARIABLES}/, as '
            '`launch.py train` leaves in WORKDIR/model; give the path of one.'
        )
    try:
        card = json.loads((path / 'card.json').read_text(encoding='utf-8'))
        check_card(card)
        record = storage.read_record(path / VARIABLES)
    except (ValueError, OSError, RecursionError) as error:
        raise _damaged(directory, f'card.json: {storage.first_line(error)}') from error
    except DamagedError as error:
        raise _damaged(directory, str(error)) from error
    return path, record, card


def _damaged(directory: str | Path, why: str) -> UserError:
    return UserError(
        f'The model {directory} is damaged: {why}. Train it again, or fetch another copy of it.'
    )


def _beside(path: Path, role: str) -> Path:
    return path.with_name(f'.{path.name}.{role}')


def _pretty(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + '\n'
