"""From a ranking to what to do first: a source, a policy, a budget, and why."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tljax.study.contenders import RANDOM, reset_of

FEW = 25  # labels a class up to which a frozen backbone is left frozen at first
MANY = 1000  # labels a class from which little is expected of any source
KNOWN = 0.5  # skill, see `rescaled`, from which features are good enough to be left alone
EPOCHS = {'linear_probe': 50, 'head_then_full': 20, 'full': 20}
IN_WORDS = {
    'linear_probe': 'linear probe',
    'head_then_full': 'head, then everything',
    'full': 'full fine-tuning',
}
STEP = 3  # forward passes that a training step of everything costs, about
RULES = {
    'classes': (
        'The first source of the ranking that was trained on something. Linear probe where labels '
        f'are few (up to {FEW} a class) and its features know the target (a probe comes '
        f'{KNOWN:.0%} of the way from guessing to perfect); full fine-tuning where nothing shows '
        'that they know more than untrained ones; else the head first, and then everything (Kumar '
        'et al. 2022).'
    ),
    'tokens': (
        'The first source of the ranking that was trained on something. Its head says the next '
        'token already, so it is kept, and full fine-tuning comes first: there is no new head to '
        'be trained before the rest.'
    ),
}


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """What to train first.

    Attributes:
      source: its name in the ranking; '' where none can be recommended.
      policy: a name of `tljax.transfer.policies`; '' where none can be.
      steps: of training.
      seconds: about what they take on this machine.
      sentence: all of it, with its reasons.
      overrides: for `launch.py train`, with the ranking's own config.
    """

    source: str
    policy: str
    steps: int
    seconds: float
    sentence: str
    overrides: tuple[str, ...]


def recommend(ranking: Mapping[str, Any]) -> Recommendation:
    """Source, policy and budget for a target, by `RULES`.

    Args:
      ranking: of `tljax.study.ranked.results`.
    """
    first = start(ranking['sources'])
    size = size_of(ranking)
    if not usable(first):
        return Recommendation(
            '', '', 0, 0.0, f'{size}: none of these sources can be recommended.', ()
        )
    lifted, many = is_lifted(first), False
    if ranking['kind'] == 'tokens':
        policy = 'full'
        knows = 'scores above' if lifted else 'is not shown to score above'
        reasons = f'{size}; {first["name"]} {knows} the same model untrained'
    else:
        a_class = ranking['available'] / ranking['classes']
        policy = policy_for(a_class, rescaled(first['probe']['mean'], ranking['classes']), lifted)
        many = a_class >= MANY
        knows = (
            'knows more of them than untrained' if lifted else 'is not shown to know any of them'
        )
        reasons = (
            f'{size}; {first["name"]} {knows}, and a probe gets {first["probe"]["mean"]:.0%} right'
        )
    steps, took = budget(ranking, first, policy)
    text = f'{reasons}: {IN_WORDS[policy]} first, {plan(steps, took, EPOCHS[policy])}'
    if policy == 'linear_probe':
        more = plan(*budget(ranking, first, 'head_then_full'), EPOCHS['head_then_full'])
        text += f'; if that is not enough, {IN_WORDS["head_then_full"]}, {more}'
    if not lifted or many:
        text += '; expect little of transfer, and compare it with scratch'
    added = overrides(first, policy, steps, ranking['kind'])
    return Recommendation(first['name'], policy, steps, took, f'{text}.', added)


def size_of(ranking: Mapping[str, Any]) -> str:
    """How much there is to learn from.

    >>> size_of({'kind': 'tokens', 'available': 1200})
    '1,200 sequences'
    >>> size_of({'kind': 'classes', 'available': 40, 'classes': 10})
    '40 labels, 10 classes'
    """
    if ranking['kind'] == 'tokens':
        return f'{ranking["available"]:,} sequences'
    return f'{ranking["available"]:,} labels, {ranking["classes"]:,} classes'


def start(sources: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The first that was trained and can be used; the very first where there is none.

    Untrained models are there to be compared with: from one of them nothing is transferred.
    """
    trained = (s for s in sources if usable(s) and not s['uri'].startswith(RANDOM))
    return next(trained, sources[0])


def usable(source: Mapping[str, Any]) -> bool:
    """Whether a source has a score, and nothing speaks against it that decides."""
    return source['interval']['mean'] is not None and source['worst'] != 'disqualified'


def policy_for(labels_a_class: float, skill: float, lifted: bool) -> str:
    """The policy that `RULES` gives where there are classes.

    >>> policy_for(10, 0.8, True), policy_for(10, 0.1, True), policy_for(10, 0.1, False)
    ('linear_probe', 'head_then_full', 'full')
    """
    if not lifted:
        return 'full'
    return 'linear_probe' if labels_a_class <= FEW and skill >= KNOWN else 'head_then_full'


def rescaled(accuracy: float, classes: int) -> float:
    """Skill: an accuracy's place between guessing (0) and perfect (1).

    >>> rescaled(0.75, 2)
    0.5
    """
    return (accuracy - 1 / classes) / (1 - 1 / classes)


def is_lifted(source: Mapping[str, Any]) -> bool:
    """Whether the whole interval of a source's lead over the same model untrained is above 0.

    Where the untrained model was not scored, a source counts as lifted unless it is untrained.
    """
    if source['lift'] is None:
        return not source['uri'].startswith(RANDOM)
    return source['lift']['low'] is not None and source['lift']['low'] > 0


def budget(ranking: Mapping[str, Any], source: Mapping[str, Any], policy: str) -> tuple[int, float]:
    """Steps, and about the seconds they take here, from what features of an example took."""
    batch = ranking['batch_size']
    steps = -(-ranking['available'] * EPOCHS[policy] // batch)
    features = source['seconds']['features']
    if policy == 'linear_probe':
        return steps, features
    forward = features / (ranking['examples'] + ranking['validation'])
    return steps, STEP * forward * steps * batch


def plan(steps: int, took: float, epochs: int) -> str:
    """A budget in words.

    >>> plan(250, 90.0, 20)
    '250 steps (20 epochs, about 2 min here)'
    """
    time = f'{took / 60:.0f} min' if took >= 60 else f'{max(took, 1):.0f} s'
    return f'{steps:,} steps ({epochs} epochs, about {time} here)'


def overrides(source: Mapping[str, Any], policy: str, steps: int, kind: str) -> tuple[str, ...]:
    """What to add to `launch.py train` or `compare` with the ranking's config, for a shell."""
    changed: dict[str, Any] = {'train.steps': steps}
    if not source['uri'].startswith(RANDOM):
        changed |= {'source.uri': source['uri'], 'model.name': 'source', 'transfer.policy': policy}
        changed |= {'transfer.reset': str(reset_of(kind))}
    return tuple(shlex.quote(f'--config.{key}={value}') for key, value in changed.items())
