"""kill -9 at any moment, and several processes."""

import os
import random
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.train.checkpoint import Checkpoints
from tljax.train.model_dir import load_model

SAVER = """
import sys, jax.numpy as jnp, numpy as np
from tljax.train.checkpoint import Checkpoints

def state(step):
    noise = np.random.default_rng(step).normal(size=200_000).astype(np.float32)
    return {'noise': jnp.asarray(noise), 'step': jnp.int32(step)}

with Checkpoints(sys.argv[1], keep=2, every=1) as checkpoints:
    found = checkpoints.restore(state(0))
    step = -1 if found is None else found[0]
    print('restored', step, flush=True)
    first = step + 1
    while True:
        step += 1
        checkpoints.save(step, state(step), {'at': step}, metric=-((step * 37) % 101))
        print('started', step, flush=True)
        if step % 3 == 0 or step == first:
            checkpoints.wait()
            print('durable', step, flush=True)
"""

MODEL_SAVER = """
import sys, numpy as np
from tljax.train.model_dir import save_model
for number in range(int(sys.argv[2]), 10**9):
    kernel = np.full(50_000, number, np.float32)
    save_model(sys.argv[1], {'params': {'kernel': kernel}, 'batch_stats': {}}, {'n': number})
    print('durable', number, flush=True)
"""


def state(step):
    noise = np.random.default_rng(step).normal(size=200_000).astype(np.float32)
    return {'noise': jnp.asarray(noise), 'step': jnp.int32(step)}


def run_and_kill(code, arguments, seconds):
    """Starts a process, kills it some seconds after its first whole save; returns its lines."""
    process = subprocess.Popen(
        [sys.executable, '-c', code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    first = ''
    while 'durable' not in first and (line := process.stdout.readline()):
        first += line
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    rest, errors = process.communicate(timeout=60)
    assert errors == ''
    assert process.returncode == -signal.SIGKILL
    whole = [line for line in (first + rest).splitlines(keepends=True) if line.endswith('\n')]
    return [(word, int(number)) for word, number in (line.split() for line in whole)]


@pytest.mark.parametrize(
    ('seed', 'rounds'), [(0, 3), pytest.param(1, 12, marks=pytest.mark.matrix)]
)
def test_whatever_the_moment_of_a_kill_only_complete_checkpoints_are_left(
    tmp_path, caplog, seed, rounds
):
    rng = random.Random(seed)
    newest = -1
    for _ in range(rounds):
        lines = run_and_kill(SAVER, [tmp_path], rng.uniform(0, 0.4))
        assert lines[0] == ('restored', newest)
        durable = max((step for word, step in lines if word == 'durable'), default=newest)
        started = max((step for word, step in lines if word == 'started'), default=newest)
        checkpoints = Checkpoints(tmp_path)
        steps = checkpoints.steps()
        assert len(steps) <= 4  # the newest 2, the best, and one not yet deleted
        for step in reversed(steps):  # each is whole, and is what was saved at that step
            found, restored, meta = checkpoints.restore(state(0))
            assert (found, meta) == (step, {'at': step})
            expected = state(step)
            assert all(bool((restored[name] == expected[name]).all()) for name in expected)
            (tmp_path / str(step)).rename(tmp_path / f'seen-{step}')
        for step in steps:
            (tmp_path / f'seen-{step}').rename(tmp_path / str(step))
        if steps:
            assert durable <= steps[-1] <= started + 1
            newest = steps[-1]
    assert newest >= rounds  # else nothing was tested
    assert 'damaged' not in caplog.text
    with Checkpoints(tmp_path, every=1) as checkpoints:
        checkpoints.save(newest + 1, state(0), {})
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {str(step) for step in Checkpoints(tmp_path).steps()}


@pytest.mark.parametrize('rounds', [2, pytest.param(8, marks=pytest.mark.matrix)])
def test_a_model_that_is_replaced_is_the_old_or_the_new_one(tmp_path, rounds):
    rng = random.Random(rounds)
    directory, number = tmp_path / 'model', 0
    for _ in range(rounds):
        durable = run_and_kill(MODEL_SAVER, [directory, number], rng.uniform(0, 0.3))[-1][1]
        variables, card = load_model(directory)
        number = card['n']
        assert durable <= number <= durable + 1
        assert set(np.unique(variables['params']['kernel'])) == {number}


PROCESSES = """
import sys, jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from tljax.train.checkpoint import Checkpoints

me, port, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update('jax_num_cpu_devices', 2)
jax.config.update('jax_cpu_collectives_implementation', 'gloo')
jax.distributed.initialize(f'localhost:{port}', 2, me)
mesh = jax.make_mesh((4,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
rows = NamedSharding(mesh, PartitionSpec('data'))
everywhere = NamedSharding(mesh, PartitionSpec())

def state(step):
    def make():
        w = jnp.arange(32.0).reshape(8, 4) + step
        return {'rows': w, 'all': w, 'key': jax.random.key(step), 'step': jnp.int32(step)}
    where = {'rows': rows, 'all': everywhere, 'key': everywhere, 'step': everywhere}
    return jax.jit(make, out_shardings=where)()

def sums(tree):
    data = {**tree, 'key': jax.random.key_data(tree['key'])}
    return jax.jit(lambda t: jax.tree.map(jnp.sum, t), out_shardings=everywhere)(data)

with Checkpoints(directory, keep=1, every=1) as checkpoints:
    assert checkpoints.restore(state(0)) is None
    for step in range(3):
        assert checkpoints.save(step, state(step), {'at': step}, metric=-step)
    checkpoints.wait()
    jax.experimental.multihost_utils.sync_global_devices('saved')
    assert checkpoints.steps() == [0, 2], checkpoints.steps()
    assert not checkpoints.save(2, state(9), {})
    if me == 1:  # damage that only one of them sees must send both to the step before
        from tljax.train import storage
        verify = storage.verify
        def fail(path, record):
            verify(path, record)
            if path.name == '2':
                raise storage.DamagedError('a test')
        storage.verify = fail
    step, tree, meta = checkpoints.restore(state(0))
    assert (step, meta) == (0, {'at': 0}), step
    assert tree['rows'].sharding.is_equivalent_to(rows, 2)
    want, got = sums(state(0)), sums(tree)
    assert all(int(want[k].addressable_data(0)) == int(got[k].addressable_data(0)) for k in want)
    assert checkpoints.save(2, state(5), {'at': 5})  # the damaged one is moved away
print('fine', me)
"""


@pytest.mark.slow
def test_two_processes_save_and_restore_one_state(tmp_path):
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', PROCESSES, str(me), str(port), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for me in range(2)
    ]
    try:
        for me, process in enumerate(processes):
            out = process.communicate(timeout=120)[0]
            assert f'fine {me}' in out, out
    finally:
        for process in processes:
            process.kill()
    # and one process reads what two have written
    zeros = jnp.zeros((8, 4))
    like = {'rows': zeros, 'all': zeros, 'step': jnp.int32(0), 'key': jax.random.key(0)}
    found = Checkpoints(tmp_path).restore(like)
    assert found[0] == 2
    np.testing.assert_array_equal(found[1]['rows'], np.arange(32.0).reshape(8, 4) + 5)
