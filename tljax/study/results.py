"""From a study's records to the content of results.json: measures, verdict, cost, provenance."""

import importlib.metadata
import math
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from tljax import config as config_lib
from tljax.study import measures
from tljax.study.compatibility import labels
from tljax.study.compatibility.about import about
from tljax.study.runs import RunRecord
from tljax.study.scales import rescale, zero_level
from tljax.study.statistics import interval
from tljax.study.verdict import verdict
from tljax.tasks import Task
from tljax.train.experiment import Experiment

if TYPE_CHECKING:
    from tljax.study.compare import Study

PACKAGES = (
    'jax',
    'jaxlib',
    'flax',
    'optax',
    'orbax-checkpoint',
    'tensorflow-datasets',
    'grain',
    'array-record',
    'ml-collections',
    'numpy',
    'scipy',
)


def results(study: 'Study', command: str) -> dict[str, Any]:
    """Everything that the report shows, as JSON would hold it.

    Args:
      study: what `compare` found.
      command: the command line.
    """
    experiment = study.arms['transfer'].experiment
    config, task = experiment.config, experiment.task
    steps = study.records['scratch'][0].steps
    x = np.array(steps, float) * config.train.batch_size
    curves = {
        name: rescaled(task, [r.validation for r in rs]) for name, rs in study.records.items()
    }
    finals = {name: tests_of(records) for name, records in study.records.items()}
    probes = [study.probes[name] for name in ('transfer', 'scratch')]
    probe = None if None in probes else rescaled(task, np.array(probes).T)
    found = measures.measure_all(
        curves['transfer'],
        curves['scratch'],
        x,
        finals['transfer'],
        finals['scratch'],
        probe,
        seed=config.seed,
        zero=zero_level(task.chance, task.ceiling, task.higher_is_better),
        higher_is_better=task.higher_is_better,
    )
    differences = measures.gaps(finals['transfer'], finals['scratch'], task.higher_is_better)
    gap = found['negative_transfer_gap']
    decided = verdict(gap, differences, config.study.delta, task.metric)
    cost = cost_of(study, x, curves)
    return {
        'title': config.title or 'Transfer beside scratch',
        'question': question(study),
        'verdict': {
            'name': decided.name,
            'sentence': decided.sentence,
            'more_seeds': decided.more_seeds,
        },
        'arms': {name: arm_results(study, name, x, curves[name]) for name in study.arms},
        'measures': {name: measure.to_json() for name, measure in found.items()},
        'metric': {
            'name': task.metric,
            'chance': task.chance,
            'ceiling': task.ceiling,
            'higher_is_better': task.higher_is_better,
            'gap_unit': 'metric',
        },
        'cost': cost,
        'manifest': experiment.manifest.to_json() if experiment.manifest else None,
        'source': experiment.card,
        'data': data_of(study),
        'rows': dict(experiment.data.account),
        'command': command,
        'config': config_lib.plain(config),
        'fingerprint': config_lib.fingerprint(config),
        'versions': versions(),
        'seeds': study.seeds,
        'devices': devices(),
        'seconds_total': study.seconds,
        'notes': notes(study),
    }


def tests_of(records: Sequence[RunRecord]) -> list[float]:
    """What each run reached on the test split."""
    return [record.test for record in records if record.test is not None]


def rescaled(task: Task, metric: Any) -> np.ndarray:
    """Metrics as m of MEASURES: 0 is chance, 1 the ceiling, higher is better."""
    return rescale(metric, task.chance, task.ceiling, task.higher_is_better)


def arm_results(study: 'Study', name: str, x: np.ndarray, m: np.ndarray) -> dict[str, Any]:
    """One arm's finals, curve, cost and tuning; metrics as the task gives them, not rescaled."""
    records, config = study.records[name], study.arms[name].experiment.config
    curve = np.array([record.validation for record in records])
    points = [interval(column, seed=config.seed) for column in curve.T]
    tests = tests_of(records)
    return {
        'final': interval(tests, seed=config.seed).to_json(),
        'finals': tests,
        'seconds': interval([r.seconds for r in records], seed=config.seed).to_json(),
        'examples': int(x[-1]),
        'lr': study.lrs[name],
        'trials': study.trials[name],
        'curve': {
            'x': x.astype(int).tolist(),
            'mean': [point.mean for point in points],
            'low': [point.low for point in points],
            'high': [point.high for point in points],
        },
        'asymptote': measures.arm_asymptote(m, x, seed=config.seed).to_json(),
    }


