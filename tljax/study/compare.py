"""Did transfer help? Both arms, tuned alike, paired over seeds, measured and reported."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from tljax import config as config_lib
from tljax.errors import Interrupted, RunError, UserError
from tljax.progress import Progress
from tljax.study import mapped, probe, report, results
from tljax.study.runs import Arm, RunRecord, RunSpec
from tljax.train import experiment as experiment_lib
from tljax.train import sources
from tljax.train.signals import stop_requested
from tljax.train.workdir import check, claim, read_json, write_json
from tljax.transfer.policies import is_from_scratch

ARMS = ('transfer', 'scratch')


@dataclasses.dataclass(frozen=True)
class Study:
    """What `compare` found out, before it is measured.

    Attributes:
      arms: by name.
      lrs: each arm's chosen learning rate.
      trials: each arm's tried learning rates and what each reached on validation.
      records: each arm's runs, one a seed, in the order of `seeds`.
      seeds: paired over the arms.
      probes: each arm's linear-probe accuracy a seed, or None.
      vectorized: whether runs were mapped into one program.
      seconds: of the whole study.
    """

    arms: dict[str, Arm]
    lrs: dict[str, float]
    trials: dict[str, list[dict[str, float]]]
    records: dict[str, list[RunRecord]]
    seeds: list[int]
    probes: dict[str, list[float] | None]
    vectorized: bool
    seconds: float


def compare(config: ConfigDict, workdir: Path, command: str, *, quiet: bool = False) -> dict:
    """Runs the study and writes `workdir/report`.

    A study that was stopped goes on with the runs that are missing.

    Args:
      config: the target's; its `source.uri` names what is compared with scratch.
      workdir: where everything is written.
      command: the command line, for the report.
      quiet: no progress bar.

    Returns:
      The content of results.json.

    Raises:
      UserError: there is no source, or something in the config doesn't fit.
      RunError: a run of the study itself (not a trial) had a non-finite loss.
      Interrupted: SIGTERM or Ctrl-C.
    """
    began = time.monotonic()
    if not config.source.uri:
        raise UserError('compare needs a source to compare with scratch: set config.source.uri.')
    if is_from_scratch(experiment_lib.policy_of(config)):
        raise UserError(
            "config.transfer.policy is 'from_scratch', which is what compare sets transfer beside "
            'anyway. Take a policy that transfers something.'
        )
    if jax.process_count() > 1:
        raise UserError(
            'compare runs in one process, over all of its devices; only train takes --distributed.'
        )
    check(workdir, config, 'compare')
    source = sources.load(config, workdir, quiet=quiet)
    transfer = experiment_lib.build(config, source)
    scratch = experiment_lib.build(config, None, data=transfer.data)
    experiments = dict(zip(ARMS, (transfer, scratch), strict=True))
    for warning in results.mixed_labels(transfer):
        logging.warning(warning)
    arms = {name: Arm(e, config.study.eval_points) for name, e in experiments.items()}
    claim(workdir, config, 'compare')
    seeds = list(range(config.seed, config.seed + config.study.seeds))
    write_json(workdir / 'splits.json', {s: transfer.data.record(s) for s in seeds})
    with stop_requested() as stop, Progress(total_steps(config), 'step', quiet=quiet) as progress:
        ledger = Ledger(workdir / 'runs', progress, stop)
        before = ledger.seconds()
        lrs, trials, records = {}, {}, {}
        for name, arm in arms.items():
            lrs[name], trials[name] = tune(ledger, name, arm)
            specs = [RunSpec(seed, lrs[name], trial=False) for seed in seeds]
            records[name] = ledger.records(name, arm, specs)
            check_finite(name, specs, records[name])
        probes = {}
        for name, arm in arms.items():
            probes[name] = probe.accuracies(arm, seeds)
            ledger.tick(0)
        seconds = ledger.spent(before, time.monotonic() - began)
    study = Study(arms, lrs, trials, records, seeds, probes, vectorized(arms['transfer']), seconds)
    content = results.results(study, command)
    report.write(content, workdir / 'report')
    return content


def total_steps(config: ConfigDict) -> int:
    """Steps of all runs of a study."""
    trials = config.study.trials * config.study.tuning_seeds if config.study.trials > 1 else 0
    return len(ARMS) * (trials + config.study.seeds) * config.train.steps


def vectorized(arm: Arm) -> bool:
    """Whether runs are mapped into one program: by config, or by what is faster here."""
    choice = arm.experiment.config.study.vectorize
    wanted = choice == 'on' or (choice == 'auto' and jax.default_backend() != 'cpu')
    return wanted and mapped.fits(arm)


def learning_rates(config: ConfigDict) -> list[float]:
    """The learning rates that both arms try, evenly spaced in log."""
    study = config.study
    if study.trials == 1:
        return [config.optim.lr]
    grid = np.geomspace(study.lr_low, study.lr_high, study.trials)
    return [float(f'{lr:.4g}') for lr in grid]


def tune(ledger: 'Ledger', name: str, arm: Arm) -> tuple[float, list[dict[str, float]]]:
    """Picks an arm's learning rate by its mean on validation, over seeds the study doesn't use.

    Returns:
      The best learning rate, and every trial as `{'lr', 'validation'}`. A run with a non-finite
      loss counts as chance, and its learning rate is taken only if none is without such a run.
    """
    config, task = arm.experiment.config, arm.experiment.task
    lrs = learning_rates(config)
    if len(lrs) == 1:
        return lrs[0], []
    first = config.seed + config.study.seeds
    seeds = range(first, first + config.study.tuning_seeds)
    specs = [RunSpec(seed, lr, trial=True) for lr in lrs for seed in seeds]
    runs: dict[float, list[RunRecord]] = {lr: [] for lr in lrs}
    for spec, record in zip(specs, ledger.records(name, arm, specs), strict=True):
        runs[spec.lr].append(record)
    means = {
        lr: float(np.mean([r.validation[-1] if finite(r) else task.chance for r in records]))
        for lr, records in runs.items()
    }
    sound = [lr for lr in lrs if all(map(finite, runs[lr]))] or lrs
    sign = 1 if task.higher_is_better else -1
    best = max(sound, key=lambda lr: sign * means[lr])
    return best, [{'lr': lr, 'validation': mean} for lr, mean in means.items()]


def finite(record: RunRecord) -> bool:
    """Whether loss, gradient and metric stayed finite."""
    return record.bad_step < 0 and bool(np.isfinite(record.validation[-1]))


def check_finite(name: str, specs: Sequence[RunSpec], records: Sequence[RunRecord]) -> None:
    """Raises RunError if a run of the study went wrong: its seed can't be left out silently."""
    for spec, record in zip(specs, records, strict=True):
        if record.bad_step >= 0:
            raise RunError(
                f'the {name} arm, seed {spec.seed}, lr {spec.lr:g}: loss or gradient became '
                f'non-finite at step {record.bad_step}. Lower config.study.lr_high or set '
                'config.optim.clip, in a new workdir.'
            )


