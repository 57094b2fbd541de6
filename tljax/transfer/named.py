"""Policies by name: each makes the phases of a policy from a model's outline.

They know of an architecture what its outline tells, so each works on every architecture. Leaves
that were injected are trained with the stage they lie in; policies that choose among leaves train
the injected ones beside them.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tljax.errors import UserError
from tljax.models import Outline

KEY = 'config.transfer.policy'
TRAINED: dict[str, float] = {}
FROZEN = None
HEAD = 'head/.*'
BLOCKS = ('first', 'middle', 'last', 'auto')
Phases = list[dict[str, Any]]


def full(outline: Outline) -> Phases:
    """Everything is trained at one rate."""
    return [dict(rules=[('.*', TRAINED)])]


def from_scratch(outline: Outline) -> Phases:
    """Nothing is taken from the source, and everything is trained at one rate."""
    return full(outline)


def linear_probe(outline: Outline) -> Phases:
    """The head alone."""
    if outline.injected:
        return injected(outline)
    return [dict(rules=probe(outline))]


def injected(outline: Outline) -> Phases:
    """The head and what was injected.

    Raises:
      UserError: nothing was.
    """
    if not outline.injected:
        raise UserError(
            f'{KEY}: nothing is injected, so there is nothing to train beside the head. Set '
            "config.transfer.inject, or take a policy that injects, such as 'lora(rank=8)'."
        )
    return [dict(rules=only(outline, [*heads(outline), *added(outline)]))]


def head_then_full(outline: Outline, *, share: float = 0.5) -> Phases:
    """A linear probe first, so that a random head does not distort the features, then everything.

    LP-FT (Kumar et al. 2022, section 3.4).

    Args:
      share: of the steps that the head is trained alone.
    """
    return [dict(steps=check_share(share), rules=probe(outline)), *full(outline)]


def gradual(outline: Outline, *, share: float = 0.5) -> Phases:
    """The head first, then one stage more at a time from the top, until everything is trained.

    Gradual unfreezing (ULMFiT, Howard and Ruder 2018, section 3.3).

    Args:
      share: of the steps that pass, in equal phases, before everything is trained.
    """
    count = len(outline.stages)
    each = check_share(share) / max(count - 1, 1)
    phases: Phases = [
        dict(steps=each, rules=staged(outline, (count - top) * [FROZEN] + top * [TRAINED]))
        for top in range(1, count)
    ]
    return [*phases, *full(outline)]


def layerwise_decay(outline: Outline, *, decay: float = 0.75) -> Phases:
    """Everything is trained, each stage at `decay` times the rate of the one above it.

    The head's is 1, that of the stage below it `decay`, and so on down (Clark et al. 2020,
    "ELECTRA", fine-tuning details in the appendix; Bao et al. 2022, "BEiT").

    Args:
      decay: above 0, at most 1.
    """
    number('decay', decay, 'a number above 0, at most 1', lambda value: 0 < value <= 1)
    top = len(outline.backbone)
    rates = [dict(lr=float(decay) ** (top - index)) for index in range(len(outline.stages))]
    return [dict(rules=staged(outline, rates))]


def discriminative(outline: Outline, *, rates: Sequence[float] = (0.01, 0.1, 1.0)) -> Phases:
    """Groups of stages at rates of their own (Howard and Ruder 2018, section 3.2).

    Args:
      rates: factors on the learning rate, bottom to top: the last is the head's, the stages below
        it are divided evenly among the others; 0 freezes.
    """
    given = list(rates) if isinstance(rates, list | tuple) else []
    below = given[:-1] if outline.head else given
    stages = outline.backbone
    if not given or not below or len(below) > len(stages):
        most = len(stages) + bool(outline.head)
        raise UserError(
            f'{KEY}: discriminative takes rates=(...), from {1 + bool(outline.head)} to {most} '
            f'numbers for this model, bottom to top, the last for the head; not {rates!r}.'
        )
    for rate in given:
        number('rates', rate, 'numbers, 0 or more', lambda value: value >= 0)
    values = [below[index * len(below) // len(stages)] for index in range(len(stages))]
    values += given[-1:] if outline.head else []
    return [dict(rules=staged(outline, [dict(lr=float(v)) if v else FROZEN for v in values]))]


def surgical(outline: Outline, *, block: str | int = 'first', head: bool = True) -> Phases:
    """One block, and the head (Lee et al. 2023, "Surgical fine-tuning").

    A block is a stage below the head; stem or embeddings count to the first.

    Args:
      block: 'first', 'middle' or 'last', the block's number from 0 on, or 'auto': the one with the
        largest gradient relative to its parameters (section 4), on the training subset of
        `config.seed` before the first update; the runs of a study share the choice.
      head: whether the head is trained too.
    """
    blocks = outline.blocks
    places = {'first': 0, 'middle': (len(blocks) - 1) // 2, 'last': len(blocks) - 1, 'auto': 0}
    index = places.get(block) if isinstance(block, str) else block
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(blocks):
        raise UserError(
            f'{KEY}: block is {block!r}; surgical takes one of {BLOCKS}, or a number from 0 to '
            f'{len(blocks) - 1}, as this model has {len(blocks)} blocks.'
        )
    if not isinstance(head, bool):
        raise UserError(f'{KEY}: head is {head!r}; surgical takes True or False.')
    patterns = [*blocks[index], *(heads(outline) if head else [])]
    return [dict(rules=only(outline, [*patterns, *added(outline, patterns)]))]


def bitfit(outline: Outline) -> Phases:
    """All biases, and the head (Ben Zaken et al. 2022)."""
    return [dict(rules=beside_head(outline, outline.biases, 'biases'))]


def norm_only(outline: Outline) -> Phases:
    """Scales and biases of normalisation layers, and the head (Frankle et al. 2021)."""
    return [dict(rules=beside_head(outline, outline.norms, 'normalisation layers'))]


POLICIES: dict[str, Callable[..., Phases]] = {
    'full': full,
    'linear_probe': linear_probe,
    'head_then_full': head_then_full,
    'lp_ft': head_then_full,
    'gradual': gradual,
    'layerwise_decay': layerwise_decay,
    'discriminative': discriminative,
    'surgical': surgical,
    'bitfit': bitfit,
    'norm_only': norm_only,
    'injected': injected,
    'from_scratch': from_scratch,
}


def probe(outline: Outline) -> list[tuple[str, Any]]:
    """Rules that train the head and nothing else.

    Raises:
      UserError: there is no head.
    """
    if not outline.head:
        raise UserError(
            f'{KEY}: this model has no head of its own to train: it is tied to an embedding. Set '
            "config.model.tied=False, or take another policy, such as 'full' or 'surgical'."
        )
    return only(outline, [HEAD])


def beside_head(outline: Outline, paths: Iterable[str], words: str) -> list[tuple[str, Any]]:
    """Rules that train these leaves, those injected and the head.

    Args:
      words: what the leaves are, for the message.

    Raises:
      UserError: there are none below the head.
    """
    below = [path for path in paths if not re.fullmatch(HEAD, path)]
    if not below:
        raise UserError(f'{KEY}: this model has no {words} below its head. Take another policy.')
    return only(outline, [*heads(outline), exactly(below), *added(outline)])


def only(outline: Outline, patterns: Iterable[str]) -> list[tuple[str, Any]]:
    """Rules that train what these expressions match, and freeze the rest, if there is one."""
    patterns = list(patterns)
    leaves = [*outline.injected, *(path for members in outline.members for path in members)]
    rest = any(not any(re.fullmatch(pattern, path) for pattern in patterns) for path in leaves)
    return [(pattern, TRAINED) for pattern in patterns] + ([('.*', FROZEN)] if rest else [])


def heads(outline: Outline) -> list[str]:
    """The head's expression, where there is one."""
    return [HEAD] if outline.head else []


