"""Published findings on adapting, tried on real photographs and a small network, paired over seeds.

ResNet-20 with its authors' CIFAR-10 weights learns cats from dogs, at 32 x 32 pixels, few labels.

1. A linear probe before fine-tuning (Kumar et al. 2022) is no worse than full fine-tuning on
   pictures of its kind, and better on shifted ones (here: noise and blur put on the test pictures).
2. Drawing towards the source's weights (Li et al. 2018, L2-SP) helps where labels are few.
3. If what changed is the input (here: noise on every picture), tuning the first block alone
   is best (Lee et al. 2023).

Each way has its learning rate chosen on validation, on seeds of their own. The differences are
paired over seeds, with 95 % bootstrap intervals. What didn't come out is printed like what did.
"""

import os
from pathlib import Path
from typing import Any

import common
import jax
import numpy as np

from tljax import config as config_lib
from tljax import pretrained, trees
from tljax.data.decode import Form, load_images
from tljax.data.sources import Data
from tljax.models import arguments
from tljax.study.runs import Arm, RunSpec
from tljax.study.statistics import interval
from tljax.train import experiment as experiment_lib
from tljax.train.experiment import Source
from tljax.train.feed import Feed

SHARED = Path(__file__).parents[2] / 'shared' / 'data'
REALDATA = Path(os.environ.get('TLJAX_REALDATA', SHARED))
LRS = (0.003, 0.01, 0.03, 0.1)
SEED = 2024  # of the split into pool, validation and test, and of the corruptions
FORM = Form((32, 32, 3), 'crop', 32, 'bilinear')


class Held:
    """A split of arrays in memory, with what a run asks of one."""

    in_memory = True
    buckets = fitting = None

    def __init__(self, name: str, images: np.ndarray, labels: np.ndarray):
        self.name, self.rows = name, np.arange(len(labels), dtype=np.int32)
        self._arrays = {'image': images, 'label': labels.astype(np.int32)}
        self.records = self
        self.spec = name

    def __len__(self) -> int:
        return len(self.rows)

    def arrays(self) -> dict[str, np.ndarray]:
        return self._arrays

    def labels(self) -> np.ndarray:
        return self._arrays['label']


def corrupted(images: np.ndarray, kind: str) -> np.ndarray:
    """Pictures with noise of deviation 0.1, or a 3 x 3 mean, on values from 0 to 1."""
    x = images.astype(np.float32) / 255
    if kind == 'noise':
        x = x + 0.1 * np.random.default_rng(SEED).normal(size=x.shape)
    else:
        wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), 'edge')
        x = sum(wide[:, i : i + 32, j : j + 32] for i in range(3) for j in range(3)) / 9
    return (np.clip(x, 0, 1) * 255).round().astype(np.uint8)


def photographs() -> tuple[np.ndarray, np.ndarray]:
    """400 cats and 400 dogs."""
    folders = [REALDATA / 'dogs_cats_breeds' / kind for kind in ('cat', 'dog')]
    rng = np.random.default_rng(SEED)
    files, labels = [], []
    for label, folder in enumerate(folders):
        found = sorted(folder.glob('*/*'))
        chosen = rng.permutation(len(found))[:400]
        files += [found[i] for i in chosen]
        labels += [label] * len(chosen)
    return load_images(files, FORM), np.array(labels)


