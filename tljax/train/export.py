"""A model written for others: safetensors, npz or Orbax, in our names or in a known scheme's."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tljax import pretrained, trees
from tljax.errors import RunError, UserError, nearest
from tljax.pretrained import porter
from tljax.pretrained.identify import all_schemes
from tljax.train.model_dir import load_model, save_model
from tljax.train.workdir import held_config

FORMATS = ('safetensors', 'npz', 'orbax')
STATISTICS = ('mean', 'var')  # of a batch normalisation


def export(model: Path | str, output: Path, form: str, scheme: str = '') -> Path:
    """Writes a model; reading it again gives the same leaves bit for bit.

    Args:
      model: a workdir with a trained model, or the uri of a source as `config.source.uri`.
      output: the file, or for Orbax the directory; it must not exist.
      form: one of FORMATS.
      scheme: whose names to write, such as 'torchvision'; '' writes our own paths.

    Raises:
      UserError: there is no such model or scheme, the scheme has no name for a leaf, or the
        output exists or cannot be written.
      RunError: the disk is full.
    """
    if output.exists():
        raise UserError(f'--output={output} exists already; name a new file.')
    leaves, about, card = read(model)
    if scheme:
        table = scheme_of(about['model'], scheme)
        leaves = porter.unport(leaves, table, about['arguments'])
    if form == 'orbax':
        save_orbax(leaves, card, output, ours=not scheme)
        return output
    save = {'safetensors': save_safetensors, 'npz': save_npz}[form]
    write(output, lambda path: save(path, leaves, about))
    return output


def read(model: Path | str) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Any]]:
    """The leaves of a model by path, its name and arguments, and its card."""
    if isinstance(model, str):
        source = pretrained.load(model)
        found = source.found
        card = source.card.to_json()
        about = {'model': found.model, 'arguments': found.arguments}
        return source.leaves, about, card
    if not (model / 'model' / 'card.json').exists():
        raise UserError(
            f'--workdir={model} holds no trained model. Train one first: `launch.py train`; or '
            'give --source=URI to export a source.'
        )
    variables, card = load_model(model / 'model')
    arguments = held_config(model).model.to_dict()
    about = {'model': arguments.pop('name'), 'arguments': arguments}
    leaves = trees.flatten(variables['params']) | trees.flatten(variables['batch_stats'])
    return leaves, about, card


def scheme_of(model: str, name: str) -> porter.Scheme:
    """The table that writes a model's leaves in a scheme's names.

    Raises:
      UserError: it has none of that name.
    """
    known = {scheme.name: scheme for scheme in all_schemes() if scheme.model == model}
    if name not in known:
        raise UserError(
            f'--scheme={name}: {model} has no such scheme.{nearest(name, known)} It has '
            f'{", ".join(known) or "none"}; left out, our own names are written.'
        )
    return known[name]


def write(output: Path, save: Callable[[Path], None]) -> None:
    """Writes a file whole or not at all."""
    partial = output.with_name(f'.{output.name}.{os.getpid()}.partial')
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        save(partial)
        os.replace(partial, output)
    except OSError as error:
        raise failure(output, error) from error
    finally:
        if partial.exists():
            partial.unlink()


def failure(output: Path, error: OSError) -> UserError | RunError:
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f'No space is left to write {output}.')
    return UserError(f'--output={output} cannot be written: {error.strerror or error}.')


def save_safetensors(
    path: Path, leaves: Mapping[str, np.ndarray], about: Mapping[str, Any]
) -> None:
    """One file; what the model is stands in its metadata."""
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(leaf) for name, leaf in leaves.items()}
    # Readers of PyTorch's ask for a format, and 'pt' is the one they take.
    save_file(contiguous, path, metadata={'format': 'pt', 'tljax': json.dumps(about)})


def save_npz(path: Path, leaves: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """One uncompressed archive, which can be mapped into memory."""
    with open(path, 'wb') as file:
        arrays: Any = {name: np.asarray(leaf) for name, leaf in leaves.items()}
        np.savez(file, **arrays)


def save_orbax(
    leaves: Mapping[str, np.ndarray], card: Mapping[str, Any], output: Path, *, ours: bool
) -> None:
    """A directory: one of our models, or a plain tree of a scheme's names."""
    if ours:
        kinds: dict[str, dict[str, np.ndarray]] = {'params': {}, 'batch_stats': {}}
        for path, leaf in leaves.items():
            kind = 'batch_stats' if path.rpartition('/')[2] in STATISTICS else 'params'
            kinds[kind][path] = leaf
        variables = {kind: trees.unflatten(flat) for kind, flat in kinds.items()}
        save_model(output, variables, card)
        return
    from orbax.checkpoint import v1 as ocp

    partial = output.with_name(f'.{output.name}.{os.getpid()}.partial')
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        ocp.save(partial.absolute(), trees.unflatten(dict(leaves)))
        os.replace(partial, output)
    except OSError as error:
        raise failure(output, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
