"""One label an example."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from tljax.errors import UserError
from tljax.tasks import counts as class_counts
from tljax.tasks.base import Target, means

METRICS = ('accuracy', 'balanced_accuracy', 'macro_f1', 'auc', 'recall_at_fpr')


@dataclasses.dataclass(frozen=True)
class Classification:
    """Softmax cross-entropy; accuracy, from chance (1 / classes) to its ceiling 1.

    Args:
      label_names: one name a class.
      label_smoothing: share of the target probability spread evenly over all classes (Szegedy et
        al. 2016, section 7).
      counts: training examples of each class: a class with fewer weighs more in the loss, so that
        all together weigh alike (King and Zeng 2001, section 4): n / (classes * count), whose
        mean over the training examples is 1. () weighs all examples alike.
      metric: the headline: 'accuracy', or one of `tljax.tasks.counts.metrics`.

    Raises:
      UserError: no labels, or fewer than two classes.
    """

    label_names: tuple[str, ...]
    label_smoothing: float = 0.0
    counts: tuple[int, ...] = ()
    metric: str = 'accuracy'

    kind: ClassVar[str] = 'classes'
    ceiling: ClassVar[float] = 1.0
    higher_is_better: ClassVar[bool] = True

    def __post_init__(self):
        if not self.label_names:
            raise UserError(
                "config.task.name is 'classification', and the data has no labels. Say where they "
                "are (config.data.label), or take task.name='language_modelling'."
            )
        if len(self.label_names) < 2:
            raise UserError(
                f'classification needs two classes at least; the data has {self.label_names}. '
                'Check config.data.classes.'
            )
        known = METRICS if len(self.label_names) == 2 else METRICS[:3]
        if self.metric not in known:
            raise UserError(
                f'config.task.metric is {self.metric!r}; with {len(self.label_names)} classes it '
                f'takes one of {known}.'
            )

    @classmethod
    def create(cls, config: Mapping[str, Any], target: Target) -> 'Classification':
        counts = tuple(target.counts()) if config['balance'] == 'loss' else ()
        return cls(target.label_names, config['label_smoothing'], counts, config['metric'])

    @property
    def chance(self) -> float:
        """Of guessing every class as often; of two classes' scores, of any order."""
        fixed = {'auc': 0.5, 'recall_at_fpr': class_counts.FALSE_ALARMS}
        return fixed.get(self.metric, 1 / len(self.label_names))

    @property
    def outputs(self) -> int:
        return len(self.label_names)

    def loss(self, model: Any, batch: Mapping[str, jax.Array], rng: jax.Array):
        logits_BxC = model(batch, rngs=nnx.Rngs(dropout=rng))
        target_BxC = self.targets(batch)
        losses_B, hits_B = self._score(logits_BxC, target_BxC, self.label_smoothing)
        if self.counts:
            losses_B = losses_B * (target_BxC @ self.weights())
        return losses_B.mean(), {'accuracy': hits_B.mean()}

    def scored(self, batch: Mapping[str, jax.Array]) -> None:
        """An example has one prediction."""

    def weights(self) -> jax.Array:
        """Weight of each class in the loss, (classes,) float32.

        >>> Classification(('a', 'b'), counts=(6, 2)).weights().tolist()
        [0.66..., 2.0]
        """
        counts_C = jnp.asarray(self.counts, jnp.float32)
        weights_C = counts_C.sum() / (len(self.counts) * jnp.maximum(counts_C, 1))
        return jnp.where(counts_C > 0, weights_C, 0.0)

    def sums(self, model: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        logits_BxC = model(batch)
        losses_B, hits_B = self._score(logits_BxC, self.targets(batch), 0.0)
        weight_B = batch['weight']
        return {
            **class_counts.counts(logits_BxC, batch['label'], weight_B),
            'loss': (losses_B * weight_B).sum(),
            'accuracy': (hits_B * weight_B).sum(),
            'weight': weight_B.sum(),
        }

    def metrics(self, sums: Mapping[str, Any]) -> dict[str, float]:
        scalars = {name: value for name, value in sums.items() if name not in class_counts.COUNTS}
        found = means(scalars) | class_counts.metrics(sums)
        if self.metric not in found:
            held = zip(self.label_names, sums['is_of_class'], strict=True)
            lacking = ', '.join(name for name, count in held if not count)
            raise UserError(
                f'config.task.metric is {self.metric!r}, which is not defined for examples none of '
                f'which is of the class {lacking}: a split that is evaluated has none. Raise '
                'config.data.holdout or .test_share, name other splits, or take another metric.'
            )
        return found

    def predict(self, model: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {'probabilities': jax.nn.softmax(model(batch))}

    def describe(self, predictions: Mapping[str, Any], row: int) -> dict[str, Any]:
        probabilities_C = predictions['probabilities'][row]
        best = int(probabilities_C.argmax())
        return {'label': self.label_names[best], 'probability': float(probabilities_C[best])}

    def targets(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """Each class's share of each example, before smoothing: (batch, classes).

        Args:
          batch: with `label`; mixed examples have `other_label` too, and `share` of the first.
        """
        first_BxC = jax.nn.one_hot(batch['label'], len(self.label_names))
        if 'other_label' not in batch:
            return first_BxC
        other_BxC = jax.nn.one_hot(batch['other_label'], len(self.label_names))
        share_Bx1 = batch['share'][:, None]
        return share_Bx1 * first_BxC + (1 - share_Bx1) * other_BxC

    def _score(self, logits_BxC, target_BxC, smoothing):
        smoothed_BxC = optax.smooth_labels(target_BxC, smoothing)
        losses_B = optax.softmax_cross_entropy(logits_BxC, smoothed_BxC)
        # Of a mixed example, the share of the label that was hit.
        hits_B = jnp.take_along_axis(target_BxC, logits_BxC.argmax(-1)[:, None], 1)[:, 0]
        return losses_B, hits_B
