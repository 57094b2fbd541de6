"""Seeds of a study mapped into one program, against one run after another.

The digits recipe's scratch arm, evaluations along its curve included. Ratios are to one single
run whose program is compiled already. Aim on a GPU: 10 seeds mapped cost less than 3 single runs.
What compiling costs is printed below the table.
"""

import tempfile
import time

import common
import jax

from tljax import config as config_lib
from tljax.study import mapped
from tljax.study.runs import Arm, RunRecord, RunSpec
from tljax.train import experiment as experiment_lib

SMALL = dict(seeds=10, steps=50, repeats=3)
FULL = dict(seeds=10, steps=200, repeats=7)


def new_arm(steps: int) -> Arm:
    """The scratch arm, its data decoded, its programs not compiled yet."""
    config = config_lib.load('configs/digits.py')
    config.source.uri = ''
    config.train.steps = steps
    experiment = experiment_lib.build(config, None)
    for split in experiment.data.splits.values():
        split.arrays()
    return Arm(experiment, config.study.eval_points)


def timed(function):
    """What a function returns, and the seconds it took."""
    began = time.perf_counter()
    return function(), time.perf_counter() - began


def ignore(steps: int) -> None:
    """No progress bar."""


def seconds_of(records: list[RunRecord]) -> float:
    return sum(record.seconds for record in records)


def main() -> None:
    chosen = common.settings(__doc__, SMALL, FULL)
    common.header(__doc__)
    specs = [RunSpec(seed, lr=3e-3, trial=False) for seed in range(chosen.seeds)]
    single, serial = '1 run', f'{chosen.seeds} one after another'
    together = f'{chosen.seeds} mapped'
    whole = f'{together}, whole call'
    wall: dict[str, list[float]] = {single: [], serial: [], together: [], whole: []}
    updates: dict[str, list[float]] = {single: [], serial: []}
    with tempfile.TemporaryDirectory() as cache:
        # Empty at first: the first calls show what compiling costs, later ones do not wait for it.
        jax.config.update('jax_compilation_cache_dir', cache)
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
        arm = new_arm(chosen.steps)
        _, cold_single = timed(lambda: arm.run(specs[0], ignore))
        cold_records, cold_mapped = timed(lambda: mapped.run(arm, specs, ignore))
        for _ in range(chosen.repeats):
            record, seconds = timed(lambda: arm.run(specs[0], ignore))
            wall[single].append(seconds)
            updates[single].append(record.seconds)
            records, seconds = timed(lambda: [arm.run(spec, ignore) for spec in specs])
            wall[serial].append(seconds)
            updates[serial].append(seconds_of(records))
            # The records count steps and evaluations along the curves; the whole call traces its
            # programs again and takes them from the cache on disk.
            records_mapped, seconds = timed(lambda: mapped.run(arm, specs, ignore))
            wall[together].append(seconds_of(records_mapped))
            wall[whole].append(seconds)
        jax.config.update('jax_compilation_cache_dir', None)
    common.table(f'{chosen.steps} steps a run, with evaluations', wall)
    common.table('Updates alone, without evaluations', updates)
    worst = max(
        abs(a.validation[-1] - b.validation[-1]) for a, b in zip(records, cold_records, strict=True)
    )
    print(
        f'\nBefore the first step: {cold_single - min(wall[single]):.1f} s for a single run, '
        f'{cold_mapped - seconds_of(cold_records):.1f} s mapped, both compiling everything.\n'
        f'Largest difference of a final validation accuracy between the ways: {worst:.4f}'
    )


if __name__ == '__main__':
    main()
