"""tljax's part of adapting.py: one way in this process, as `compare` runs an arm.

`tljax` has the config's defaults: features of a frozen prefix are kept where it pays.
`tljax, nothing kept` has `config.prefix.cache='off'`.
"""

import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import jax
import numpy as np
from findings import Held

from tljax import config as config_lib
from tljax.data import Form
from tljax.data.sources import Data
from tljax.models import arguments
from tljax.study.runs import Arm, RunSpec
from tljax.train import experiment as experiment_lib
from tljax.train.experiment import Experiment, Source
from tljax.train.prefixed import Ready

POLICIES: dict[str, Any] = {
    'linear probe': 'linear_probe',
    'last stage': [dict(rules=[('backbone/stage4/.*|head/.*', {}), ('.*', None)])],
    'full': 'full',
}
COMPILING = '/jax/core/compile/backend_compile_duration'


def experiment_of(folder: Path, job: dict[str, Any], adaptation: str, cache: str) -> Experiment:
    """An arm that starts from the weights in the folder; its validation is one picture."""
    images, labels = np.load(folder / 'image.npy'), np.load(folder / 'label.npy')
    config = config_lib.default()
    config.model = arguments('resnet', depth=job['depth'])
    config.source.uri = 'weights drawn at random'
    config.data.update(name='synthetic', mean=tuple(job['mean']), std=tuple(job['std']))
    config.transfer.policy = POLICIES[adaptation]
    config.optim.update(name='sgd', momentum=job['momentum'], schedule='constant')
    config.prefix.cache = cache
    config.train.update(steps=job['steps'][adaptation], batch_size=job['batch'])
    config = config_lib.resolve(config)
    splits: Any = {
        'train': Held('train', images, labels),
        'validation': Held('validation', images[:1], labels[:1]),
    }
    example = {
        'image': jax.ShapeDtypeStruct(images.shape[1:], np.uint8),
        'label': jax.ShapeDtypeStruct((), np.int32),
    }
    names = tuple(map(str, range(job['classes'])))
    form = Form(images.shape[1:], 'none', 0, 'bilinear')
    data = Data(names, example, form, splits, 0, 'synthetic', '', 'Drawn at random.')
    with np.load(folder / 'tljax.npz') as file:
        source = Source(dict(file), {'title': config.source.uri})
    return experiment_lib.build(config, source, data=data)


class Watched:
    """Stands in the place of an arm's runner: notes losses, memory and the step's arguments."""

    def __init__(self, runner: Any, steps: int):
        self.runner, self.program, self.steps = runner, runner.program, steps
        self.losses: list[jax.Array] = []
        self.features, self.peak = 0.0, 0

    def ready(self, *args: Any, **kwargs: Any) -> Ready:
        self.found = found = self.runner.ready(*args, **kwargs)
        self.features = found.feed.seconds
        calls = 0

        def step(state: Any, fixed: Any, data: Any, indices: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 1:  # it compiles, and its result is thrown away
                self.arguments = jax.tree.map(shape_of, (state, fixed, data, indices))
                return jax.block_until_ready(found.step(state, fixed, data, indices))
            if calls == 2:
                self.peak = common.new_peak()
            state, metrics = found.step(state, fixed, data, indices)
            self.losses.append(metrics['loss'])
            return state, metrics

        return dataclasses.replace(found, step=step)


def shape_of(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def buffers(compiled: Any) -> dict[str, int]:
    """Bytes of a program, by XLA's buffer assignment."""
    found = compiled.memory_analysis()
    names = ('argument', 'output', 'alias', 'temp')
    return {name: getattr(found, f'{name}_size_in_bytes') for name in names}


def programs(watched: Watched) -> dict[str, dict[str, int]]:
    """Buffers of the step, and of the prefix in front of it where features are kept."""
    found = {'step': buffers(watched.found.step.lower(*watched.arguments).compile())}
    if watched.features:
        kept, shapes = watched.runner.kept, watched.runner.experiment.model.shapes()
        frozen = watched.program.split(shapes['params'])[1]
        still, _ = kept.still_and_moving(shapes['batch_stats'])
        constant = (watched.program.fixed(frozen), still)
        run = jax.jit(kept.train.prefix).lower(constant, kept._batch(kept.size))
        found['features'] = buffers(run.compile())
    return found


def main() -> None:
    folder, adaptation, way = Path(sys.argv[1]), *sys.argv[2:]
    job = json.loads((folder / 'job.json').read_text())
    compiling = 0.0

    def note(event: str, seconds: float, **_: Any) -> None:
        nonlocal compiling
        compiling += seconds if event == COMPILING else 0.0

    jax.monitoring.register_event_duration_secs_listener(note)
    cache = 'off' if way.endswith('nothing kept') else 'auto'
    with tempfile.TemporaryDirectory() as compiled:
        # Empty: programs are compiled once, and read back below to ask what memory they take.
        jax.config.update('jax_compilation_cache_dir', compiled)
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
        began = time.perf_counter()
        arm = Arm(experiment_of(folder, job, adaptation, cache), 2)
        steps, base = job['steps'][adaptation], common.memory('VmRSS')
        (runner,) = arm.runners
        watched: Any = Watched(runner, steps)
        arm.runners = [watched]
        done = 0

        def tick(count: int) -> None:
            nonlocal done
            done += count
            common.progress(done, steps)

        record = arm.run(RunSpec(0, job['lr'], True), tick)
        wall = time.perf_counter() - began
        in_steps, compile_seconds = common.memory('VmHWM'), compiling
        result = dict(
            losses=[float(loss) for loss in watched.losses],
            seconds=record.seconds,
            features=watched.features,
            steps=record.seconds - watched.features,
            compiling=compile_seconds,
            before=wall - record.seconds,
            memory=dict(base=base, steps=in_steps, peak=max(watched.peak, in_steps)),
            buffers=programs(watched),
            said=f'frozen prefix: {runner.decide(len(arm.pool.subset)).reason}',
        )
    print(json.dumps(result))


if __name__ == '__main__':
    main()
