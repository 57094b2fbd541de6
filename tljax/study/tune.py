"""Which policy, learning rate and weight decay? Searched within a budget, judged on validation.

The test split is never read: what is found here is chosen, not measured.
"""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from tljax import calls
from tljax.data.splits import random_keys
from tljax.errors import RunError, UserError
from tljax.models import Outline
from tljax.progress import Progress
from tljax.study import halving, judging, range_test, tuned
from tljax.study.bench import Bench, Candidate, Ledger, given_bounds, with_policy
from tljax.study.halving import Rung
from tljax.study.range_test import RangeTest
from tljax.study.report import tuning as report
from tljax.study.watched import Curves
from tljax.train import experiment as experiment_lib
from tljax.train import programs, sources
from tljax.train.experiment import Experiment, Source
from tljax.train.signals import stop_requested
from tljax.train.workdir import check, claim, write_json
from tljax.transfer import policies

KEY = 'config.tune.policies'


@dataclasses.dataclass(frozen=True)
class Search:
    """What `tune` found out.

    Attributes:
      experiment: of the first candidate, for what they share.
      candidates: all that were tried.
      plan: the rounds.
      rounds: for each round, a candidate's index to its curves, one a seed.
      ranges: by policy, its learning-rate range test; {} where the bounds were given.
      left_out: how many candidates the budget left out.
      seconds: of the whole search.
    """

    experiment: Experiment
    candidates: list[Candidate]
    plan: tuple[Rung, ...]
    rounds: list[dict[int, list[Curves]]]
    ranges: dict[str, RangeTest]
    left_out: int
    seconds: float


def tune(config: ConfigDict, workdir: Path, command: str, *, quiet: bool = False) -> dict:
    """Searches, and writes `workdir/report`.

    A search that was stopped goes on with the runs that are missing, and finds the same.

    Args:
      config: the target's; `config.tune` says what is searched.
      workdir: where everything is written.
      command: the command line, for the report.
      quiet: no progress bar.

    Returns:
      The content of results.json.

    Raises:
      UserError: something in the config doesn't fit, or the budget is too small.
      RunError: no candidate had a finite loss to its end.
      Interrupted: SIGTERM or Ctrl-C.
    """
    began = time.monotonic()
    if jax.process_count() > 1:
        raise UserError(
            'tune runs in one process, over all of its devices; only train takes --distributed.'
        )
    check(workdir, config, 'tune')
    source = sources.load(with_policy(config, 'full'), workdir, quiet=quiet)
    names = named_policies(config, source)
    bench = Bench(config, source)
    plan, count = planned(bench, outlines(bench, names))
    claim(workdir, config, 'tune')
    write_json(workdir / 'splits.json', bench.first.data.record(config.seed))
    total = halving.cost(plan, config.tune.seeds) + range_steps(config, names)
    with stop_requested() as stop, Progress(total, 'step', quiet=quiet) as progress:
        ledger = Ledger(workdir / 'runs', progress, stop)
        ranges = {name: ledger.range_test(bench, i, name) for i, name in enumerate(names)}
        if given_bounds(config):
            ranges = {}
        candidates = drawn(config, names, ranges, count)
        rounds = climb(ledger, bench, candidates, plan)
        seconds = ledger.spent(time.monotonic() - began)
    left_out = len(grid(config, names, ranges)) - count
    search = Search(bench.first, candidates, plan, rounds, ranges, left_out, seconds)
    content = tuned.results(search, command)
    report.write(content, workdir / 'report')
    return content


def named_policies(config: ConfigDict, source: Source | None) -> list[str]:
    """The policies that are tried.

    Raises:
      UserError: there is none, or one twice, or one that isn't known.
    """
    names = [text.strip() for text in config.tune.policies if isinstance(text, str)]
    if not names or len(set(names)) < len(config.tune.policies):  # also: not all of them are names
        raise UserError(
            f"{KEY} is {config.tune.policies!r}; it takes names of policies such as ('full', "
            "'linear_probe'), each once."
        )
    for name in names:
        calls.parse(name, policies.KNOWN, KEY)
    if source is None:
        logging.info('There is no source: every candidate trains all from scratch.')
        return ['full']
    return names


def outlines(bench: Bench, names: Sequence[str]) -> dict[str, Outline]:
    """Each policy's outline of the model; what doesn't fit is found here, before any training."""
    found = {}
    for name in names:
        config = with_policy(bench.config, name)
        experiment = experiment_lib.build(config, bench.source, data=bench.first.data)
        programs.program(experiment, experiment.phases[-1])
        found[name] = experiment.model.outline()
    return found


