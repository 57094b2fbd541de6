"""What a source makes of a target's examples, as scores read it."""

import dataclasses
import functools

import numpy as np
import numpy.typing as npt

from tljax.ranking.likelihood import Likelihood
from tljax.ranking.scores import SCORES, score
from tljax.ranking.spectrum import Features
from tljax.ranking.targets import Targets
from tljax.study.halves import halves
from tljax.train.experiment import Experiment

Array = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """What a source makes of M examples of one split.

    A row is what a score counts as an example: an image or text with its label, or a position in a
    text with the next token. Rows of one text depend on one another, so halves are of texts.

    Attributes:
      kind: of the targets, one of `tljax.ranking.targets.KINDS`.
      features_NxD: what the head reads; of maps the mean over places.
      labels_N: of the target.
      example_N: which of the M examples each row belongs to, ascending.
      examples: M.
      total: examples that there are, M of which were read.
      probabilities_NxS: of the source's own S classes; None where it has no classifier.
      likelihood: of the M texts by the source's own head; None where it has none, or no texts.
    """

    kind: str
    features_NxD: npt.NDArray[np.floating]
    labels_N: npt.NDArray[np.integer]
    example_N: npt.NDArray[np.integer]
    examples: int
    total: int
    probabilities_NxS: Array | None = None
    likelihood: Likelihood | None = None

    @functools.cached_property
    def features(self) -> Features:
        """Whose spectra all scores share."""
        return Features(self.features_NxD)

    def of(self, chosen: npt.NDArray[np.integer]) -> 'Split':
        """Some of the M examples, given in ascending order."""
        place_M = np.full(self.examples, -1)
        place_M[chosen] = np.arange(len(chosen))
        rows = place_M[self.example_N] >= 0
        said, likelihood = self.probabilities_NxS, self.likelihood
        return dataclasses.replace(
            self,
            features_NxD=self.features_NxD[rows],
            labels_N=self.labels_N[rows],
            example_N=place_M[self.example_N[rows]],
            examples=len(chosen),
            probabilities_NxS=None if said is None else said[rows],
            likelihood=None if likelihood is None else likelihood.of(chosen),
        )

    def halves(self, resamples: int, seed: int) -> list[npt.NDArray[np.intp]]:
        """Random halves of the examples; where each has one label, halves of every class."""
        whole = self.kind == 'tokens'
        strata_M = np.zeros(self.examples, int) if whole else self.labels_N
        return halves(strata_M, resamples, seed)

    def score(self, name: str, seed: int) -> float:
        """A score of these examples; see `tljax.ranking.scores.score` for the errors."""
        features = self.features if SCORES[name].needs == 'features' else None
        targets = Targets(self.kind, self.labels_N)
        return score(name, features, targets, self.probabilities_NxS, seed, self.likelihood)


@dataclasses.dataclass(frozen=True)
class Extracted:
    """A source on a target.

    Attributes:
      experiment: the linear probe whose features these are; of texts, the source as it is.
      train: the target's labelled subset.
      validation: its validation split.
      seconds: that computing features took, compilation included.
      nbytes: of the features as they are kept.
      params: numbers in the backbone.
    """

    experiment: Experiment
    train: Split
    validation: Split
    seconds: float
    nbytes: int
    params: int
