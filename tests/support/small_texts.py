"""Two tiny tasks on texts, each with a set prepared once: which class, and which word is next."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import small_models
from jax.sharding import AxisType

from tljax import config as config_lib
from tljax import mesh as mesh_lib
from tljax.models import arguments
from tljax.train import experiment as experiment_lib

WORDS = {
    'spam': 'win cash now click here free lamp today offer',
    'ham': 'the meeting is at noon please bring your notes',
}
LENGTH = 16
VOCABULARY = 270  # 256 bytes, three special tokens and a few merges
SIZES = dict(width=8, layers=2, heads=2, hidden=12, vocabulary=VOCABULARY, positions=LENGTH)
STILL = dict(dropout=0.0, attention_dropout=0.0)
MODELS = {
    'classification': arguments('bert', types=0, pool='mean', **SIZES, **STILL),
    'language_modelling': arguments('gpt2', **SIZES, **STILL),
}
TASKS = tuple(MODELS)


def write(directory: Path, rows: int = 60, seed: int = 0) -> None:
    """`mail.csv`, of texts of one to nine words in two classes, and `notes.txt`."""
    rng = np.random.default_rng(seed)

    def text(words: str) -> str:
        return ' '.join(rng.choice(words.split(), rng.integers(1, 10)))

    table = [(text(WORDS[label]), label) for label in rows // 2 * ['spam', 'ham']]
    with (directory / 'mail.csv').open('w', newline='') as file:
        csv.writer(file).writerows([('body', 'kind'), *table])
    notes = [f' = {number} = \n\n {text(WORDS["ham"])}\n' for number in range(rows)]
    (directory / 'notes.txt').write_text('\n'.join(notes))


def config_of(task: str, directory: Path, policy: Any = 'full', **keys: Any) -> Any:
    """A few steps of a task.

    Args:
      task: one of TASKS.
      directory: where `write` wrote.
      policy: of the transfer.
      keys: others, as section__key.
    """
    config = config_lib.default()
    config.task.name = task
    config.model = MODELS[task]
    config.source.uri = 'somewhere'
    config.data.update(tokenizer=f'bpe({VOCABULARY})', length=LENGTH, holdout=0.2)
    config.data.prepared = str(directory / 'prepared')
    if task == 'classification':
        config.data.update(name='table', dir=str(directory / 'mail.csv'), text='body', label='kind')
    else:
        config.data.update(name='corpus', dir=str(directory / 'notes.txt'))
    config.data.shots = 8
    config.train.update(steps=6, batch_size=8, eval_every=3, save_every=100)
    config.optim.update(name='sgd', lr=0.1, schedule='constant', weight_decay=0.0)
    with config.unlocked():
        config.transfer.policy = policy
        for key, value in keys.items():
            section, name = key.split('__')
            config[section][name] = value
    return config_lib.resolve(config)


def source_of(config: Any) -> experiment_lib.Source:
    """A source of the config's own architecture, drawn at random."""
    model = experiment_lib.build(config, None, injected=False).model
    variables = small_models.scattered(model)
    leaves = experiment_lib.flat_variables(jax.tree.map(np.asarray, variables))
    return experiment_lib.Source(leaves, {'title': 'made here'})


@contextmanager
def quickly() -> Iterator[None]:
    """Compiles for one device and does not optimise: each program runs for a few steps only."""
    mesh = jax.make_mesh((1,), ('data',), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    before = jax.config.read('jax_disable_most_optimizations')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh_lib, 'data_mesh', lambda: mesh)
        jax.config.update('jax_disable_most_optimizations', True)
        try:
            yield
        finally:
            jax.config.update('jax_disable_most_optimizations', before)
