"""All scores by name: what each needs, for which tasks it is defined, where it comes from.

Every score is higher for a better source. A score's own module has the formula.
"""

import dataclasses
from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt

from tljax.errors import UserError, nearest
from tljax.ranking import gbc as gbc_lib
from tljax.ranking import h_score as h_score_lib
from tljax.ranking import knn as knn_lib
from tljax.ranking import leep as leep_lib
from tljax.ranking import likelihood as likelihood_lib
from tljax.ranking import logistic_cv as logistic_cv_lib
from tljax.ranking import logme as logme_lib
from tljax.ranking import nleep as nleep_lib
from tljax.ranking import parc as parc_lib
from tljax.ranking import ridge_loo as ridge_loo_lib
from tljax.ranking import transrate as transrate_lib
from tljax.ranking.given import Inputs, inputs
from tljax.ranking.likelihood import Likelihood
from tljax.ranking.spectrum import Features
from tljax.ranking.targets import NotDefined, Targets

CLASSES = frozenset({'classes'})
LABELS = frozenset({'classes', 'tokens'})  # the next token is a label of its position
COLUMNS = LABELS | {'regression', 'multilabel'}  # one regression a column
TASKS = {
    'classes': 'one label an example',
    'regression': 'regression',
    'multilabel': 'several labels an example',
    'tokens': 'the next token at each position',
    'boxes': 'detection or segmentation',
}


NEEDS = {  # beside features, in words
    'probabilities': (
        "the probabilities of the source's own classes, and this source has no classifier"
    ),
    'likelihood': (
        "the source's own head over the tokens that the texts are read as, and this source has none"
    ),
}


@dataclasses.dataclass(frozen=True)
class Score:
    """A transferability score.

    Attributes:
      name: in reports.
      function: of the inputs.
      needs: 'features', 'probabilities' of the source's own classes, or the 'likelihood' of texts
        by its own head.
      kinds: of targets for which it is defined.
      paper: where it comes from.
      why_not: ends the sentence that says why other kinds of targets have none.
      higher_is_better: True for all of ours.
      invariant_to: changes of the features that leave it as it is: 'rotation', 'scale', 'shift'.
    """

    name: str
    function: Callable[[Inputs], float]
    needs: str
    kinds: frozenset[str]
    paper: str
    why_not: str
    higher_is_better: bool = True
    invariant_to: frozenset[str] = frozenset()


def _said(given: Inputs) -> npt.NDArray[np.float64]:
    """The source's probabilities, which `check_defined` has asked for."""
    if given.probabilities_NxS is None:
        raise ValueError("the probabilities of the source's own classes are missing")
    return given.probabilities_NxS


def _likelihood(given: Inputs) -> float:
    if given.likelihood is None:
        raise ValueError("the likelihood of the texts by the source's own head is missing")
    return likelihood_lib.log_likelihood(given.likelihood)


