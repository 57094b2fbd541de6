"""Transferability scores: which source suits a target, from its features, without training it."""

from tljax.ranking.given import Inputs, inputs
from tljax.ranking.likelihood import Likelihood
from tljax.ranking.scores import SCORES, Score, score
from tljax.ranking.spectrum import Features
from tljax.ranking.targets import NotDefined, Targets

__all__ = [
    'SCORES',
    'Features',
    'Inputs',
    'Likelihood',
    'NotDefined',
    'Score',
    'Targets',
    'inputs',
    'score',
]
