"""A full disk, and directories that can't be written."""

import ctypes
import os
import resource
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from tljax.errors import RunError, UserError
from tljax.train.checkpoint import Checkpoints
from tljax.train.model_dir import load_model, save_model


def noise(step, size=1000):
    """Noise doesn't compress: `size` floats need 4 * size bytes on disk."""
    return {'noise': jnp.asarray(np.random.default_rng(step).normal(size=size), jnp.float32)}


def equal(tree, step):
    return bool((tree['noise'] == noise(step, tree['noise'].size)['noise']).all())


@pytest.mark.parametrize('where', ['under a file', 'in /proc', 'a file'])
def test_a_directory_that_cannot_be_made_is_the_users_mistake(tmp_path, where):
    (tmp_path / 'file').write_text('')
    directory = {
        'under a file': tmp_path / 'file' / 'run',
        'in /proc': Path('/proc/run'),
        'a file': tmp_path / 'file',
    }[where]
    with (
        Checkpoints(directory) as checkpoints,
        pytest.raises(UserError, match=f'{directory}/0 cannot be written .* --workdir'),
    ):
        checkpoints.save(0, noise(0), {})


def full_disk(kind, directory):
    """Makes large writes below a directory fail; returns how to end that."""
    if kind == 'file size':
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, old[1]))
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, old)
    libc = ctypes.CDLL(None, use_errno=True)
    directory.mkdir(exist_ok=True)
    if libc.mount(b'tmpfs', str(directory).encode(), b'tmpfs', 0, b'size=3m') != 0:
        pytest.skip(f'needs the right to mount: {os.strerror(ctypes.get_errno())}')
    return lambda: libc.umount2(str(directory).encode(), 2)


@pytest.mark.parametrize('kind', ['file size', 'tmpfs'])
@pytest.mark.parametrize('when', ['wait', 'next save', 'exit'])
def test_a_full_disk_is_told_and_what_was_saved_before_is_intact(tmp_path, kind, when, capfd):
    directory = tmp_path / 'c'
    end = full_disk(kind, directory)
    try:
        with Checkpoints(directory, every=1) as checkpoints:
            checkpoints.save(1, noise(1), {'at': 1})
            checkpoints.wait()
            expected = pytest.raises(RunError, match=f'no room on the disk: {directory}/2 was not')
            if when == 'exit':
                with expected, checkpoints:
                    checkpoints.save(2, noise(2, 4_000_000), {})
            else:
                checkpoints.save(2, noise(2, 4_000_000), {})
                with expected:
                    checkpoints.wait() if when == 'wait' else checkpoints.save(3, noise(3), {})
            assert sorted(path.name for path in directory.iterdir()) == ['1']  # space is free again
            step, state, meta = checkpoints.restore(noise(0))
            assert (step, meta) == (1, {'at': 1})
            assert equal(state, 1)
            checkpoints.save(3, noise(3), {'at': 3})  # and the run may go on
            assert checkpoints.latest_step() == 3
        assert equal(Checkpoints(directory).restore(noise(0))[1], 3)
    finally:
        end()
    assert 'Traceback' not in capfd.readouterr().err


def test_a_directory_taken_away_during_a_run_is_told(tmp_path):
    saved = tmp_path / 'checkpoints'
    with Checkpoints(saved, every=1) as checkpoints:
        checkpoints.save(300, noise(300), {})
        checkpoints.wait()
        shutil.rmtree(saved)
        saved.write_text('')
        with pytest.raises(UserError, match=f'{saved}/301 cannot be written'):
            checkpoints.save(301, noise(301), {})


@pytest.mark.parametrize('kind', ['file size', 'tmpfs'])
def test_a_full_disk_leaves_the_model_that_was_there(tmp_path, kind):
    end = full_disk(kind, tmp_path / 'c')
    directory = tmp_path / 'c' / 'model'
    try:
        save_model(directory, {'params': noise(1)}, {'n': 1})
        with pytest.raises(RunError, match=f'no room on the disk: {directory} was not saved'):
            save_model(directory, {'params': noise(2, 4_000_000)}, {'n': 2})
        variables, card = load_model(directory)
        assert card == {'n': 1}
        assert equal(variables['params'], 1)
        assert [path.name for path in directory.parent.iterdir()] == ['model']
    finally:
        end()


@pytest.mark.parametrize('directory', ['/proc/model', 'file/model'])
def test_a_model_directory_that_cannot_be_made(tmp_path, directory):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=f'{directory} cannot be written'):
        save_model(tmp_path / directory, {'params': noise(1)}, {})