SCORES: dict[str, Score] = {
    s.name: s
    for s in (
        Score(
            'logme',
            lambda given: logme_lib.logme(given.features, given.targets),
            'features',
            COLUMNS,
            'You et al. 2021, LogME: Practical Assessment of Pre-trained Models',
            'it is the evidence of one linear model a target column',
            invariant_to=frozenset({'rotation', 'scale'}),
        ),
        Score(
            'h_score',
            lambda given: h_score_lib.h_score(given.features, given.targets),
            'features',
            CLASSES,
            'Bao et al. 2019, An Information-Theoretic Approach to Transferability',
            'it compares the means of classes, which takes several examples of each',
            invariant_to=frozenset({'rotation', 'scale', 'shift'}),
        ),
        Score(
            'shrunk_h_score',
            lambda given: h_score_lib.shrunk_h_score(given.features, given.targets),
            'features',
            CLASSES,
            'Ibrahim et al. 2021, Newer is not always better',
            'it compares the means of classes, which takes several examples of each',
            invariant_to=frozenset({'rotation', 'scale', 'shift'}),
        ),
        Score(
            'transrate',
            lambda given: transrate_lib.transrate(given.features, given.targets),
            'features',
            CLASSES,
            'Huang et al. 2022, Frustratingly Easy Transferability Estimation',
            'it compares the coding rates of classes, which takes several examples of each',
            invariant_to=frozenset({'rotation', 'scale', 'shift'}),
        ),
        Score(
            'ridge_loo',
            lambda given: ridge_loo_lib.ridge_loo(given.features, given.targets),
            'features',
            COLUMNS,
            'Allen 1974; Golub, Heath and Wahba 1979',
            'it is one linear model a target column',
            invariant_to=frozenset({'rotation', 'scale', 'shift'}),
        ),
        Score(
            'leep',
            lambda given: leep_lib.leep(_said(given), given.targets),
            'probabilities',
            CLASSES,
            'Nguyen et al. 2020, LEEP',
            'it counts pairs of a label and a class of the source, of which there must be fewer '
            'than examples',
            invariant_to=frozenset(),
        ),
        Score(
            'nce',
            lambda given: leep_lib.nce(_said(given), given.targets),
            'probabilities',
            CLASSES,
            'Tran, Nguyen and Hassner 2019, Transferability and Hardness',
            'it counts pairs of a label and a class of the source, of which there must be fewer '
            'than examples',
            invariant_to=frozenset(),
        ),
        Score(
            'nleep',
            lambda given: nleep_lib.nleep(given.features, given.targets, given.seed),
            'features',
            CLASSES,
            'Li et al. 2021, Ranking Neural Checkpoints',
            'it fits five Gaussians to a class, which takes several examples of each',
            invariant_to=frozenset({'scale', 'shift'}),
        ),
        Score(
            'gbc',
            lambda given: gbc_lib.gbc(given.features, given.targets),
            'features',
            CLASSES,
            'Pandy et al. 2022, Bhattacharyya Class Separability',
            'it compares the Gaussians of classes, which takes several examples of each',
            invariant_to=frozenset({'rotation', 'scale', 'shift'}),
        ),
        Score(
            'parc',
            lambda given: parc_lib.parc(given.features, given.targets, seed=given.seed),
            'features',
            LABELS,
            'Bolya, Mittapalli and Hoffman 2021, Scalable Diverse Model Selection',
            'it compares pairs of labels',
            invariant_to=frozenset({'rotation', 'scale', 'shift'}),
        ),
        Score(
            'knn',
            lambda given: knn_lib.knn(given.features, given.targets, seed=given.seed),
            'features',
            LABELS,
            'Cover and Hart 1967; Meiseles and Rokach 2020',
            'neighbours vote for a class',
            invariant_to=frozenset({'rotation', 'scale', 'shift'}),
        ),
        Score(
            'logistic_cv',
            lambda given: logistic_cv_lib.logistic_cv(
                given.features, given.targets, seed=given.seed
            ),
            'features',
            LABELS,
            'Stone 1974, Cross-Validatory Choice',
            'it predicts one class an example',
            invariant_to=frozenset({'rotation', 'scale', 'shift'}),
        ),
        Score(
            'log_likelihood',
            _likelihood,
            'likelihood',
            frozenset({'tokens'}),
            'Jelinek et al. 1977, Perplexity; Radford et al. 2019, section 3.1',
            'it is of the next word of a text',
        ),
    )
}


def score(
    name: str,
    features: npt.ArrayLike | Features | None,
    targets: Targets,
    probabilities: npt.ArrayLike | None = None,
    seed: int = 0,
    likelihood: Likelihood | None = None,
) -> float:
    """One score of one source on a target.

    Args:
      name: a key of `SCORES`.
      features: (N, D), finite; or `Features` of them, whose decomposition further scores share.
        None will do for a score that needs probabilities or the likelihood only.
      targets: of the same N examples.
      probabilities: (N, S) of the source's own classifier, rows that add up to 1.
      seed: of scores that draw anything.
      likelihood: of the texts that the examples are positions of, by the source's own head.

    Returns:
      A finite number, higher for a better source.

    Raises:
      UserError: an unknown name.
      NotDefined: the score has no variant for these targets, or the source no such head.
      ValueError: features, targets or probabilities of another number of examples, not finite, or
        no probabilities.

    >>> x, y = np.array([[0.0], [0.1], [1.0], [1.1]]), np.array([0, 0, 1, 1])
    >>> round(score('logme', x, Targets('classes', y)), 3)
    -0.276
    """
    chosen = SCORES.get(name)
    if chosen is None:
        raise UserError(f'No score is named {name!r}.{nearest(name, SCORES)}')
    given_of = {'probabilities': probabilities, 'likelihood': likelihood}
    check_defined(chosen, targets, [name for name, value in given_of.items() if value is not None])
    given = inputs(features, targets, probabilities, seed, likelihood)
    return float(chosen.function(given))


def check_defined(chosen: Score, targets: Targets, given: Collection[str]) -> None:
    """Raises `NotDefined` where a score has no variant for a task or a source.

    Args:
      chosen: the score.
      targets: of the task.
      given: what a source has beside features: 'probabilities', 'likelihood'.

    >>> check_defined(SCORES['logme'], Targets('boxes', [[], []]), ())
    Traceback (most recent call last):
    tljax.ranking.targets.NotDefined: logme is not defined for detection or segmentation: it is the
    evidence of one linear model a target column.
    """
    check_kind(chosen, targets.kind)
    if chosen.needs in NEEDS and chosen.needs not in given:
        raise NotDefined(f'{chosen.name} needs {NEEDS[chosen.needs]}.')


def check_kind(chosen: Score, kind: str) -> None:
    """Raises `NotDefined` where a score has no variant for a kind of targets."""
    if kind not in chosen.kinds:
        raise NotDefined(f'{chosen.name} is not defined for {TASKS[kind]}: {chosen.why_not}.')
