"""Many runs as one program: mapped over runs, scanned over steps, data on the device."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tljax import mesh as mesh_lib
from tljax import trees
from tljax.errors import RunError
from tljax.study.mapped_plan import Plan, evaluation, plain, prefixed
from tljax.study.runs import Arm, RunRecord, RunSpec, shown_of
from tljax.train import experiment as experiment_lib
from tljax.train import reference
from tljax.train import step as step_lib
from tljax.train.feed import Feed
from tljax.train.state import own_buffers

CHUNK = 256  # steps a call: few calls, and index arrays and progress in small pieces
SHARE = 0.9  # of the device's memory that a program may fill


def fits(arm: Arm) -> bool:
    """Whether an arm's data lies on the device, and its runs begin without looking at it."""
    experiment = arm.experiment
    looks = experiment.config.transfer.adapt_norm or reference.looks_at_data(experiment.setting)
    return not looks and arm.pool.resident is not None and arm.validation.resident is not None


def maps_well(arm: Arm) -> bool:
    """Whether mapped runs are faster on a CPU too: all of them train on shared features alone."""
    first = arm.order(arm.experiment.config.seed)[0]
    return all(
        arm.shared(index) and runner.maps_well(len(first))
        for index, runner in enumerate(arm.runners)
    )


def run(
    arm: Arm, specs: Sequence[RunSpec], tick: Callable[[int], None]
) -> Iterator[tuple[RunSpec, RunRecord]]:
    """All runs at once, in groups as large as the device's memory allows.

    Args:
      arm: with its data on the device.
      specs: runs, all trials or none.
      tick: called with the number of steps just taken, all runs together.

    Yields:
      Each spec with its record, when its group is done. `seconds` is the group's time, evaluation
      included, divided by its size.
    """
    left, size = list(specs), len(specs)
    while left:
        group = left[:size]
        try:
            records = _Group(arm, group).run(tick)
        except OutOfMemory:
            if size == 1:
                raise RunError("one run alone does not fit the device's memory.") from None
            size = -(-size // 2)
            continue
        yield from zip(group, records, strict=True)
        left = left[size:]


class OutOfMemory(Exception):
    """One program of so many runs does not fit the device."""


class _Group:
    def __init__(self, arm: Arm, specs: Sequence[RunSpec]):
        self.arm, self.specs = arm, specs
        self.points = arm.points_of(specs[0])
        self.orders = [arm.order(spec.seed) for spec in specs]
        self.shared = [arm.shared(index) for index in range(len(arm.programs))]

    def run(self, tick: Callable[[int], None]) -> list[RunRecord]:
        arm, experiment = self.arm, self.arm.experiment
        seeds = jnp.array([spec.seed for spec in self.specs])
        init_keys, train_keys = jax.vmap(experiment_lib.run_keys)(seeds)
        variables = jax.jit(jax.vmap(experiment.init, in_axes=(0, None)))(
            init_keys, experiment.loaded
        )
        lrs = jnp.array([spec.lr for spec in self.specs], jnp.float32)
        state = jax.vmap(arm.programs[0].start)(variables, lrs, train_keys)
        params, curves, seconds = variables['params'], [], 0.0
        for index, program in enumerate(arm.programs):
            if index:
                state = jax.vmap(program.enter)(state, params)
            frozen = program.split(params)[1]
            if self.shared[index]:
                frozen = jax.tree.map(lambda leaf: leaf[0], frozen)
            state = self._place(own_buffers(state))
            if not self.shared[index]:
                frozen = self._place(frozen)
            state, sums, spent = self._phase(index, state, frozen, tick)
            curves += sums
            seconds += spent
            spread = self._spread(frozen, self.shared[index])
            params = trees.combine(state.trainable, spread)
        shown = shown_of(state, spread)
        curves.append(self._sums(arm.validation, *shown))
        trial = self.specs[0].trial
        test = None if trial else self._sums(arm.test, *shown)
        return self._records(curves, test, seconds, np.asarray(state.bad_step))

    def _place(self, tree: Any) -> Any:
        """Splits the runs over the devices where they divide evenly, else every device has all."""
        mesh = self.arm.mesh
        even = len(self.specs) % mesh.size == 0
        sharding = mesh_lib.split_batch(mesh) if even else mesh_lib.replicated(mesh)
        return jax.device_put(tree, sharding)

    def _spread(self, frozen: Any, shared: bool) -> Any:
        if not shared:
            return frozen
        return jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (len(self.specs), *leaf.shape)), frozen
        )

    def _phase(self, index: int, state: Any, frozen: Any, tick: Callable[[int], None]):
        phase = self.arm.programs[index].phase
        chosen = np.unique(np.concatenate([subset for subset, _ in self.orders]))
        plan = prefixed(self.arm, index, state, frozen, chosen) or plain(self.arm, index, frozen)
        key = index, len(self.specs), CHUNK, plan.rows is None
        if key not in self.arm.mapped:  # trials and seeds run the same program
            self.arm.mapped[key] = self._compile(index, state, plan)
        program = self.arm.mapped[key]
        curves, began = [], time.monotonic()
        for first in range(phase.first, phase.end, CHUNK):
            steps = range(first, min(first + CHUNK, phase.end))
            padded = range(first, first + min(CHUNK, phase.steps))
            indices = np.stack([self._indices(step, plan) for step in padded])
            flags = np.array([step in self.points and step in steps for step in padded])
            real = np.array([step in steps for step in padded])
            state, sums = program(state, plan.fixed, plan.data, plan.valid, indices, flags, real)
            sums = jax.device_get(sums)
            curves += [
                {name: value[row] for name, value in sums.items()} for row in np.flatnonzero(flags)
            ]
            tick(len(steps) * len(self.specs))
        jax.block_until_ready(state)
        return state, curves, time.monotonic() - began + plan.seconds

    def _indices(self, step: int, plan: Plan) -> np.ndarray:
        """What each run gathers in a step: (runs, batch), or (runs, batch, 2) with views."""
        pool = self.arm.pool
        chosen = np.stack([pool.of(subset).drawn(order, step) for subset, order in self.orders])
        if plan.rows is None:
            return chosen
        if not pool.views:
            return plan.rows[chosen]
        return plan.rows[chosen[..., 0]] * pool.views + chosen[..., 1]

    def _compile(self, index: int, state: Any, plan: Plan):
        """One chunk of steps, for all runs; steps beyond the phase's end leave the state alone."""
        program = self.arm.programs[index]

        def one_step(state, fixed, data, indices):
            return plan.step(state, fixed, step_lib.gather(data, indices))

        steps = jax.vmap(one_step, in_axes=(0, plan.axis, None, 0))
        evaluations = jax.vmap(plan.evaluate, in_axes=(0, plan.axis, None))

        def chunk(state, fixed, data, valid, indices, flags, real):
            shapes = jax.eval_shape(evaluations, state, fixed, valid)

            def body(state, inputs):
                indices, flag, real = inputs
                sums = lax.cond(
                    flag,
                    lambda: evaluations(state, fixed, valid),
                    lambda: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes),
                )
                state = lax.cond(real, lambda: steps(state, fixed, data, indices), lambda: state)
                return state, sums

            return lax.scan(body, state, (indices, flags, real))

        length = min(CHUNK, program.phase.steps)
        compiled = (
            jax.jit(chunk, donate_argnums=0)
            .lower(
                state,
                plan.fixed,
                plan.data,
                plan.valid,
                np.zeros((length, *self._indices(program.phase.first, plan).shape), np.int32),
                np.zeros(length, bool),
                np.zeros(length, bool),
            )
            .compile()
        )
        _check_memory(compiled)
        return compiled

    def _sums(self, feed: Feed, params: Any, batch_stats: Any) -> dict[str, np.ndarray]:
        """Sums over a whole feed, one row a run; run after run where the feed streams."""
        if feed.resident is not None:
            program = jax.jit(jax.vmap(evaluation(self.arm, feed), in_axes=(0, 0, None)))
            return jax.device_get(program(params, batch_stats, feed.resident))
        rows = [
            feed.evaluate(
                self.arm.evaluate,
                *jax.tree.map(lambda leaf, i=i: leaf[i], (params, batch_stats)),
            )
            for i in range(len(self.specs))
        ]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def _records(self, curves, test, seconds, bad_steps) -> list[RunRecord]:
        task = self.arm.experiment.task

        def metric(sums, run):
            return task.metrics({key: value[run] for key, value in sums.items()})[task.metric]

        return [
            RunRecord(
                steps=self.points,
                validation=[metric(sums, run) for sums in curves],
                test=None if test is None else metric(test, run),
                seconds=seconds / len(self.specs),
                bad_step=int(bad_steps[run]),
            )
            for run in range(len(self.specs))
        ]


def _check_memory(compiled: Any) -> None:
    """Raises OutOfMemory if a compiled program needs more than the device has."""
    stats = jax.local_devices()[0].memory_stats() or {}
    limit, analysis = stats.get('bytes_limit'), compiled.memory_analysis()
    if not limit or analysis is None:
        return
    needed = (
        analysis.argument_size_in_bytes
        + analysis.temp_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
    )
    if needed > SHARE * limit:
        raise OutOfMemory
