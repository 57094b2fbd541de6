"""A model written for others: safetensors, npz or Orbax, in our names or in a known scheme's."""

import functools
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tljax import models, pretrained, trees
from tljax.data.text import tokenizer
from tljax.errors import RunError, UserError, nearest
from tljax.pretrained import Card, porter
from tljax.pretrained.attempt import all_schemes
from tljax.pretrained.inputs import KEYS
from tljax.pretrained.locations import locate
from tljax.pretrained.shelf import UNKNOWN
from tljax.train import injected_models
from tljax.train.model_dir import load_model, save_model
from tljax.train.workdir import held_config

FORMATS = ('safetensors', 'npz', 'orbax')
STATISTICS = ('mean', 'var')  # of a batch normalisation
TOKENIZER = 'tokenizer.json'


def export(model: Path | str, output: Path, form: str, scheme: str = '') -> Path:
    """Writes a model; reading it again gives the same leaves bit for bit.

    A tokenizer goes with it, as tokenizer.json in the same folder, or in an Orbax directory.

    Args:
      model: a workdir with a trained model, or the uri of a source as `config.source.uri`.
      output: the file, or for Orbax the directory; it must not exist.
      form: one of FORMATS.
      scheme: whose names to write, such as 'torchvision'; '' writes our own paths.

    Raises:
      UserError: there is no such model or scheme, the scheme has no name for a leaf, or the
        output exists or cannot be written, or another tokenizer lies in its folder.
      RunError: the disk is full.
    """
    if output.exists():
        raise UserError(f'--output={output} exists already; name a new file.')
    leaves, about = read(model)
    if scheme:
        table = scheme_of(about['model'], scheme)
        check_implied(table, about['arguments'])
        leaves = porter.unport(leaves, table, about['arguments'])
    files = tokenizer_of(model) if 'tokens' in about['example'] else {}
    if form == 'orbax':
        save_orbax(leaves, about, output, files, ours=not scheme)
        return output
    put_beside(output, files)
    save = {'safetensors': save_safetensors, 'npz': save_npz}[form]
    write(output, lambda path: save(path, leaves, about))
    return output


def tokenizer_of(model: Path | str) -> dict[str, str]:
    """The tokenizer.json of a model of texts, by its name; {} where there is none."""
    place = model / 'model' if isinstance(model, Path) else locate(model, quiet=True)
    found = tokenizer.beside(place)
    return {TOKENIZER: tokenizer.read(found).text} if found else {}


def put_beside(output: Path, files: Mapping[str, str]) -> None:
    """Writes small files into the folder of an output.

    Raises:
      UserError: there is another of that name.
    """
    for name, text in files.items():
        file = output.with_name(name)
        if file.exists() and file.read_text(encoding='utf-8') != text:
            raise UserError(
                f'--output={output}: its folder has another {name}, and readers look for one '
                'beside the weights. Write into a folder of its own.'
            )
        write(file, functools.partial(Path.write_text, data=text, encoding='utf-8'))


