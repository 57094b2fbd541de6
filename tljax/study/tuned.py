"""What a search found: which candidate, what its curves say, and how to train it."""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tljax import config as config_lib
from tljax.study.judging import diagnosis, mean_curve, score
from tljax.study.results import devices, versions

if TYPE_CHECKING:
    from tljax.study.bench import Candidate
    from tljax.study.tune import Search


def overrides(candidate: 'Candidate') -> list[str]:
    """The words that make `launch.py train` train a candidate.

    They are quoted for a shell.
    """
    values = {
        'transfer.policy': candidate.policy,
        'optim.lr': f'{candidate.lr:g}',
        'optim.weight_decay': f'{candidate.weight_decay:g}',
    }
    return [shlex.quote(f'--config.{key}={value}') for key, value in values.items()]


def results(search: 'Search', command: str) -> dict[str, Any]:
    """Everything that the report shows, as JSON would hold it.

    Args:
      search: what `tune` found.
      command: the command line.
    """
    config, task = search.experiment.config, search.experiment.task
    entries = [entry(search, index) for index in range(len(search.candidates))]
    order = ranking(search)
    best = entries[order[0]]
    advice = list(best['overrides'])
    early = best['diagnosis']['word'] == 'overfitted' and not config.train.patience
    if early:
        advice.append('--config.train.patience=5')
    return {
        'title': config.title or 'Tuning',
        'metric': {
            'name': task.metric,
            'chance': task.chance,
            'higher_is_better': task.higher_is_better,
            'examples': len(search.experiment.data.split('validation')),
        },
        'best': order[0],
        'ranking': order,
        'overrides': advice,
        'early_stopping': early,
        'candidates': entries,
        'rounds': [{'candidates': rung.candidates, 'steps': rung.steps} for rung in search.plan],
        'ranges': {
            name: {
                'lrs': test.lrs,
                'losses': test.losses,
                'low': test.low if math.isfinite(test.low) else None,
                'high': test.high if math.isfinite(test.high) else None,
                'note': test.note,
            }
            for name, test in search.ranges.items()
        },
        'left_out': search.left_out,
        'command': command,
        'config': config_lib.plain(config),
        'fingerprint': config_lib.fingerprint(config),
        'data': config.data.name,
        'train_examples': len(search.experiment.data.subset(config.seed)),
        'synthetic': search.experiment.data.synthetic,
        'versions': versions(),
        'devices': devices(),
        'seconds_total': search.seconds,
        'notes': notes(search, entries, order),
    }


def ranking(search: 'Search') -> list[int]:
    """Candidates, the best first: by the round they reached, and in it by their score."""
    order: list[int] = []
    for done in reversed(search.rounds):
        order += [index for index in done if index not in order]
    return order


def entry(search: 'Search', index: int) -> dict[str, Any]:
    """One candidate: where it got to, its curves there and what they say."""
    config, task = search.experiment.config, search.experiment.task
    candidate = search.candidates[index]
    reached = [number for number, done in enumerate(search.rounds) if index in done]
    last = search.rounds[reached[-1]][index]
    patience = bool(config.train.patience)
    values = []
    for number in reached:
        value = score(search.rounds[number][index], task, patience)[0]
        sign = 1 if task.higher_is_better else -1
        values.append(sign * value if math.isfinite(value) else None)
    curve = mean_curve(last)
    bad = any(run.bad_step >= 0 for run in last)
    return {
        'policy': candidate.policy,
        'lr': candidate.lr,
        'weight_decay': candidate.weight_decay,
        'overrides': overrides(candidate),
        'round': reached[-1] + 1,
        'steps': search.plan[reached[-1]].steps,
        'validation': values,
        'train': curve['train'][task.metric][-1],
        'curve': curve,
        'seconds': float(np.mean([run.seconds for run in last])),
        'diagnosis': diagnosis(curve, task, config.study.delta, bad),
    }


def notes(
    search: 'Search', entries: Sequence[Mapping[str, Any]], order: Sequence[int]
) -> list[str]:
    """What a reader should know before believing the figures."""
    config = search.experiment.config
    best = entries[order[0]]
    said = [
        'Everything here is measured on validation, and the best of several figures is too high: '
        'measure what you train with `launch.py evaluate --split=test` or `launch.py compare`. '
        'The test split was not read.',
        'Each round trains from the beginning, with a whole learning-rate schedule for its steps; '
        'a candidate that needs long to get good can be lost in an early round.',
    ]
    tried = sorted({e['lr'] for e in entries if e['policy'] == best['policy']})
    if len(tried) > 1 and best['lr'] in (tried[0], tried[-1]):
        said.append(
            f'The best learning rate, {best["lr"]:g}, lies at the edge of what was tried with '
            f'{best["policy"]}: set tune.lr_low and tune.lr_high wider.'
        )
    if search.left_out:
        said.append(
            f'The budget left out {search.left_out} of the candidates, drawn at random, every '
            'policy in turn.'
        )
    if config.tune.seeds == 1:
        said.append(
            'One run a candidate: differences of the size of the luck of the draw decide too. '
            'tune.seeds=3 is steadier, for three times the steps.'
        )
    if not config.source.uri:
        said.append('There is no source, so every candidate trained all from scratch.')
    said += [f'{name}: {test.note}' for name, test in search.ranges.items()]
    return said
