"""How likely a language model finds texts that it has not been trained on."""

import dataclasses

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True, eq=False)
class Likelihood:
    """What a source's own head makes of M texts; not the (positions, vocabulary) table.

    Attributes:
      nats_M: log-likelihood of each text, summed over its tokens: 0 or less.
      words_M: words of each, whatever its tokens.

    Raises:
      ValueError: another shape, something that is not finite, a likelihood above 1, or no words.
    """

    nats_M: npt.NDArray[np.float64]
    words_M: npt.NDArray[np.float64]

    def __post_init__(self):
        for name in ('nats_M', 'words_M'):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        nats_M, words_M = self.nats_M, self.words_M
        if nats_M.ndim != 1 or nats_M.shape != words_M.shape:
            raise ValueError(
                f'log-likelihoods of shape {nats_M.shape} and words of shape {words_M.shape}: both '
                'are (texts,)'
            )
        if not (np.isfinite(nats_M).all() and np.isfinite(words_M).all()):
            raise ValueError('log-likelihoods and words must be finite')
        if (nats_M > 0).any() or (words_M < 0).any() or not words_M.sum():
            raise ValueError('log-likelihoods are 0 or less, and there is a word at least')

    def __len__(self) -> int:
        return len(self.nats_M)

    def of(self, chosen: npt.NDArray[np.integer]) -> 'Likelihood':
        """That of some texts."""
        return Likelihood(self.nats_M[chosen], self.words_M[chosen])


def log_likelihood(found: Likelihood) -> float:
    """Mean log-likelihood of a word: minus the logarithm of the perplexity by word.

    sum_i log p(t_i | t_1 ... t_(i - 1) of its document) / number of words, over all tokens t_i that
    have one before them. Perplexity is of Jelinek, Mercer, Bahl and Baker 1977 (Perplexity, a
    measure of the difficulty of speech recognition tasks); taken of a text that a model has not
    been trained on, and divided by words however they are cut into tokens, it compares models with
    different tokenizers (Radford et al. 2019, Language Models are Unsupervised Multitask Learners,
    section 3.1). Only the probability of each true token is needed. A source that is sure of the
    wrong words, its own texts being others, can be below a model that has learnt nothing.

    Returns:
      Nats a word, 0 or less.

    >>> log_likelihood(Likelihood([-6.0, -2.0], [3, 1]))
    -2.0
    """
    return float(found.nats_M.sum() / found.words_M.sum())
