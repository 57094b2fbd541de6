"""LEEP and NCE: how well the source's own classes tell the target's."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tljax.ranking.spectrum import BLOCK
from tljax.ranking.targets import Targets

Array = npt.NDArray[np.float64]


def leep(probabilities_NxS: Array, targets: Targets) -> float:
    """Mean log-likelihood of labels under the expected empirical predictor.

    Nguyen et al. 2020, LEEP, section 3, equations 1 and 2: with P(y, z) the mean over examples of
    label y of the source's probability of z, the mean over examples of
    log sum_z P(y_i | z) theta(x_i)_z.

    Args:
      probabilities_NxS: of the source's own S classes, rows that add up to 1.
      targets: classes.

    Returns:
      Nats, 0 or less.

    >>> leep(np.eye(2)[[0, 0, 1, 1]], Targets('classes', [1, 1, 0, 0]))
    0.0
    """
    given_CxS = conditional(probabilities_NxS, targets.present_N)
    likelihood_N = np.empty(len(targets))
    for rows in blocks(probabilities_NxS):
        own_RxS = given_CxS[targets.present_N[rows]]
        likelihood_N[rows] = np.einsum('ns,ns->n', probabilities_NxS[rows], own_RxS)
    return float(np.log(likelihood_N).mean())


def nce(probabilities_NxS: Array, targets: Targets) -> float:
    """Negative conditional entropy of labels, given the source's most probable class.

    Tran, Nguyen and Hassner 2019, Transferability and Hardness of Supervised Classification Tasks,
    section 4: -H(Y | Z) of the empirical distribution of pairs.

    Args:
      probabilities_NxS: of the source's own S classes; of equals the first counts.
      targets: classes.

    Returns:
      Nats, 0 or less.

    >>> round(nce(np.eye(2)[[0, 0, 1, 1]], Targets('classes', [0, 1, 1, 1])), 4)
    -0.3466
    """
    hard_N, labels_N = probabilities_NxS.argmax(1), targets.present_N
    joint_CxS = np.zeros((labels_N.max() + 1, probabilities_NxS.shape[1]))
    np.add.at(joint_CxS, (labels_N, hard_N), 1)
    return float(np.log(joint_CxS[labels_N, hard_N] / joint_CxS.sum(0)[hard_N]).mean())


def conditional(probabilities_NxS: Array, labels_N: npt.NDArray[np.integer]) -> Array:
    """P(y | z), (C, S); 0 for classes of the source that have no probability anywhere."""
    joint_CxS = np.zeros((labels_N.max() + 1, probabilities_NxS.shape[1]))
    for rows in blocks(probabilities_NxS):
        own_CxR = np.arange(len(joint_CxS))[:, None] == labels_N[rows]
        joint_CxS += own_CxR.astype(np.float64) @ probabilities_NxS[rows]
    total_1xS = joint_CxS.sum(0, keepdims=True)
    return np.divide(joint_CxS, total_1xS, out=np.zeros_like(joint_CxS), where=total_1xS > 0)


def blocks(table_NxS: Array) -> Iterator[slice]:
    """Rows, some at a time, so that nothing as large as the table is held beside it."""
    step = max(1, BLOCK // table_NxS.shape[1])
    for first in range(0, len(table_NxS), step):
        yield slice(first, first + step)
