"""Saving and restoring when nothing goes wrong, and what is kept."""

import logging
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tljax.errors import UserError
from tljax.train.checkpoint import Checkpoints


def full_state(seed=0):
    """A state with every kind of leaf that a run may hold."""
    rng = np.random.default_rng(seed)
    params = {'conv': {'kernel': jnp.asarray(rng.normal(size=(3, 3, 2, 4)), jnp.float32)}}
    return {
        'params': params,
        'opt': optax.adamw(0.1).init(params),  # named tuples, an int32 count, empty states
        'half': jnp.asarray(rng.normal(size=5), jnp.bfloat16),
        'special': jnp.asarray([np.nan, -0.0, np.inf, 1e-45], jnp.float32),
        'flags': jnp.array([True, False]),
        'empty': jnp.zeros((0, 3), jnp.float16),
        'key': jax.random.key(seed + 7),
        'keys': jax.random.split(jax.random.key(seed, impl='rbg'), 3),
        "odd['name'].0": jnp.ones(()),
        'holes': {'frozen': None},
        'host': np.arange(4, dtype=np.int64),
        'step': jnp.int32(3),
    }


def bits(leaf):
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).tobytes()


def assert_same(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(expected), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == (other.shape, other.dtype), path
        assert isinstance(leaf, np.ndarray) == isinstance(other, np.ndarray), path
        assert bits(leaf) == bits(other), path


def shapes(tree):
    return jax.tree.map(
        lambda x: x if isinstance(x, np.ndarray) else jax.ShapeDtypeStruct(x.shape, x.dtype), tree
    )


def numbered(step):
    return {'w': jnp.full((4,), step, jnp.float32)}


def save_all(checkpoints, metrics):
    for step, metric in metrics.items():
        assert checkpoints.save(step, numbered(step), {'at': step}, metric, force=True)
    checkpoints.wait()


def test_every_leaf_comes_back_bit_for_bit_in_the_same_structure(tmp_path):
    state = full_state()
    meta = {'config': {'lr': 0.1, 'n': 3, 'none': None}, 'fingerprint': 'ab', 'data': {'next': [1]}}
    with Checkpoints(tmp_path / 'c') as checkpoints:
        assert checkpoints.save(100, state, meta, metric=0.5)
    with Checkpoints(tmp_path / 'c') as checkpoints:
        step, restored, found = checkpoints.restore(shapes(state))
        assert checkpoints.latest_step() == 100
    assert (step, found) == (100, meta)
    assert_same(restored, state)
    # the key goes on where it was, and says which algorithm it is of
    assert bits(jax.random.split(restored['key'])) == bits(jax.random.split(state['key']))
    assert str(jax.random.key_impl(restored['keys'])) == 'rbg'


def test_arrays_serve_as_the_abstract_tree(tmp_path):
    state = full_state()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, state, {})
        assert_same(checkpoints.restore(full_state(seed=1))[1], state)


@pytest.mark.parametrize('dtype', ['float8_e4m3fn', 'int4', 'float16', 'complex64', 'uint32'])
def test_dtype_survives(tmp_path, dtype):
    state = {'w': jnp.arange(-3, 4).astype(dtype)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, state, {})
        assert_same(checkpoints.restore(shapes(state))[1], state)


def test_abstract_tree_may_depend_on_the_step(tmp_path):
    asked = []

    def abstract(step):
        asked.append(step)
        return shapes(numbered(step))

    with Checkpoints(tmp_path) as checkpoints:
        save_all(checkpoints, {3: None, 5: None})
        assert checkpoints.restore(abstract)[0] == 5
    assert asked == [5]


def test_nothing_saved_is_none_and_leaves_no_directory(tmp_path):
    with Checkpoints(tmp_path / 'c') as checkpoints:
        assert checkpoints.restore(numbered(0)) is None
        assert checkpoints.restore(numbered(0), best=True) is None
        assert checkpoints.latest_step() is None
        assert not checkpoints.save(7, numbered(7), {})  # not due
    assert not (tmp_path / 'c').exists()


def test_saves_when_due_or_forced(tmp_path):
    with Checkpoints(tmp_path, keep=9, every=10) as checkpoints:
        saved = [step for step in range(1, 32) if checkpoints.save(step, numbered(step), {})]
        assert saved == [10, 20, 30]
        assert checkpoints.save(31, numbered(31), {}, force=True)
        assert checkpoints.latest_step() == 31
    with Checkpoints(tmp_path / 'never', every=0) as checkpoints:
        assert not checkpoints.save(0, numbered(0), {})