def planned(bench: Bench, outline_of: Mapping[str, Outline]) -> tuple[tuple[Rung, ...], int]:
    """The rounds, and with how many candidates they begin.

    There are fewer rounds than the number of candidates asks for where a policy needs more steps
    for its phases than the first round would have.
    """
    config = bench.config
    steps, rate, seeds = config.train.steps, config.tune.rate, config.tune.seeds

    def lays_out(short: int) -> bool:
        try:
            for name, outline in outline_of.items():
                policies.phases(policies.settled(name, lambda: [0.0]), short, outline)
        except UserError:
            return False
        return True

    def plan_of(count: int) -> tuple[Rung, ...]:
        plan = halving.rungs(count, steps, rate)
        while len(plan) > 1 and not lays_out(plan[0].steps):
            plan = halving.rungs(count, steps, rate, len(plan) - 1)
        return plan

    tests = range_steps(config, list(outline_of))
    every = config.tune.lrs * len(config.tune.weight_decays) * len(outline_of)
    count = halving.fitting(
        every, config.tune.budget, lambda n: halving.cost(plan_of(n), seeds) + tests
    )
    return plan_of(count), count


def range_steps(config: ConfigDict, names: Sequence[str]) -> int:
    """Steps of all range tests."""
    return 0 if given_bounds(config) else len(names) * config.tune.range_steps


def grid(
    config: ConfigDict, names: Sequence[str], ranges: Mapping[str, RangeTest]
) -> list[Candidate]:
    """Every candidate: policies, learning rates evenly spaced in log, weight decays."""
    return [
        Candidate(name, lr, float(wd))
        for name in names
        for lr in learning_rates(config, ranges.get(name))
        for wd in config.tune.weight_decays
    ]


def learning_rates(config: ConfigDict, found: RangeTest | None) -> list[float]:
    """A policy's learning rates: of the config's bounds, or else of its range test's.

    A bound that the config gives is taken as it is.
    """
    tune = config.tune
    if tune.lrs == 1:
        return [config.optim.lr]
    low, high = tune.lr_low, tune.lr_high
    if found is not None:
        sound = math.isfinite(found.low)
        low = low or (found.low if sound else config.study.lr_low)
        high = high or (found.high if sound else config.study.lr_high)
    if low >= high:
        low = high / range_test.APART if not tune.lr_low else low
        high = low * range_test.APART
    return [float(f'{lr:.3g}') for lr in np.geomspace(low, high, tune.lrs)]


def drawn(
    config: ConfigDict, names: Sequence[str], ranges: Mapping[str, RangeTest], count: int
) -> list[Candidate]:
    """So many candidates of the grid: at random, every policy in turn; in the grid's order."""
    every = grid(config, names, ranges)
    if count == len(every):
        return every
    keys = random_keys(len(every), config.seed, 'tune')
    queues = {
        name: sorted((i for i, c in enumerate(every) if c.policy == name), key=lambda i: keys[i])
        for name in names
    }
    turns = [i for turn in range(len(every)) for queue in queues.values() for i in queue[turn:][:1]]
    return [every[index] for index in sorted(turns[:count])]


def climb(
    ledger: 'Ledger', bench: Bench, candidates: Sequence[Candidate], plan: Sequence[Rung]
) -> list[dict[int, list[Curves]]]:
    """Runs every round; the best candidates of each go on to the next.

    Raises:
      RunError: none of a round was sound.
    """
    task, patience = bench.first.task, bool(bench.config.train.patience)
    seeds = range(bench.config.seed, bench.config.seed + bench.config.tune.seeds)
    alive, rounds = list(range(len(candidates))), []
    for number, rung in enumerate(plan):
        alive = alive[: rung.candidates]
        ledger.progress.note(f'round {number + 1} of {len(plan)}')
        # Those of one program one after another; the record does not depend on the order.
        order = sorted(alive, key=lambda i: (candidates[i].policy, candidates[i].weight_decay, i))
        done = {
            index: [ledger.run(bench, number, index, candidates[index], rung, s) for s in seeds]
            for index in order
        }
        scores = {index: judging.score(curves, task, patience) for index, curves in done.items()}
        if all(score[0] == -math.inf for score in scores.values()):
            raise RunError(
                'every candidate had a non-finite loss. Lower config.tune.lr_high or set '
                'config.optim.clip, in a new workdir.'
            )
        ranked = sorted(alive)
        alive = [ranked[i] for i in halving.survivors([scores[i] for i in ranked], len(ranked))]
        rounds.append({index: done[index] for index in alive})
    return rounds
