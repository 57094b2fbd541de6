"""What every task gives, and how one is found by name."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax

from tljax.errors import UserError, nearest

TASKS = {
    'classification': 'tljax.tasks.classification:Classification',
    'language_modelling': 'tljax.tasks.language_modelling:LanguageModelling',
}
Batch = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Target:
    """What a task may need to know of the data.

    Attributes:
      label_names: of the classes.
      example: shape and dtype of each of an example's arrays.
      vocabulary: tokens of the texts, 0 without texts.
      tokens_per_word: gives their mean over the words of the training texts.
      counts: gives the training examples of each class.
    """

    label_names: tuple[str, ...] = ()
    example: Mapping[str, jax.ShapeDtypeStruct] = dataclasses.field(default_factory=dict)
    vocabulary: int = 0
    counts: Callable[[], Sequence[int]] = tuple
    tokens_per_word: Callable[[], float] = lambda: 1.0


class Task(Protocol):
    """What is learnt: batch -> loss, metrics, predictions.

    Attributes:
      metric: name of the headline metric, one of those that `sums` gives.
      chance: its value for guessing.
      ceiling: its best possible value, or None where there is none.
      higher_is_better: its direction.
      kind: of what it asks of an example, one of `tljax.ranking.targets.KINDS`.
      outputs: size of the model's head.
    """

    kind: str
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

    def scored(self, batch: Batch) -> jax.Array | None:
        """Which of the predictions of an example that has many the loss looks at.

        Returns:
          (B, P) float32, 1 or 0 at each of the model's (B, P, outputs); None is all.
        """
        ...

    def sums(self, model: Any, batch: Batch) -> dict[str, jax.Array]:
        """Metrics as sums over examples, scalars or vectors: they add up over batches."""
        ...

    def metrics(self, sums: Mapping[str, Any]) -> dict[str, float]:
        """The metrics that such sums, of all batches, tell: 'loss' and the headline among them."""
        ...

    def predict(self, model: Any, batch: Batch) -> dict[str, jax.Array]:
        """Arrays with one row an example."""
        ...

    def describe(self, predictions: Mapping[str, Any], row: int) -> dict[str, Any]:
        """One example's prediction in words, for `launch.py predict`."""
        ...


class TokenTask(Task, Protocol):
    """A task of the kind 'tokens': an example is a text, and each place in it has a label."""

    def places(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """The labels of the first L - 1 places, (batch, L - 1) each, and whether they count."""
        ...

    def likelihood(self, model: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Log-likelihood of each text in nats, and its words: (batch,) each."""
        ...


def create(config: Mapping[str, Any], target: Target) -> Task:
    """The task that `config.task` names; each reads of that section what concerns it.

    Raises:
      UserError: there is no such task, or it makes no sense for this target.
    """
    return class_of(config['name']).create(config, target)


def kind_of(config: Mapping[str, Any]) -> str:
    """What the task that `config.task` names asks of an example, whatever the data.

    Raises:
      UserError: there is no such task.

    >>> kind_of({'name': 'language_modelling'})
    'tokens'
    """
    return class_of(config['name']).kind


def class_of(name: str) -> Any:
    if name not in TASKS:
        raise UserError(f'config.task.name: no task {name!r}.{nearest(name, TASKS)}')
    module, _, attribute = TASKS[name].partition(':')
    return getattr(importlib.import_module(module), attribute)


def means(sums: Mapping[str, Any]) -> dict[str, float]:
    """Sums over examples, `weight` among them, as means.

    >>> means({'weight': 4.0, 'accuracy': 3.0})
    {'accuracy': 0.75}
    """
    weight = float(sums['weight'])
    return {name: float(value) / weight for name, value in sums.items() if name != 'weight'}
