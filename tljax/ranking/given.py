"""What scores look at, checked together."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tljax.ranking.likelihood import Likelihood
from tljax.ranking.spectrum import Features, as_features
from tljax.ranking.targets import Targets


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no one truth to compare by
class Inputs:
    """What a score may look at.

    Attributes:
      features: the source's features of the target's examples, with their shared spectra.
      targets: of the same examples.
      probabilities_NxS: the source's own classifier on them, or None.
      likelihood: of the texts that positions are of, by the source's own head, or None.
      seed: of scores that draw anything.
    """

    features: Features
    targets: Targets
    probabilities_NxS: npt.NDArray[np.float64] | None = None
    likelihood: Likelihood | None = None
    seed: int = 0


def inputs(
    features: Any,
    targets: Targets,
    probabilities: npt.ArrayLike | None = None,
    seed: int = 0,
    likelihood: Likelihood | None = None,
) -> Inputs:
    """Checked together: see `tljax.ranking.scores.score` for arguments and errors.

    >>> inputs([[1.0], [2.0]], Targets('regression', [1.0, 2.0, 3.0]))
    Traceback (most recent call last):
    ValueError: features of 2 examples, but targets of 3
    """
    if features is None:
        features = np.zeros((len(targets), 1))
    features = as_features(features)
    if len(features) != len(targets):
        raise ValueError(f'features of {len(features)} examples, but targets of {len(targets)}')
    table = None if probabilities is None else _probabilities(probabilities, len(targets))
    return Inputs(features, targets, table, likelihood, seed)


def _probabilities(values: npt.ArrayLike, count: int) -> npt.NDArray[np.float64]:
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or len(table) != count:
        raise ValueError(
            f'probabilities are ({count} examples, source classes), not an array of {table.shape}'
        )
    # float32 softmax over thousands of classes adds up to 1 within about 1e-5.
    if not (table >= 0).all() or not (np.abs(table.sum(1) - 1) < 1e-3).all():
        raise ValueError('probabilities must not be negative and must add up to 1 for each example')
    return table
