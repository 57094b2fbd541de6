"""Memory that XLA frees on a CPU: kept by the process, as launch.py has it, or given back.

A small BERT on texts of 128 tokens: training steps of 16, evaluations of 512. Each way is a fresh
process each time, which also counts the pages that it had to ask the system for, and its peak.
"""

import os
import resource
import subprocess
import sys
import time

import common

SMALL = dict(steps=60, repeats=3)
FULL = dict(steps=300, repeats=7)
KEPT = 'TLJAX_KEPT'  # tells a fresh process what to do
WAYS = {'given back': '0', 'kept': '1'}
MODEL = dict(
    **dict(width=96, layers=2, heads=4, hidden=192, vocabulary=4096, positions=256, types=0),
    **dict(dropout=0.0, attention_dropout=0.0),
)


def child(steps: int) -> None:
    """Prints seconds and page faults of a step and of an evaluation, and the peak in bytes."""
    import jax
    import jax.numpy as jnp

    from tljax import models
    from tljax.process import keep_memory

    if os.environ[KEPT] == '1':
        keep_memory()
    example = {name: jax.ShapeDtypeStruct((128,), jnp.int32) for name in ('tokens', 'mask')}
    model = models.build(models.arguments('bert', **MODEL), example, 2)
    variables, graph = jax.jit(model.init)(jax.random.key(0)), model.graph(train=True)

    def loss(params, batch):
        return (models.merge(graph, params, {})(batch) ** 2).mean()

    def measured(call, size, count):
        batch = {name: jnp.ones((size, 128), jnp.int32) for name in example}
        jax.block_until_ready(call(variables['params'], batch))
        before, began = faults(), time.perf_counter()
        for _ in range(count):
            jax.block_until_ready(call(variables['params'], batch))
        return (time.perf_counter() - began) / count, (faults() - before) / count

    step = measured(jax.jit(jax.grad(loss)), 16, steps)
    evaluation = measured(jax.jit(loss), 512, max(steps // 10, 1))
    print(*step, *evaluation, common.memory('VmHWM'))


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def main() -> None:
    if KEPT in os.environ:
        child(int(sys.argv[1]))
        return
    chosen = common.settings(__doc__, SMALL, FULL)
    common.header(__doc__)
    found: dict[str, list[list[float]]] = {name: [] for name in WAYS}
    for _ in range(chosen.repeats):
        for name, kept in WAYS.items():
            done = subprocess.run(
                [sys.executable, __file__, str(chosen.steps)],
                env=os.environ | {KEPT: kept},
                capture_output=True,
                text=True,
                check=True,
            )
            found[name].append([float(word) for word in done.stdout.split()])
    for at, title in ((0, 'A training step of 16 texts'), (2, 'An evaluation of 512 texts')):
        columns = {
            'page faults': {n: f'{min(r[at + 1] for r in rows):.0f}' for n, rows in found.items()},
            'peak MB': {n: f'{max(r[4] for r in rows) / 1e6:.0f}' for n, rows in found.items()},
        }
        common.table(title, {n: [r[at] for r in rows] for n, rows in found.items()}, 1, columns)


if __name__ == '__main__':
    main()