def test_the_same_step_twice_keeps_the_first(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.save(100, numbered(1), {'first': True})
        assert not checkpoints.save(100, numbered(2), {'first': False})
        assert not checkpoints.save(100, numbered(2), {'first': False}, force=True)
        step, state, meta = checkpoints.restore(numbered(0))
    assert (step, state['w'][0], meta) == (100, 1, {'first': True})


def test_step_zero_and_any_order_of_steps(tmp_path):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        save_all(checkpoints, {10: None, 9: None, 0: None})
        assert checkpoints.steps() == [0, 9, 10]
        assert checkpoints.restore(numbered(0))[0] == 10


@pytest.mark.parametrize(
    ('metrics', 'kept', 'best'),
    [
        ({1: 0.1, 2: 0.9, 3: 0.3, 4: 0.4}, [2, 3, 4], 2),
        ({1: 0.1, 2: 0.9, 3: 0.3, 4: 0.95}, [3, 4], 4),
        ({1: 0.5, 2: 0.5, 3: 0.1, 4: 0.1}, [2, 3, 4], 2),  # of equals the newer
        ({1: -2.0, 2: -9.0, 3: -8.0, 4: -7.0}, [1, 3, 4], 1),
        ({1: 0.1, 2: float('nan'), 3: float('inf'), 4: None}, [1, 3, 4], 1),
        ({1: None, 2: None, 3: None, 4: None}, [3, 4], None),
    ],
)
def test_the_newest_and_the_best_are_kept(tmp_path, metrics, kept, best):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        save_all(checkpoints, metrics)
        assert checkpoints.steps() == kept
        found = checkpoints.restore(numbered(0), best=True)
    assert (found and found[0]) == best
    # and nothing else lies about
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, kept))


def test_the_best_is_remembered_by_the_next_process(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        save_all(checkpoints, {1: 0.9, 2: 0.1})
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        save_all(checkpoints, {3: 0.2, 4: 0.3})
        assert checkpoints.steps() == [1, 4]


def test_restored_leaves_are_where_the_abstract_tree_says(tmp_path):
    state = {
        'rows': jnp.arange(32.0).reshape(8, 4),
        'all': jnp.arange(4.0),
        'keys': jax.random.split(jax.random.key(0), 8),
        'free': jnp.int32(3),
        'bare': jnp.int32(4),
    }
    mesh = Mesh(np.array(jax.devices()[:4]), ('data',))
    rows = NamedSharding(mesh, PartitionSpec('data'))
    everywhere = NamedSharding(mesh, PartitionSpec())
    where = {'rows': rows, 'all': everywhere, 'keys': rows, 'bare': None}
    abstract = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where[name])
        for name, leaf in state.items()
        if name != 'free'
    }
    abstract['free'] = jnp.int32(0)  # committed to no device
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, state, {})
        restored = checkpoints.restore(abstract)[1]
        assert_same(restored, state)
        for name in ('rows', 'all', 'keys'):
            assert restored[name].sharding.is_equivalent_to(where[name], restored[name].ndim)
        # these meet arrays on four devices, which a leaf committed to one may not
        jax.jit(lambda s: s['all'] + s['free'] + s['bare'])(restored)
        # and from four devices back to the arrays on one
        checkpoints.save(1, restored, {}, force=True)
        again = checkpoints.restore(state)
    assert again[0] == 1
    assert_same(again[1], state)
    assert again[1]['rows'].sharding.device_set == {jax.devices()[0]}


def test_a_checkpoint_of_four_devices_is_read_in_a_process_of_one(tmp_path):
    mesh = Mesh(np.array(jax.devices()[:4]), ('data',))
    rows = jax.device_put(
        np.arange(32, dtype=np.float32).reshape(8, 4), NamedSharding(mesh, PartitionSpec('data'))
    )
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, {'rows': rows}, {})
    code = """
import sys, jax, jax.numpy as jnp
from tljax.train.checkpoint import Checkpoints
assert len(jax.devices()) == 1
like = {'rows': jax.ShapeDtypeStruct((8, 4), jnp.float32)}
print(Checkpoints(sys.argv[1]).restore(like)[1]['rows'].sum())
"""
    environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': '1', 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.stdout.strip() == '496.0', done.stderr  # 0 + 1 + ... + 31
    assert done.stderr == ''  # Orbax is silent


