"""Orbax checkpoints: ours, a trainer's steps and plain trees; and what Orbax itself lets pass."""

import shutil

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from tljax.errors import UserError
from tljax.pretrained.readers import open_weights, orbax_directory
from tljax.train.model_dir import save_model


def tree():
    rng = np.random.default_rng(0)
    return {
        'params': {
            'Dense_0': {'kernel': rng.normal(size=(3, 4)).astype(np.float32), 'bias': np.ones(4)},
            'blocks': [{'w': rng.normal(size=5)}, {'w': rng.normal(size=5)}],
            'half': jnp.asarray([0.5, 1.5], jnp.bfloat16),
        },
        'batch_stats': {'mean': np.zeros(3, np.float32)},
        'step': 7,
    }


def expected():
    params = tree()['params']
    return {
        'batch_stats/mean': tree()['batch_stats']['mean'],
        'params/Dense_0/bias': params['Dense_0']['bias'],
        'params/Dense_0/kernel': params['Dense_0']['kernel'],
        'params/blocks/0/w': params['blocks'][0]['w'],
        'params/blocks/1/w': params['blocks'][1]['w'],
        'params/half': np.array([0.5, 1.5], ml_dtypes.bfloat16),
    }


def check(weights, arrays):
    assert weights.format == 'orbax'
    assert list(weights.tensors) == list(arrays)
    for name, array in arrays.items():
        read = weights.tensors[name].read()
        assert read.dtype == weights.tensors[name].dtype == array.dtype
        assert read.tobytes() == array.tobytes()
        with pytest.raises(ValueError, match='read-only'):
            read[...] = 0


@pytest.mark.parametrize('block', [0, 1 << 20])
def test_a_tree_of_anybody(tmp_path, monkeypatch, block):
    monkeypatch.setattr(orbax_directory, 'BLOCK', block)
    ocp.save(tmp_path / 'a', tree())
    (tmp_path / 'a' / 'config.json').write_text('{"depth": 18}')
    weights = open_weights(tmp_path / 'a')
    check(weights, expected())
    assert weights.metadata == {'step': 7}
    assert weights.config == {'depth': 18}
    backwards = [weights.tensors[name].read() for name in reversed(weights.tensors)]
    for array, other in zip(backwards, reversed(expected().values()), strict=True):
        np.testing.assert_array_equal(array, other)


def test_leaves_are_read_ahead_only_in_order(tmp_path, monkeypatch):
    ocp.save(tmp_path / 'a', tree())
    asked = []
    load = orbax_directory.Blocks.load
    monkeypatch.setattr(
        orbax_directory.Blocks, 'load', lambda self, names: asked.append(names) or load(self, names)
    )
    weights = open_weights(tmp_path / 'a')
    names = list(weights.tensors)
    for name in names:
        weights.tensors[name].read()
    assert asked[1:] == [names]  # the first was for the step
    weights.tensors[names[2]].read()
    assert asked[2:] == [[names[2]]]


def test_a_model_of_ours_by_its_paths(tmp_path):
    kernel, mean = np.ones((3, 2), np.float32), np.zeros(2, np.float32)
    variables = {
        'params': {'backbone': {'kernel': kernel}},
        'batch_stats': {'backbone': {'mean': mean}},
    }
    save_model(tmp_path / 'model', variables, {'name': 'small'})
    check(
        open_weights(tmp_path / 'model'),
        {'backbone/kernel': kernel, 'backbone/mean': mean},
    )
    data = max((tmp_path / 'model').rglob('d/*'), key=lambda path: path.stat().st_size)
    raw = bytearray(data.read_bytes())
    raw[-3] ^= 1
    data.write_bytes(raw)
    with pytest.raises(UserError, match=r'the bytes of .* are not those that were written'):
        open_weights(tmp_path / 'model')


def test_a_trainer_s_steps(tmp_path):
    with ocp.training.Checkpointer(tmp_path / 'run') as checkpointer:
        checkpointer.save(10, tree())
    check(open_weights(tmp_path / 'run'), expected())
    check(open_weights(tmp_path / 'run' / '10'), expected())
    shutil.copytree(tmp_path / 'run' / '10', tmp_path / 'run' / '9')
    with pytest.raises(UserError, match=r'several steps: 9, 10\. Name one'):
        open_weights(tmp_path / 'run')


def refuses(path):
    """Whether a checkpoint is refused; if it isn't, all of it is right."""
    try:
        check(open_weights(path), expected())
    except UserError:
        return True
    return False


def test_a_leaf_that_is_lost_is_an_error(tmp_path):
    """Orbax gives back the tree without it."""
    ocp.save(tmp_path / 'a', tree())
    refused = 0
    for file in sorted((tmp_path / 'a').rglob('d/*')):
        kept = file.read_bytes()
        file.unlink()
        refused += refuses(tmp_path / 'a')
        file.write_bytes(kept)
    assert refused


@pytest.mark.parametrize('name', ['_METADATA', '_CHECKPOINT_METADATA', 'manifest.ocdbt'])
def test_metadata_that_make_no_sense(tmp_path, name):
    ocp.save(tmp_path / 'a', tree())
    for file in (tmp_path / 'a').rglob(name):
        file.write_bytes(file.read_bytes()[:20])
    # _CHECKPOINT_METADATA holds nothing that is needed.
    assert refuses(tmp_path / 'a') or name == '_CHECKPOINT_METADATA'
