"""What the candidates of a search run on: their arms, one at a time, and the record of each run."""

import dataclasses
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from tljax import config as config_lib
from tljax.errors import Interrupted, UserError
from tljax.progress import Progress
from tljax.study import range_test
from tljax.study.halving import Rung
from tljax.study.range_test import RangeTest
from tljax.study.runs import RunSpec
from tljax.study.watched import Curves, Watched
from tljax.train import experiment as experiment_lib
from tljax.train.experiment import Source
from tljax.train.workdir import read_json, write_json


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to train.

    Attributes:
      policy: as `config.transfer.policy`, by name.
      lr: peak learning rate.
      weight_decay: as `config.optim.weight_decay`.
    """

    policy: str
    lr: float
    weight_decay: float


def with_policy(config: ConfigDict, policy: str, **changes: Any) -> ConfigDict:
    """The config of a candidate; changes are (section, key) joined by two underscores."""
    other = config_lib.resolve(config)
    other.transfer.policy = policy
    for name, value in changes.items():
        section, _, key = name.partition('__')
        other[section][key] = value
    return other


def given_bounds(config: ConfigDict) -> bool:
    """Whether the learning rates' bounds are in the config, or one learning rate is tried alone."""
    tune = config.tune
    return tune.lrs == 1 or (tune.lr_low > 0 and tune.lr_high > 0)


class Bench:
    """Makes arms, one at a time: their data is shared, their programs are not kept.

    Args:
      config: the target's.
      source: what is reused, or None.
    """

    def __init__(self, config: ConfigDict, source: Source | None):
        self.config, self.source = config, source
        self.first = experiment_lib.build(with_policy(config, 'full'), source)
        digest = hashlib.sha256(self.first.data_identity(config.seed).encode())
        for path, leaf in sorted(source.leaves.items() if source else ()):
            digest.update(path.encode())
            digest.update(np.ascontiguousarray(leaf).data)
        self._shared = digest.hexdigest()
        self._made: tuple[Any, Watched] | None = None

    def config_of(self, candidate: Candidate, steps: int) -> ConfigDict:
        """That of `launch.py train` with the candidate and so many steps."""
        return with_policy(
            self.config,
            candidate.policy,
            optim__lr=candidate.lr,
            optim__weight_decay=candidate.weight_decay,
            train__steps=steps,
        )

    def arm(self, policy: str, weight_decay: float, steps: int) -> Watched:
        """The arm that runs such candidates at every learning rate."""
        key = policy, weight_decay, steps
        if self._made is None or self._made[0] != key:
            self._made = None  # frees the one before
            config = self.config_of(Candidate(policy, self.config.optim.lr, weight_decay), steps)
            experiment = experiment_lib.build(config, self.source, data=self.first.data)
            self._made = key, Watched(experiment, self.config.tune.eval_points)
        return self._made[1]

    def identity(self, config: ConfigDict, *more: Any) -> str:
        """Hexadecimal sha256 of what decides a run."""
        text = f'{config_lib.fingerprint(config)} {self._shared} {more}'
        return hashlib.sha256(text.encode()).hexdigest()


class Ledger:
    """Runs what is missing and keeps every record in `workdir/runs`, so that a search resumes.

    A record says which config, data and source's leaves it is of: one of others is run again.
    """

    def __init__(self, directory: Path, progress: Progress, stop: Callable[[int], bool]):
        self.directory, self.progress, self.stop = directory, progress, stop
        self.ran = 0
        directory.mkdir(parents=True, exist_ok=True)

    def run(
        self, bench: Bench, number: int, index: int, candidate: Candidate, rung: Rung, seed: int
    ) -> Curves:
        """One candidate's run in one round."""
        path = self.directory / f'round{number + 1}-candidate{index + 1}-seed{seed}.json'
        identity = bench.identity(bench.config_of(candidate, rung.steps), seed)
        if (kept := self.kept(path, identity, Curves)) is not None:
            self.progress.update(rung.steps)
            return kept
        arm = bench.arm(candidate.policy, candidate.weight_decay, rung.steps)
        curves = arm.curves(RunSpec(seed, candidate.lr, trial=True), self.tick)
        self.keep(path, identity, curves)
        return curves

    def range_test(self, bench: Bench, number: int, policy: str) -> RangeTest:
        """A policy's range test; an empty one where the config gives the bounds."""
        config = bench.config
        if given_bounds(config):
            return RangeTest([], [], math.nan, math.nan, '')
        path = self.directory / f'range{number + 1}.json'
        identity = bench.identity(with_policy(config, policy), 'range')
        steps = config.tune.range_steps
        if (kept := self.kept(path, identity, Losses)) is not None:
            self.progress.update(steps)
        else:
            self.progress.note(f'learning-rate range test of {policy}')
            arm = bench.arm(policy, config.optim.weight_decay, config.train.steps)
            losses = range_test.measure(arm, config.seed, steps, self.tick)
            kept = Losses([loss if math.isfinite(loss) else None for loss in losses])
            self.keep(path, identity, kept)
        known = [math.nan if loss is None else loss for loss in kept.losses]
        return range_test.read(range_test.learning_rates(steps).tolist(), known)

    def kept(self, path: Path, identity: str, kind: Any) -> Any:
        """The record in a file; None if there is none, or it is damaged or of something else."""
        if not path.exists():
            return None
        try:
            content = read_json(path)
            if content.pop('of') == identity:
                return kind(**content)
            logging.warning('%s is of another config or source; run again.', path)
        except (UserError, KeyError, TypeError):
            logging.warning('%s is damaged; run again.', path)
        return None

    def keep(self, path: Path, identity: str, record: Any) -> None:
        write_json(path, {'of': identity, **dataclasses.asdict(record)})
        self.ran += 1

    def tick(self, steps: int) -> None:
        """Shows progress; between steps is where a search stops when asked to."""
        self.progress.update(steps)
        if self.stop(0):
            raise Interrupted(
                f'stopped; the finished runs are kept in {self.directory}, and the same command '
                'goes on from there.'
            )

    def spent(self, now: float) -> float:
        """Adds up, and keeps, the time of all calls; one that found everything done adds none."""
        path = self.directory.parent / 'seconds.json'
        before = float(read_json(path)['seconds']) if path.exists() else 0.0
        total = before + now if self.ran or not before else before
        write_json(path, {'seconds': total})
        return total


@dataclasses.dataclass(frozen=True)
class Losses:
    """A range test as it is kept: the loss of each step, None where it wasn't finite."""

    losses: list[float | None]
