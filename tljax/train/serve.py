"""A trained model in use: evaluated on a split, or predicting on files."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from tljax import mesh as mesh_lib
from tljax.data.decode import load_image
from tljax.data.forms import AT_ONCE
from tljax.data.prepared import THE_USERS
from tljax.errors import UserError
from tljax.train import experiment as experiment_lib
from tljax.train import step as step_lib
from tljax.train.experiment import Experiment
from tljax.train.feed import Feed
from tljax.train.model_dir import load_model
from tljax.train.programs import compiled_eval
from tljax.train.workdir import check_trained, read_json, write_json

IMAGES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
TEXTS = ('.txt', '.eml', '.md')


def evaluate(config: ConfigDict, workdir: Path, split: str) -> dict[str, float]:
    """The task's metrics on a split.

    The test split is read once a model: the first result is kept in `evaluation-test.json`.

    Raises:
      UserError: the workdir holds no trained model of this config.
    """
    experiment, variables = trained(config, workdir)
    kept = workdir / f'evaluation-{split}.json'
    if split == 'test' and kept.exists():
        logging.info(
            'The test split was read before; these are the figures of that time, from %s.', kept
        )
        return read_json(kept)
    feed = Feed(experiment.data.split(split), mesh_lib.data_mesh())
    sums = feed.evaluate(compiled_eval(experiment), variables['params'], variables['batch_stats'])
    values = {**experiment.task.metrics(sums), 'examples': len(feed.subset)}
    write_json(kept, values)
    return values


def predict(config: ConfigDict, workdir: Path, source: Path) -> list[dict[str, Any]]:
    """One prediction a file: `{'file': ..., ...}` with what the task says of it.

    A file of a folder that can't be read doesn't end it: it is `{'file': ..., 'error': ...}`.

    Args:
      config: of the trained model.
      workdir: holds it.
      source: an image file, or a text file for a model of texts; or a folder whose files of that
        kind are taken in the order of their names.

    Raises:
      UserError: no trained model, no such file, or the one file cannot be read.
    """
    experiment, variables = trained(config, workdir)
    form = experiment.data.form
    if 'words' in form.parts:
        raise UserError('A model of the next word continues a text: use --prompt=TEXT.')
    textual = 'image' not in form.parts
    files = _files(source, TEXTS if textual else IMAGES)
    bits = config.data.bits if config.data.name in THE_USERS else 0
    load = functools.partial(load_image, form=form, bits=bits)
    step = jax.jit(
        step_lib.make_predict_step(experiment.model, experiment.task, experiment.prepare)
    )
    lines = []
    for first in range(0, len(files), AT_ONCE):
        group = files[first : first + AT_ONCE]
        read, errors = read_each(group, read_text if textual else load)
        if errors and source.is_file():
            raise UserError(f'{source}: {errors[source]}.')
        told = {file: {'error': f'{why}.'} for file, why in errors.items()}
        if read:
            inputs = list(read.values())
            parts = form.texts(inputs) if textual else {'image': np.stack(inputs)}
            rows = jax.device_get(step(variables['params'], variables['batch_stats'], parts))
            rows = {name: np.asarray(value) for name, value in rows.items()}
            told |= {file: experiment.task.describe(rows, row) for row, file in enumerate(read)}
        lines += [{'file': str(file), **told[file]} for file in group]
    return lines


def trained(config: ConfigDict, workdir: Path) -> tuple[Experiment, dict[str, Any]]:
    claim = workdir / 'config.json'
    if claim.exists() and read_json(claim).get('command') == 'compare':
        raise UserError(
            f'--workdir={workdir} holds a comparison, which keeps no models. Train one with '
            '`launch.py train` in another workdir; the source is in its source/.'
        )
    if not claim.exists() or not (workdir / 'model' / 'card.json').exists():
        raise UserError(
            f'--workdir={workdir} holds no trained model. Train one first: '
            '`launch.py train` with the same --config and --workdir.'
        )
    check_trained(workdir, config)
    variables, card = load_model(workdir / 'model')
    experiment = experiment_lib.build(config, None, injected=True)
    learnt = tuple(card.get('label_names') or ())
    if config.data.name in THE_USERS and learnt != tuple(experiment.data.label_names):
        raise UserError(
            f'config.data.dir={config.data.dir} has the classes '
            f'{", ".join(experiment.data.label_names)}, and the model in {workdir} learnt '
            f'{", ".join(learnt)}. Give the data that it was trained on.'
        )
    return experiment, variables


def read_each(
    files: Sequence[Path], read: Callable[[Path], Any]
) -> tuple[dict[Path, Any], dict[Path, str]]:
    """What each file holds, and for those that cannot be read why."""
    held, errors = {}, {}
    for file in files:
        try:
            held[file] = read(file)
        except ValueError as error:
            errors[file] = str(error)
    return held, errors


def read_text(file: Path) -> str:
    """A text file as it is; bytes that are no UTF-8 are replaced.

    Raises:
      ValueError: why it cannot be read.
    """
    try:
        return file.read_bytes().decode('utf-8', 'replace')
    except OSError as error:
        raise ValueError(f'cannot be read: {error.strerror}') from None


def _files(source: Path, known: Sequence[str]) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f'--input={source} does not exist.')
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in known)
    if not files:
        raise UserError(f'--input={source} holds no file of these kinds ({", ".join(known)}).')
    return files