class Ledger:
    """Runs what is missing and keeps every record in `workdir/runs`, so that a study resumes.

    A record says which config and which source's leaves it is of: one of others is run again.
    """

    def __init__(self, directory: Path, progress: Progress, stop: Callable[[int], bool]):
        self.directory, self.progress, self.stop = directory, progress, stop
        self.ran = 0
        directory.mkdir(parents=True, exist_ok=True)

    def records(self, name: str, arm: Arm, specs: Sequence[RunSpec]) -> list[RunRecord]:
        """One record a spec, in order.

        Raises:
          Interrupted: the user asked to stop; finished runs are kept.
        """
        identity = identity_of(arm.experiment)
        paths = {spec: self.directory / f'{name}-{file_name(spec)}' for spec in specs}
        found = {spec: self.kept(path, identity) for spec, path in paths.items()}
        missing = [spec for spec in specs if found[spec] is None]
        steps = arm.experiment.config.train.steps
        self.progress.update(steps * (len(specs) - len(missing)))
        self.progress.note(f'{name}, {"trials" if specs[0].trial else "seeds"}')
        for spec, record in self.run(arm, missing):
            write_json(paths[spec], {'of': identity, **dataclasses.asdict(record)})
            found[spec] = record
            self.ran += 1
        return [kept for spec in specs if (kept := found[spec]) is not None]

    def run(self, arm: Arm, specs: Sequence[RunSpec]) -> Iterator[tuple[RunSpec, RunRecord]]:
        """Runs, mapped into one program or one after another."""
        trials = bool(specs) and specs[0].trial
        # Seconds are compared between arms, whose runs go one way; those of trials are not.
        mapping = vectorized(arm) or (trials and self.maps_trials(arm))
        if specs and mapping:
            logging.info('%d runs as one program.', len(specs))
            yield from mapped.run(arm, specs, self.tick)
        else:
            for spec in specs:
                yield spec, arm.run(spec, self.tick)

    def maps_trials(self, arm: Arm) -> bool:
        """Whether trials run as one program on a CPU too: only products on kept features."""
        choice = arm.experiment.config.study.vectorize
        return choice == 'auto' and mapped.fits(arm) and mapped.maps_well(arm)

    def kept(self, path: Path, identity: str) -> RunRecord | None:
        """The record in a file; None if there is none, or it is damaged or of something else."""
        if not path.exists():
            return None
        try:
            content = read_json(path)
            if content.pop('of') == identity:
                return RunRecord(**content)
            logging.warning('%s is of another config or source; run again.', path)
        except (UserError, KeyError, TypeError):
            logging.warning('%s is damaged; run again.', path)
        return None

    def tick(self, steps: int) -> None:
        """Shows progress; between steps is where a study stops when asked to."""
        self.progress.update(steps)
        if self.stop(0):
            raise Interrupted(
                f'stopped; the finished runs are kept in {self.directory}, and the same command '
                'goes on from there.'
            )

    def seconds(self) -> float:
        """What earlier calls of the same study took, as far as they were not killed."""
        path = self.directory.parent / 'seconds.json'
        return float(read_json(path)['seconds']) if path.exists() else 0.0

    def spent(self, before: float, now: float) -> float:
        """Adds up, and keeps, the time of all calls; one that found everything done adds none."""
        total = before + now if self.ran or not before else before
        write_json(self.directory.parent / 'seconds.json', {'seconds': total})
        return total


def identity_of(experiment: experiment_lib.Experiment) -> str:
    """Hexadecimal sha256 of what decides an arm's runs: its config, and its source's leaves."""
    config = experiment.config
    digest = hashlib.sha256(config_lib.fingerprint(config).encode())
    digest.update(experiment.data_identity(config.seed).encode())
    for path, leaf in sorted(experiment.loaded.items()):
        digest.update(path.encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def file_name(spec: RunSpec) -> str:
    """A file name that tells runs apart.

    >>> file_name(RunSpec(seed=3, lr=0.001, trial=False))
    'seed3-lr0.001.json'
    """
    return f'{"trial" if spec.trial else "seed"}{spec.seed}-lr{spec.lr:g}.json'