def cost_of(study: 'Study', x: np.ndarray, curves: dict[str, np.ndarray]) -> dict[str, Any]:
    """What either arm cost, and after how many target tasks pretraining is repaid.

    A task saves the time by which transfer's mean curve reaches the final mean of scratch sooner
    than that of scratch does, which may be before its end.
    """
    card = study.arms['transfer'].experiment.card or {}
    seconds = {n: float(np.mean([r.seconds for r in rs])) for n, rs in study.records.items()}
    pretraining = card.get('seconds')
    means = {name: curve.mean(0) for name, curve in curves.items()}
    level = means['scratch'][-1]
    reached = np.flatnonzero(means['transfer'] >= level)
    tasks, note = None, 'Transfer does not reach the end of scratch, so pretraining is not repaid.'
    if len(reached):
        at = {'transfer': reached[0], 'scratch': np.flatnonzero(means['scratch'] >= level)[0]}
        took = {name: seconds[name] * x[index] / x[-1] for name, index in at.items()}
        saved = took['scratch'] - took['transfer']
        if saved <= 0:
            note = 'Transfer saves no time, so pretraining is not repaid.'
        elif pretraining is None:
            note = 'The cost of pretraining is not known.'
        else:
            tasks = max(1, math.ceil(pretraining / saved))
            note = (
                f'A task saves {saved:.2f} s: so much sooner transfer reaches what scratch has at '
                'its end.'
            )
    return {
        'transfer_seconds': seconds['transfer'],
        'scratch_seconds': seconds['scratch'],
        'pretraining_seconds': pretraining,
        'pretraining_examples': card.get('examples'),
        'with_pretraining_seconds': None
        if pretraining is None
        else pretraining + seconds['transfer'],
        'break_even_tasks': tasks,
        'note': note,
    }


def question(study: 'Study') -> str:
    """The study in one sentence."""
    experiment = study.arms['transfer'].experiment
    config, card = experiment.config, experiment.card or {}
    shots, each = config.data.shots, 'labels a class'
    if not experiment.data.label_names:
        each = 'examples'
    labels = f'{shots} {each}' if shots else f'all {each.split()[0]}'
    source = card.get('title') or card.get('data') or config.source.uri
    return (
        f'Does a model trained on {source!r} help on {config.data.name!r} with {labels}, '
        f'against the same model from scratch?'
    )


def data_of(study: 'Study') -> dict[str, Any]:
    """The target's data in a few words."""
    experiment = study.arms['transfer'].experiment
    data, config = experiment.data, experiment.config
    said = {
        'source': (experiment.card or {}).get('synthetic') or '',
        'target': data.synthetic,
    }
    return {
        'name': config.data.name,
        'shots': config.data.shots,
        'train': len(data.subset(config.seed)),
        'validation': len(data.split('validation')),
        'test': len(data.split('test')),
        'classes': list(data.label_names),
        'synthetic': ' '.join(f'The {whose} is {text}' for whose, text in said.items() if text),
    }


def notes(study: 'Study') -> list[str]:
    """What a reader should know before believing the numbers."""
    said = [
        *mixed_labels(study.arms['transfer'].experiment),
        'There is one source model. The seeds vary the target (subset, fresh leaves, order): '
        'the intervals do not say how another training of the source would have turned out.',
        'Curves, start, slope and speed-up are measured on validation; only the final figures and '
        'the verdict come from the test split, which each final model read once.',
        f'Each arm tried {max(len(study.trials["transfer"]), 1)} learning rates, chosen on '
        'validation with seeds that the comparison does not use.',
    ]
    for name, trials in study.trials.items():
        if trials and study.lrs[name] in (trials[0]['lr'], trials[-1]['lr']):
            said.append(
                f'The best learning rate of the {name} arm, {study.lrs[name]:g}, lies at the edge '
                'of what was tried: widen study.lr_low or study.lr_high.'
            )
    if study.arms['transfer'].experiment.config.train.patience:
        said.append(
            'config.train.patience stops no run here: both arms train for their whole budget, so '
            'that they can be compared at every step.'
        )
    if len(study.seeds) < 5:
        said.append(f'{len(study.seeds)} seeds are a smoke test; a headline needs 10.')
    if study.vectorized:
        said.append(
            'Runs were mapped into one program: seconds are the time of all, evaluations '
            'included, divided by their number.'
        )
    return said


def mixed_labels(experiment: Experiment) -> list[str]:
    """A warning where the source's head is reused, and its classes are not those of the data."""
    reused = experiment.manifest.reused() if experiment.manifest else ()
    found = labels.findings(
        about(experiment.card),
        experiment.data.label_names,
        any(path.startswith('head/') for path in reused),
    )
    return [' '.join((f.what, f.why, f.do)) for f in found if f.level == 'warning']


def versions() -> dict[str, str]:
    """Versions of Python and the packages that decide the result."""
    from tljax import __version__

    found = {'python': platform.python_version(), 'tljax': __version__}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def devices() -> str:
    """The devices in words.

    >>> devices().split()[0].isdigit()
    True
    """
    found = jax.devices()
    return f'{len(found)} x {found[0].device_kind} ({found[0].platform})'