def test_the_caller_may_donate_the_state_as_soon_as_save_returns(tmp_path):
    """On a CPU a view of an array is its memory: the next step would write into what is saved."""
    update = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    host = np.zeros(1_000_000, np.float32)
    state = {'a': jnp.zeros((1000, 4000)), 'b': jnp.zeros((3, 7))}
    with Checkpoints(tmp_path, keep=9, every=1) as checkpoints:
        for step in range(4):
            host[:] = step
            assert checkpoints.save(step, {'jax': state, 'host': host}, {})
            host[:] = -1
            for _ in range(5):
                state = update(state)
            assert float(state['b'][0, 0]) == 5 * (step + 1)
        checkpoints.wait()
        for step in range(4):
            found, restored, _ = checkpoints.restore({'jax': state, 'host': host})
            assert found == 3 - step
            assert {float(x) for x in np.unique(restored['jax']['a'])} == {5.0 * found}
            assert set(np.unique(restored['jax']['b'])) == {5.0 * found}
            assert set(np.unique(restored['host'])) == {found}
            (tmp_path / str(found)).rename(tmp_path / f'seen-{found}')


def test_a_donated_step_after_restore_goes_on_as_if_undisturbed(tmp_path):
    def update(state):
        noise = jax.random.normal(jax.random.fold_in(state['key'], state['step']), (64,))
        return {**state, 'w': state['w'] * 0.9 + noise, 'step': state['step'] + 1}

    step = jax.jit(update, donate_argnums=0)

    def start():
        return {'w': jnp.ones(64), 'step': jnp.int32(0), 'key': jax.random.key(5)}

    straight = start()
    for _ in range(6):
        straight = step(straight)
    state = start()
    for _ in range(3):
        state = step(state)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state, {}, force=True)
        state = checkpoints.restore(jax.eval_shape(start))[1]
    for _ in range(3):
        state = step(state)
    assert_same(state, straight)


def test_a_save_completes_by_itself_while_the_run_goes_on(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(0, {'w': jnp.ones((2000, 2000))}, {})
    assert checkpoints.steps() == []  # 16 MB are not written before save returns
    deadline = time.monotonic() + 30
    while checkpoints.steps() != [0]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    checkpoints.wait()


def test_an_error_inside_the_block_is_not_hidden_and_the_save_still_ends(tmp_path):
    def fail():
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(0, numbered(0), {})
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert Checkpoints(tmp_path).restore(numbered(0))[0] == 0


@pytest.mark.parametrize(
    ('state', 'meta', 'words'),
    [
        ({'a': {'b': np.ones(1)}, 'a.b': np.ones(1)}, {}, "'a/b' and 'a.b' have one name"),
        ({'w': np.ones(1)}, {'lr': float('nan')}, 'not JSON compliant'),
        ({'w': np.ones(1)}, {'lr': np.float32(1)}, 'not JSON serializable'),
    ],
)
def test_what_cannot_be_kept_is_refused_at_once(tmp_path, state, meta, words):
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises((ValueError, TypeError), match=words):
            checkpoints.save(0, state, meta)
        assert checkpoints.save(0, numbered(0), {})  # and no harm is done
        assert checkpoints.restore(numbered(0))[0] == 0


@pytest.mark.parametrize('arguments', [{'keep': 0}, {'every': -1}])
def test_arguments_out_of_range(tmp_path, arguments):
    with pytest.raises(UserError, match='keep >= 1 and every >= 0'):
        Checkpoints(tmp_path, **arguments)


def test_orbax_reads_what_we_save_and_foreign_steps_are_not_taken_for_ours(tmp_path, caplog):
    from orbax.checkpoint import v1 as ocp

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(100, numbered(100), {})
    with ocp.training.Checkpointer(tmp_path) as theirs:
        assert [c.step for c in theirs.checkpoints] == [100]
        np.testing.assert_array_equal(theirs.load(100)['w'], np.full(4, 100, np.float32))
        theirs.save(200, {'w': np.zeros(4)})
    with caplog.at_level(logging.WARNING), Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(numbered(0))[0] == 100
    assert f'{tmp_path / "200"} is damaged: tljax.json is missing' in caplog.text


def test_importing_is_light():
    code = (
        'import sys, tljax.train.checkpoint, tljax.train.model_dir; '
        "print([m for m in sys.modules if m.split('.')[0] in ('orbax', 'tensorstore')])"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'