def data_of(images: np.ndarray, labels: np.ndarray, shots: int) -> Data:
    """A quarter of the pictures for validation, a quarter for test."""
    order = np.random.default_rng(SEED).permutation(len(labels))
    cuts = np.split(order, [len(order) // 2, 3 * len(order) // 4])
    splits: Any = {
        name: Held(name, images[rows], labels[rows])
        for name, rows in zip(('train', 'validation', 'test'), cuts, strict=True)
    }
    example = {
        'image': jax.ShapeDtypeStruct((32, 32, 3), np.uint8),
        'label': jax.ShapeDtypeStruct((), np.int32),
    }
    return Data(('cat', 'dog'), example, FORM, splits, shots, 'cats and dogs', '', '')


class Shifted(Arm):
    """An arm that measures its models on shifted test pictures too."""

    def __init__(self, experiment: Any, shifts: dict[str, Feed]):
        super().__init__(experiment, 2)
        self.shifts, self.found = shifts, {name: [] for name in shifts}

    def metric(self, evaluate: Any, feed: Feed, params: Any, batch_stats: Any) -> float:
        if feed is self.__dict__.get('test'):
            for name, shifted in self.shifts.items():
                value = super().metric(self.evaluate, shifted, params, batch_stats)
                self.found[name].append(value)
        return super().metric(evaluate, feed, params, batch_stats)


def config_of(chosen: Any, shots: int, policy: str, regularize: tuple[str, ...], reset: bool):
    config = config_lib.default()
    config.model = arguments('cifar_resnet', depth=20)
    config.source.uri = 'published weights'
    config.data.update(name='arrays', shots=shots, image_size=32, channels=3)
    config.data.update(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    config.transfer.update(policy=policy, regularize=regularize)
    config.transfer.reset = ('head/.*',) if reset else ()
    config.optim.update(name='sgd', weight_decay=0.0)
    config.train.update(steps=chosen.steps, batch_size=chosen.batch)
    return config_lib.resolve(config)


def ways_of(chosen, source, data, shots, ways, shifts, reset=True):
    """For each way, accuracies over seeds: on test and on each shift."""
    results = {}
    for name, (policy, regularize) in ways.items():
        config = config_of(chosen, shots, policy, regularize, reset)
        experiment = experiment_lib.build(config, source, data=data)
        arm = Shifted(experiment, {})
        trials = {
            lr: np.mean(
                [arm.run(RunSpec(100 + s, lr, True), no_tick).validation[-1] for s in range(2)]
            )
            for lr in LRS
        }
        lr = max(trials, key=lambda lr: trials[lr])
        arm.shifts = {k: Feed(Held('test', *v), arm.mesh) for k, v in shifts.items()}
        arm.found = {k: [] for k in shifts}
        tests = [arm.run(RunSpec(s, lr, False), no_tick).test for s in range(chosen.seeds)]
        results[name] = {'test': np.array(tests), **{k: np.array(v) for k, v in arm.found.items()}}
        means = ', '.join(f'{k} {v.mean():.3f}' for k, v in results[name].items())
        print(f'  {name} (lr {lr:g}): {means}', flush=True)
    return results


def no_tick(steps: int) -> None:
    return None


def difference(results, first: str, second: str, where: str) -> str:
    """Of the means, with its interval."""
    gaps = results[first][where] - results[second][where]
    found = interval(gaps)
    low, high = ('none' if end is None else f'{end:+.3f}' for end in (found.low, found.high))
    return f'{first} - {second}, {where}: {found.mean:+.3f} [{low}, {high}]'


def main() -> None:
    small = dict(seeds=10, steps=60, batch=16, shots=20, few=4)
    chosen = common.settings(__doc__, small, {**small, 'steps': 300, 'batch': 32})
    found = pretrained.load(str(next((REALDATA / 'weights').glob('*/*20*.th'))))
    source = Source(found.leaves, {'title': 'ResNet-20 of CIFAR-10'})
    images, labels = photographs()
    data = data_of(images, labels, chosen.shots)
    test = data.split('test').arrays()
    shifts = {k: (corrupted(test['image'], k), test['label']) for k in ('noise', 'blur')}

    print(f'1. Linear probe before fine-tuning, {chosen.shots} labels a class')
    ways = {'full': ('full', ()), 'lp_ft': ('head_then_full', ()), 'probe': ('linear_probe', ())}
    one = ways_of(chosen, source, data, chosen.shots, ways, shifts)
    for where in ('test', *shifts):
        print('    ' + difference(one, 'lp_ft', 'full', where))

    print(f'2. L2-SP, {chosen.few} labels a class')
    ways = {'full': ('full', ()), 'l2_sp': ('full', ('l2_sp(alpha=0.1, beta=0.01)',))}
    few = data_of(images, labels, chosen.few)
    two = ways_of(chosen, source, few, chosen.few, ways, {})
    print('    ' + difference(two, 'l2_sp', 'full', 'test'))

    print(f'3. Surgical tuning: a model of clean pictures, {chosen.shots} noisy ones a class')
    clean = trained(chosen, source, data_of(images, labels, 0))
    noisy = data_of(corrupted(images, 'noise'), labels, chosen.shots)
    blocks = {b: (f"surgical(block='{b}', head=False)", ()) for b in ('first', 'middle', 'last')}
    three = ways_of(chosen, clean, noisy, chosen.shots, {'full': ('full', ()), **blocks}, {}, False)
    for other in ('full', 'middle', 'last'):
        print('    ' + difference(three, 'first', other, 'test'))


def trained(chosen, source, data) -> Source:
    """A model of all clean pictures, trained from the source."""
    experiment = experiment_lib.build(config_of(chosen, 0, 'full', (), True), source, data=data)
    kept = {}

    class Keeping(Arm):
        def metric(self, evaluate, feed, params, batch_stats):
            kept.update(params=params, batch_stats=batch_stats)
            return super().metric(evaluate, feed, params, batch_stats)

    arm = Keeping(experiment, 2)
    record = arm.run(RunSpec(500, 0.03, True), no_tick)
    print(f'  the model of clean pictures: validation {record.validation[-1]:.3f}', flush=True)
    leaves = {p: np.asarray(x) for part in kept.values() for p, x in trees.flatten(part).items()}
    return Source(leaves, {'title': 'cats and dogs, clean'})


if __name__ == '__main__':
    main()