def read(model: Path | str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The leaves of a model by path, and what a reader must know of it.

    Returns:
      leaves, and `model`, all of its `arguments`, `outputs`, `example` (shapes) and `card`.
    """
    if isinstance(model, str):
        source = pretrained.load(model)
        found = source.found
        arguments = {**models.arguments(found.model), **found.arguments}
        example = {name: leaf.shape for name, leaf in found.example.items()}
        return source.leaves, about(arguments, found.outputs or 2, example, source.card.to_json())
    if not (model / 'model' / 'card.json').exists():
        raise UserError(
            f'--workdir={model} holds no trained model. Train one first: `launch.py train`; or '
            'give --source=URI to export a source.'
        )
    variables, card = load_model(model / 'model')
    config = held_config(model)
    leaves = trees.flatten(variables['params']) | trees.flatten(variables['batch_stats'])
    if injected := injected_models.of_card(card):
        leaves = merged(injected, leaves)
    arguments = {**models.arguments(config.model.name), **config.model.to_dict()}
    outputs, example = card.get('outputs', len(card['label_names'])), card['example']
    return leaves, about(arguments, outputs, example, own_card(config, card, tokenizer_of(model)))


def merged(model: models.Model, leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The leaves of the plain architecture that computes the same.

    Raises:
      UserError: there is none.
    """
    try:
        plain = injected_models.without_injected(model, leaves)
    except UserError as error:
        raise UserError(f'{error} What was trained can be written alone: --format=peft.') from error
    return {path: np.asarray(leaf) for path, leaf in plain.items()}


def about(
    arguments: Mapping[str, Any],
    outputs: int,
    example: Mapping[str, Sequence[int]],
    card: Mapping[str, Any],
) -> dict[str, Any]:
    """What an export says of its model, as JSON."""
    read_by_model = {name: list(shape) for name, shape in example.items() if name != 'label'}
    rest = {key: value for key, value in arguments.items() if key != 'name'}
    made = {
        'model': arguments['name'],
        'arguments': rest,
        'outputs': outputs,
        'example': read_by_model,
        'card': card,
    }
    return json.loads(json.dumps(made))


def own_card(config: Any, card: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """The card of a model trained here: its input is what its config had."""
    source = card.get('source') or {}
    # The config's tokenizer may be one that is trained on whatever texts there are.
    told = {'tokenizer': f'{TOKENIZER} beside the weights'} if files else {}
    made = Card(
        name=card.get('title') or config.data.name,
        title=card.get('title') or config.data.name,
        task=config.task.name,
        architecture=config.model.name,
        licence=f'that of its source: {source["licence"]}' if 'licence' in source else UNKNOWN,
        training_data=card.get('data') or config.data.name,
        input={key: config.data[key] for key in KEYS} | told,
        classes=len(card.get('label_names') or ()),
        class_names=', '.join(card.get('label_names') or ()),
    )
    return made.to_json()


def check_implied(scheme: porter.Scheme, arguments: Mapping[str, Any]) -> None:
    """Checks that files of a scheme mean the model that is written.

    Raises:
      UserError: readers would take it for another.
    """
    for key, value in scheme.fixed.items():
        if arguments.get(key) != value:
            raise UserError(
                f'--scheme={scheme.name}: its files mean {key}={value!r}, and this model has '
                f'{arguments.get(key)!r}: they would compute something else. Export in our own '
                'names: leave --scheme out.'
            )


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


def write(output: Path, save: Callable[[Path], Any]) -> None:
    """Writes a file whole or not at all, with the mode of any new file, whatever writes it."""
    partial = output.with_name(f'.{output.name}.{os.getpid()}.partial')
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        mode = partial.stat().st_mode
        save(partial)
        partial.chmod(mode)  # safetensors puts a file of its own there, for its owner alone
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
    """One uncompressed archive, which can be mapped into memory; `tljax.json` in it says what the
    model is."""
    with open(path, 'wb') as file:
        arrays: Any = {name: np.asarray(leaf) for name, leaf in leaves.items()}
        np.savez(file, **arrays)
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr('tljax.json', json.dumps(about))


def save_orbax(
    leaves: Mapping[str, np.ndarray],
    about: Mapping[str, Any],
    output: Path,
    files: Mapping[str, str],
    *,
    ours: bool,
) -> None:
    """A directory: one of our models, or a plain tree of a scheme's names; small files in it."""
    if ours:
        kinds: dict[str, dict[str, np.ndarray]] = {'params': {}, 'batch_stats': {}}
        for path, leaf in leaves.items():
            kind = 'batch_stats' if path.rpartition('/')[2] in STATISTICS else 'params'
            kinds[kind][path] = leaf
        variables = {kind: trees.unflatten(flat) for kind, flat in kinds.items()}
        card = {
            **about['card'],
            'model': {'name': about['model'], **about['arguments']},
            'config': {'data': about['card']['input']},
        }
        save_model(output, variables, card, files=files)
        return
    from orbax.checkpoint import v1 as ocp

    partial = output.with_name(f'.{output.name}.{os.getpid()}.partial')
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        ocp.save(partial.absolute(), trees.unflatten(dict(leaves)))
        for name, text in files.items():
            (partial / name).write_text(text, encoding='utf-8')
        os.replace(partial, output)
    except OSError as error:
        raise failure(output, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
