"""Orbax checkpoints: ours, a trainer's steps and plain trees; and what Orbax itself lets pass."""

import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from tljax.errors import UserError
from tljax.pretrained.readers import open_weights, orbax_directory
from tljax.train.model_dir import save_model

ROOT = Path(__file__).parents[3]


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
    (tmp_path / 'a' / 'config.json').write_text('{"architecture": "resnet18"}')
    weights = open_weights(tmp_path / 'a')
    check(weights, expected())
    assert weights.metadata == {'step': 7}
    assert weights.config == {'architecture': 'resnet18'}
    backwards = [weights.tensors[name].read() for name in reversed(weights.tensors)]
    for array, other in zip(backwards, reversed(expected().values()), strict=True):
        np.testing.assert_array_equal(array, other)


def test_more_than_the_files_can_hold_is_refused_unread(tmp_path, monkeypatch):
    ocp.save(tmp_path / 'a', {'w': np.zeros(1 << 20, np.float32), 'step': 7})
    inside = sum(file.stat().st_size for file in (tmp_path / 'a').rglob('*') if file.is_file())
    assert inside < 1 << 15
    assert open_weights(tmp_path / 'a').tensors['w'].read().shape == (1 << 20,)
    (tmp_path / 'large').write_bytes(bytes(1 << 20))
    (tmp_path / 'a' / 'large').symlink_to(tmp_path / 'large')
    monkeypatch.setattr('tljax.pretrained.readers.weights.FREE', 1 << 20)
    monkeypatch.setattr(orbax_directory.Blocks, 'load', None)
    with pytest.raises(UserError, match=r'a claims to hold 4,194,304 bytes in .* not read'):
        open_weights(tmp_path / 'a')


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


DAMAGE = """
import sys
from pathlib import Path
import numpy as np
from tljax.errors import UserError
from tljax.pretrained.readers import open_weights

def read():
    weights = open_weights(sys.argv[1])
    return {name: tensor.read().tobytes() for name, tensor in weights.tensors.items()}

right = read()
for file in sorted(Path(sys.argv[1]).rglob('*')):
    if not file.is_file() or file.name in ('_sharding', 'commit_success.txt'):
        continue
    kept = file.read_bytes()
    for left in (None, b'', kept[:20]):
        file.unlink() if left is None else file.write_bytes(left)
        try:
            result = 'right' if read() == right else 'wrong'
        except UserError as error:
            result = 'refused' if sys.argv[1] in str(error) else 'badly refused'
        print(result, file.name)
    file.write_bytes(kept)
"""


def test_what_is_lost_or_damaged_is_an_error(tmp_path):
    """Orbax gives back the tree without a leaf whose data are gone.

    In a process of its own: when several reads fail, Orbax closes its event loop before all of
    them have ended, and each of the others prints a traceback that nothing can catch.
    """
    ocp.save(tmp_path / 'a', tree())
    done = subprocess.run(
        [sys.executable, '-c', DAMAGE, str(tmp_path / 'a')],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    results = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert {result for result, _ in results} == {'right', 'refused'}
    assert ['refused', '_METADATA'] in results
    assert sum(result == 'refused' for result, _ in results) >= 6
