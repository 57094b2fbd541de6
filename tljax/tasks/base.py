"""What every task gives, and how one is found by name."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from tljax.errors import UserError, nearest
from tljax.tasks import counts as counts_lib

TASKS = {
    'classification': 'tljax.tasks.classification:Classification',
    'language_modelling': 'tljax.tasks.language_modelling:LanguageModelling',
}
Batch = Mapping[str, jax.Array]


class Task(Protocol):
    """What is learnt: batch -> loss, metrics, predictions.

    Attributes:
      metric: name of the headline metric, one of those that `sums` gives.
      chance: its value for guessing.
      ceiling: its best possible value, or None where there is none.
      higher_is_better: its direction.
      outputs: size of the model's head.
    """

    metric: str
    chance: float
    ceiling: float | None
    higher_is_better: bool

    @property
    def outputs(self) -> int: ...

    def loss(
        self, model: Any, batch: Batch, rng: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The scalar to minimise (a mean over the batch), and further scalars to log."""
        ...

    def sums(self, model: Any, batch: Batch) -> dict[str, jax.Array]:
        """Metrics as sums over examples, `weight` among them: they add up over batches.

        Scalars, and vectors under the names of `tljax.tasks.counts`.
        """
        ...

    def predict(self, model: Any, batch: Batch) -> dict[str, jax.Array]:
        """Arrays with one row an example."""
        ...

    def describe(self, predictions: Mapping[str, Any], row: int) -> dict[str, Any]:
        """One example's prediction in words, for `launch.py predict`."""
        ...


def create(
    config: Mapping[str, Any],
    label_names: tuple[str, ...],
    counts: Callable[[], Sequence[int]] | None = None,
    vocabulary: int = 0,
) -> Task:
    """The task that `config.task` names.

    Args:
      config: the section `config.task`.
      label_names: of the classes.
      counts: gives the training examples of each class, for a task that weighs classes.
      vocabulary: tokens of the texts, for a task that gives tokens.

    Raises:
      UserError: there is no such task.
    """
    arguments = dict(config)
    name = arguments.pop('name')
    if name not in TASKS:
        raise UserError(f'config.task.name: no task {name!r}.{nearest(name, TASKS)}')
    module, _, attribute = TASKS[name].partition(':')
    if name == 'language_modelling':
        arguments['vocabulary'] = vocabulary
    if arguments.pop('balance', 'none') == 'loss' and name == 'classification':
        arguments['counts'] = tuple(counts()) if counts else ()
    return getattr(importlib.import_module(module), attribute)(label_names, **arguments)


def mean_metrics(sums: Mapping[str, Any]) -> dict[str, float]:
    """Turns sums over examples into means, and counts of classes into what they tell.

    >>> mean_metrics({'weight': 4.0, 'accuracy': 3.0})
    {'accuracy': 0.75}
    """
    weight = float(sums['weight'])
    apart = ('weight', *counts_lib.COUNTS)
    means = {name: float(value) / weight for name, value in sums.items() if name not in apart}
    words = {'perplexity': float(np.exp(min(means['loss'], 700.0)))} if 'top5' in means else {}
    return means | words | counts_lib.metrics(sums)