def added(outline: Outline, patterns: Iterable[str] = (HEAD,)) -> list[str]:
    """The expression for injected leaves that those given do not match, where there are some."""
    patterns = list(patterns)
    left = [p for p in outline.injected if not any(re.fullmatch(r, p) for r in patterns)]
    return [exactly(left)] if left else []


def staged(outline: Outline, values: Sequence[Any]) -> list[tuple[str, Any]]:
    """Rules that give each stage its value, bottom to top.

    An injected leaf outside every stage, such as tokens in front of all, belongs to the lowest.
    """
    outside = [
        path
        for path in outline.injected
        if not any(re.fullmatch(stage, path) for stage in outline.stages)
    ]
    rules = list(zip(outline.stages, values, strict=True))[::-1]
    return rules + ([(exactly(outside), values[0])] if outside else [])


def exactly(paths: Iterable[str]) -> str:
    """The expression that matches these paths and no others.

    >>> exactly(['head/kernel', 'norm.1/bias'])
    'head/kernel|norm\\\\.1/bias'
    """
    return '|'.join(map(re.escape, paths))


def check_share(share: Any) -> float:
    """The share of the steps, checked."""
    return number('share', share, 'a number between 0 and 1', lambda value: 0 < value < 1)


def number(name: str, value: Any, takes: str, fits: Callable[[float], bool]) -> float:
    """A number that fits.

    Raises:
      UserError: it is none, or does not.
    """
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not fits(value) or not abs(value) < math.inf:
        raise UserError(f'{KEY}: {name} is {value!r}; it takes {takes}.')
    return float(value)
