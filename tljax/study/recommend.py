"""From a ranking to what to do first: a source, a policy, a budget, and why."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tljax.study.contenders import RANDOM, reset_of

MANY = 1000  # labels a class from which little is expected of any source
KNOWN = 0.5  # skill, see `rescaled`, from which features are worth keeping while a head is trained
EPOCHS = 20  # that are enough where labels are plentiful
MOST_EPOCHS = 1000  # that a config's own steps may be of few labels
IN_WORDS = {'head_then_full': 'head, then everything', 'full': 'full fine-tuning'}
BUDGET = (
    f'Steps: {EPOCHS} epochs, but no fewer than config.train.steps, unless these are more than '
    f'{MOST_EPOCHS:,} epochs.'
)
RULES = {
    'classes': (
        'The first source of the ranking that was trained on something and is not disqualified. '
        'Its head is kept where it has the classes of the target in their order, and gets more of '
        'the labelled examples right than guessing does; else it is drawn anew. The head first, '
        'and then everything (Kumar et al. 2022), where the source is shown to know the target: '
        'its head is kept, its score is above that of the same model untrained, or a probe of its '
        f'features comes {KNOWN:.0%} of the way from guessing to perfect. Full fine-tuning at once '
        f'where nothing shows that, or labels are plentiful ({MANY:,} a class or more). {BUDGET}'
    ),
    'tokens': (
        'The first source of the ranking that was trained on something and is not disqualified. '
        'Its head says the next token already, so it is kept, and full fine-tuning comes first: '
        f'there is no new head to be trained before the rest. {BUDGET}'
    ),
}


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """What to train first.

    Attributes:
      source: its name in the ranking; '' where none can be recommended.
      policy: a name of `tljax.transfer.policies`; '' where none can be.
      steps: of training.
      sentence: all of it, with its reasons.
      overrides: for `launch.py train`, with the ranking's own config.
    """

    source: str
    policy: str
    steps: int
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
        return Recommendation('', '', 0, f'{size}: none of these sources can be recommended.', ())
    a_class, kept, lifted = 0.0, True, is_lifted(first)
    if ranking['kind'] == 'tokens':
        policy, knows = 'full', lifted
    else:
        kept, a_class = keeps_head(first), ranking['available'] / ranking['classes']
        skill = rescaled(first['probe']['mean'], ranking['classes'])
        policy = policy_for(a_class, skill, kept or lifted)
        if first['uri'].startswith(RANDOM):
            policy = 'full'  # there is nothing to be kept
        knows = lifted or kept
    steps = budget(ranking)
    epochs = steps * ranking['batch_size'] / ranking['available']
    text = (
        f'{size}; {first["name"]} {reasons(first, ranking["kind"])}: {IN_WORDS[policy]} first, '
        f'{plan(steps, epochs)}'
    )
    if policy == 'head_then_full':
        text += (
            f'; if that ends below the {first["probe"]["mean"]:.0%} of the probe, train '
            'a new head alone: linear_probe, transfer.reset=("head/.*",) and a larger optim.lr'
        )
    if not knows or a_class >= MANY:
        text += '; expect little of transfer, and compare it with scratch'
    added = overrides(first, policy, steps, () if kept else reset_of(ranking['kind']))
    return Recommendation(first['name'], policy, steps, f'{text}.', added)


def reasons(source: Mapping[str, Any], kind: str) -> str:
    """What a source is shown to know of the target, and how."""
    above = 'scores above' if is_lifted(source) else 'is not shown to score above'
    above += ' the same model untrained'
    if kind == 'tokens':
        return above
    probe = f'a probe of its features gets {source["probe"]["mean"]:.0%} right'
    known = source['known']
    if keeps_head(source):
        right = f'{known["head"]["mean"]:.0%}'
        return (
            f'has a head for these classes in their order, which gets {right} of the labelled '
            f'examples right as it is, so it is kept; it {above}, and {probe}'
        )
    if known and known['shared']:
        return f'knows {known["shared"]} of the classes by name, {above}, and {probe}'
    return f'{above}, and {probe}'


def keeps_head(source: Mapping[str, Any]) -> bool:
    """Whether a source's own head is for the target's classes, and what it says is of use.

    Names alone do not tell: those of many sets are numbers.
    """
    known = source['known']
    if not known or not known['same_order'] or not known['head']:
        return False
    return known['head']['low'] is not None and known['head']['low'] > 1 / known['classes']


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


def policy_for(labels_a_class: float, skill: float, knows: bool) -> str:
    """The policy that `RULES` gives where there are classes.

    Args:
      labels_a_class: of the target.
      skill: of a probe, see `rescaled`.
      knows: whether the source's head or its score shows that it knows the target.

    The head comes first so that a new one does not spoil what the features are worth, and then
    everything, which needs no learning rate of its own as a probe by gradient descent does.

    >>> policy_for(10, 0.1, True), policy_for(10, 0.8, False)
    ('head_then_full', 'head_then_full')
    >>> policy_for(10, 0.1, False), policy_for(1000, 0.8, True)
    ('full', 'full')
    """
    if labels_a_class >= MANY or not (knows or skill >= KNOWN):
        return 'full'
    return 'head_then_full'


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


def budget(ranking: Mapping[str, Any]) -> int:
    """Steps, by `BUDGET`.

    >>> budget({'available': 40, 'batch_size': 32, 'steps': 200})  # few labels: the config's own
    200
    >>> budget({'available': 40, 'batch_size': 32, 'steps': 5000})  # 1,000 epochs
    1250
    >>> budget({'available': 6400, 'batch_size': 32, 'steps': 200})  # 20 epochs
    4000
    """
    least, most = (
        -(-ranking['available'] * epochs // ranking['batch_size'])
        for epochs in (EPOCHS, MOST_EPOCHS)
    )
    return max(least, min(ranking['steps'], most))


def plan(steps: int, epochs: float) -> str:
    """A budget in words.

    >>> plan(250, 20.3)
    '250 steps (20 epochs)'
    """
    return f'{steps:,} steps ({epochs:,.0f} epochs)'


def overrides(
    source: Mapping[str, Any], policy: str, steps: int, reset: Sequence[str]
) -> tuple[str, ...]:
    """What to add to `launch.py train` or `compare` with the ranking's config, for a shell."""
    changed: dict[str, Any] = {'train.steps': steps}
    if not source['uri'].startswith(RANDOM):
        changed |= {'source.uri': source['uri'], 'model.name': 'source', 'transfer.policy': policy}
        changed |= {'transfer.reset': str(tuple(reset))}
    return tuple(shlex.quote(f'--config.{key}={value}') for key, value in changed.items())
