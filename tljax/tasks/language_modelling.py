"""The next word of a text."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from tljax.errors import UserError
from tljax.tasks.base import Target, means

METRICS = ('accuracy', 'top5', 'perplexity', 'log_perplexity')
LARGEST = 700.0  # nats whose exp is still a number


@dataclasses.dataclass(frozen=True)
class LanguageModelling:
    """Cross-entropy of each token given those before it in its document.

    Metrics are by word, what stands between white space, so that tokenizers can be compared:
    'log_perplexity', the sum of all tokens' losses over the number of words, in nats, a
    difference of 1 in which is a factor of e in 'perplexity', its exp; 'accuracy', the share of
    words each of whose tokens is the likeliest one, given the true ones before it; 'top5', where
    each is among the five likeliest.

    Args:
      vocabulary: tokens, the outputs of the model.
      label_smoothing: as in classification.
      metric: the headline.
      tokens_per_word: on average, for the chance level.

    Raises:
      UserError: no such metric.
    """

    vocabulary: int
    label_smoothing: float = 0.0
    metric: str = 'accuracy'
    tokens_per_word: float = 1.0

    kind: ClassVar[str] = 'tokens'

    def __post_init__(self):
        if self.metric not in METRICS:
            raise UserError(
                f'config.task.metric is {self.metric!r}; language modelling takes one of {METRICS}.'
            )

    @classmethod
    def create(cls, config: Mapping[str, Any], target: Target) -> 'LanguageModelling':
        if 'words' not in target.example:
            raise UserError(
                'config.task.name is language_modelling, and the data is no text without labels.'
            )
        smoothing, metric = config['label_smoothing'], config['metric']
        return cls(target.vocabulary, smoothing, metric, target.tokens_per_word())

    @property
    def higher_is_better(self) -> bool:
        return not self.metric.endswith('perplexity')

    @property
    def ceiling(self) -> float:
        return 0.0 if self.metric == 'log_perplexity' else 1.0

    @property
    def chance(self) -> float:
        """Of guessing every token alike, each word having as many as they have on average."""
        nats = math.log(self.vocabulary) * self.tokens_per_word
        return {
            'log_perplexity': nats,
            'perplexity': math.exp(min(nats, LARGEST)),
            'accuracy': math.exp(-nats),
            'top5': math.exp(math.log(5) * self.tokens_per_word - nats),
        }[self.metric]

    @property
    def outputs(self) -> int:
        return self.vocabulary

    def loss(self, model: Any, batch: Mapping[str, jax.Array], rng: jax.Array):
        logits_BxLxV = model(batch, rngs=nnx.Rngs(dropout=rng))[:, :-1]
        next_BxL, real_BxL = batch['tokens'][:, 1:], learnt(batch)
        if self.label_smoothing:
            hot = optax.smooth_labels(
                jax.nn.one_hot(next_BxL, self.vocabulary), self.label_smoothing
            )
            losses_BxL = optax.softmax_cross_entropy(logits_BxLxV, hot)
        else:
            losses_BxL = optax.softmax_cross_entropy_with_integer_labels(logits_BxLxV, next_BxL)
        hits_BxL = (logits_BxLxV.argmax(-1) == next_BxL) * real_BxL
        count = jnp.maximum(real_BxL.sum(), 1)
        return (losses_BxL * real_BxL).sum() / count, {'token_accuracy': hits_BxL.sum() / count}

    def scored(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """(B, L) float32: 1 where there is a next token, of the same document."""
        return jnp.pad(learnt(batch), ((0, 0), (0, 1)))

    def sums(self, model: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        logits_BxLxV = model(batch)[:, :-1]
        next_BxL, real_BxL = batch['tokens'][:, 1:], learnt(batch)
        losses_BxL = optax.softmax_cross_entropy_with_integer_labels(logits_BxLxV, next_BxL)
        true_BxLx1 = jnp.take_along_axis(logits_BxLxV, next_BxL[:, :, None], -1)
        above_BxL = (logits_BxLxV > true_BxLx1).sum(-1)
        words_BxL = words(batch)
        weight_B = batch['weight']
        return {
            'loss': ((losses_BxL * real_BxL).sum(1) * weight_B).sum(),
            'accuracy': (hits(words_BxL, above_BxL < 1) * weight_B).sum(),
            'top5': (hits(words_BxL, above_BxL < 5) * weight_B).sum(),
            'weight': (words_BxL.max(1) * weight_B).sum(),
        }

    def likelihood(self, model: Any, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Log-likelihood of each sequence in nats, summed over its tokens, and its words: (B,)."""
        losses_BxL = optax.softmax_cross_entropy_with_integer_labels(
            model(batch)[:, :-1], batch['tokens'][:, 1:]
        )
        return -(losses_BxL * learnt(batch)).sum(1), words(batch).max(1)

    def places(self, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """What is asked behind each token but the last: the next, (B, L - 1), and whether it is."""
        return batch['tokens'][:, 1:], learnt(batch) > 0

    def metrics(self, sums: Mapping[str, Any]) -> dict[str, float]:
        found = means(sums)
        nats = found['loss']
        return found | {'log_perplexity': nats, 'perplexity': math.exp(min(nats, LARGEST))}

    def predict(self, model: Any, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {'logits': model(batch)}

    def describe(self, predictions: Mapping[str, Any], row: int) -> dict[str, Any]:
        """The likeliest token after the last."""
        return {'token': int(predictions['logits'][row, -1].argmax())}


def learnt(batch: Mapping[str, jax.Array]) -> jax.Array:
    """(B, L - 1) float32: 1 where the next token is of the same document."""
    segments_BxL = batch['segments']
    same = (segments_BxL[:, 1:] == segments_BxL[:, :-1]) & (segments_BxL[:, 1:] > 0)
    return same.astype(jnp.float32)


def words(batch: Mapping[str, jax.Array]) -> jax.Array:
    """(B, L - 1): the word of each next token, 1, 2, ...; 0 where none is asked for."""
    return jnp.where(learnt(batch) > 0, batch['words'][:, 1:], 0)


def hits(words_BxL: jax.Array, right_BxL: jax.Array) -> jax.Array:
    """How many words have no wrong token, (B,).

    Args:
      words_BxL: the word of each token, 1, 2, ...; 0 is none.
      right_BxL: whether it was predicted.

    >>> hits(jnp.array([[1, 1, 0, 2, 3]]), jnp.array([[True, False, False, True, True]])).tolist()
    [2.0]
    """
    length = words_BxL.shape[1]
    of_word_BxLxW = jax.nn.one_hot(words_BxL, length + 1)[:, :, 1:]
    wrong_BxW = jnp.einsum('blw,bl->bw', of_word_BxLxW, 1.0 - right_BxL)
    return ((of_word_BxLxW.sum(1) > 0) & (wrong_BxW == 0)).sum(1).astype(jnp.float32)
