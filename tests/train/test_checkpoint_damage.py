"""Damaged files, and checkpoints of another model."""

import json
import logging
import random
import re
import shutil
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.errors import RunError, UserError
from tljax.train import storage
from tljax.train.checkpoint import Checkpoints

DAMAGES = ('flip', 'truncate', 'empty', 'delete', 'garble')


def numbered(step, size=5000):
    """Noise doesn't compress, so that most bytes on disk are array data."""
    noise = np.random.default_rng(step).normal(size=size).astype(np.float32)
    return {'noise': jnp.asarray(noise), 'layer': {'bias': jnp.full(3, step, jnp.int32)}}


def equal(tree, step):
    expected = numbered(step, tree['noise'].size)
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), tree, expected)))


def files(directory):
    return sorted(path for path in directory.rglob('*') if path.is_file())


def damage(path, how, rng):
    """Damages a file; returns whether that changed anything."""
    before = path.read_bytes()
    content = bytearray(before)
    if how == 'delete':
        path.unlink()
        return True
    if how == 'flip' and content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif how == 'truncate':
        content = content[: rng.randrange(max(1, len(content)))]
    elif how == 'empty':
        content = b''
    elif how == 'garble':
        content = rng.randbytes(len(content))
    path.write_bytes(content)
    return content != before


@pytest.fixture
def saved(tmp_path):
    directory = tmp_path / 'checkpoints'
    with Checkpoints(directory, keep=2, every=100) as checkpoints:
        for step in (100, 200):
            checkpoints.save(step, numbered(step), {'at': step, 'note': 'x' * 20}, metric=step)
    return directory


@pytest.mark.parametrize(
    'seed', [0, *(pytest.param(i, marks=pytest.mark.slow) for i in range(1, 9))]
)
@pytest.mark.parametrize('how', DAMAGES)
def test_damage_anywhere_is_seen(saved, tmp_path, how, seed, caplog, capfd):
    """Each file of the newest checkpoint in turn, also those that Orbax doesn't read."""
    rng = random.Random(f'{how}{seed}')
    for number, file in enumerate(files(saved / '200')):
        copy = tmp_path / f'copy{number}'  # TensorStore would remember a path that it has read
        shutil.copytree(saved, copy)
        changed = damage(copy / file.relative_to(saved), how, rng)
        caplog.clear()
        with caplog.at_level(logging.WARNING), Checkpoints(copy) as checkpoints:
            step, state, meta = checkpoints.restore(numbered(0))
        assert step == (100 if changed else 200), file
        assert equal(state, step), file
        assert meta == {'at': step, 'note': 'x' * 20}, file
        assert [record.getMessage().partition(':')[0] for record in caplog.records] == (
            [f'The checkpoint {copy / "200"} is damaged'] if changed else []
        )
    assert capfd.readouterr().err == ''


def test_one_flipped_bit_in_the_array_data_is_seen(saved, caplog):
    """Orbax itself returns such an array without a word: our sums are what finds it."""
    from orbax.checkpoint import v1 as ocp

    data = max(files(saved / '200'), key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert Checkpoints(saved).restore(numbered(0))[0] == 100
    assert f'the bytes of the file {data.relative_to(saved / "200")} are not' in caplog.text
    # if this fails, Orbax has learnt to look, and the docstring of storage.py is out of date
    theirs = ocp.load(str(saved / '200'))
    assert (theirs['noise'] != np.asarray(numbered(200)['noise'])).sum() > 0


@pytest.mark.parametrize(
    ('edit', 'words'),
    [
        (lambda c: c['body']['extra']['meta'].update(at=201), 'is not the one that was written'),
        (lambda c: c['body'].pop('extra'), 'is not the one that was written'),
        (lambda c: c.pop('body'), "is unreadable: 'body'"),
        (lambda c: reseal(c, format=2), r'a newer tljax wrote it \(format 2\)'),
        (lambda c: reseal(c, leaves=[]), 'is unreadable'),
        (lambda c: reseal(c, leaves={'w': None}), 'is unreadable'),
        (lambda c: reseal(c, files={'x': 3}), 'is unreadable'),
    ],
)
def test_a_record_that_was_edited_is_seen(saved, caplog, edit, words):
    path = saved / '200' / 'tljax.json'
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        assert Checkpoints(saved).restore(numbered(0))[2]['at'] == 100
    assert re.search(words, caplog.text)


def reseal(content, **changes):
    content['body'].update(changes)
    content['crc32'] = zlib.crc32(storage.canonical_json(content['body']))


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda leaves: leaves['noise'].update(shape=[5001]), 'noise|unreadable'),
        (lambda leaves: leaves['noise'].update(dtype='object'), 'unreadable'),
        (lambda leaves: leaves.update(more=leaves['noise']), 'more|unreadable'),
    ],
)
def test_a_record_that_promises_what_is_not_there_is_seen(saved, caplog, change, words):
    """Sums and all: Orbax alone would return a missing leaf as our own request for it."""
    path = saved / '200' / 'tljax.json'
    content = json.loads(path.read_text())
    change(content['body']['leaves'])
    reseal(content)
    path.write_text(json.dumps(content))
    record = storage.read_record(saved / '200')
    with pytest.raises(storage.DamagedError, match=words):
        storage.read_arrays(saved / '200', record)


@pytest.mark.parametrize('how', ['empty directory', 'file', 'no record'])
def test_what_is_no_checkpoint_at_all(saved, how):
    shutil.rmtree(saved / '200')
    if how == 'file':
        (saved / '200').write_text('')
    else:
        (saved / '200').mkdir()
        if how == 'no record':
            (saved / '200' / 'commit_success.txt').write_text('')
    with Checkpoints(saved, every=100) as checkpoints:
        assert checkpoints.restore(numbered(0))[0] == 100
        assert checkpoints.save(200, numbered(200), {'at': 200})
        assert checkpoints.restore(numbered(0))[0] == 200


def test_names_that_are_no_steps_are_passed_over(saved):
    for name in ('0300', '-1', '300.damaged', '300.deleted', 'x', '3e2', '\u0663'):
        (saved / name).mkdir()
    assert Checkpoints(saved).steps() == [100, 200]


def test_a_damaged_step_is_saved_again_and_kept_aside(saved, caplog):
    (saved / '200' / 'tljax.json').write_text('{')
    with caplog.at_level(logging.WARNING), Checkpoints(saved, every=100) as checkpoints:
        assert checkpoints.restore(numbered(0))[0] == 100
        assert checkpoints.steps() == [100, 200]  # reading alone moves nothing
        assert checkpoints.save(200, numbered(200), {'at': 200})
        assert checkpoints.save(300, numbered(300), {'at': 300})
    assert f'Moved the damaged checkpoint to {saved / "200.damaged"}' in caplog.text
    assert caplog.text.count('is damaged') == 1
    assert sorted(path.name for path in saved.iterdir()) == [
        '100',  # now the best
        '200',
        '200.damaged',
        '300',
    ]
    assert equal(Checkpoints(saved).restore(numbered(0))[1], 300)


def test_the_best_one_damaged_gives_the_next_best(saved):
    with Checkpoints(saved, keep=3) as checkpoints:
        checkpoints.save(300, numbered(300), {}, metric=150)
    data = max(files(saved / '200'), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    assert Checkpoints(saved).restore(numbered(0), best=True)[0] == 300


def test_all_damaged_is_a_failure_that_names_the_directory(saved):
    for step in (100, 200):
        (saved / str(step) / 'tljax.json').unlink()
    expected = rf'No checkpoint in {saved} can be read: \[100, 200\] are damaged'
    for call in (
        lambda c: c.restore(numbered(0)),
        lambda c: c.restore(numbered(0), best=True),
    ):
        with pytest.raises(RunError, match=expected):
            call(Checkpoints(saved))


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (
            lambda s: s.update(nois=s.pop('noise')),
            [r"'nois' is not in the .*mean 'noise'\?", "'noise' is not in the run"],
        ),
        (lambda s: s.update(extra=jnp.ones(2)), ["'extra' is not in the checkpoint"]),
        (lambda s: s.pop('layer'), ["'layer/bias' is not in the run"]),
        (
            lambda s: s.update(noise=jnp.ones(5001)),
            [r"'noise' is float32\[5000\] in the checkpoint, float32\[5001\] in the run"],
        ),
        (
            lambda s: s.update(noise=jnp.ones(5000, jnp.bfloat16)),
            [r'float32\[5000\] in the checkpoint, bfloat16\[5000\]'],
        ),
        (
            lambda s: s.update(noise=jax.random.key(0)),
            [r'float32\[5000\] in the checkpoint, key<fry>\[\]'],
        ),
        (lambda s: s.update({f'x{i}': jnp.ones(2) for i in range(10)}), ["'x7'", 'and 2 more']),
    ],
)
def test_another_model_is_the_users_mistake_with_every_leaf_named(saved, change, words):
    state = numbered(0)
    change(state)
    with pytest.raises(UserError, match='does not fit this run') as caught:
        Checkpoints(saved).restore(state)
    for word in words:
        caught.match(word)
    caught.match(str(saved / '200'))


def test_what_a_killed_run_left_is_removed_by_the_first_save_only(saved):
    for name in ('3.writing.orbax-checkpoint-tmp', '3.writing', '1.deleted'):
        (saved / name / 'state').mkdir(parents=True)
    before = sorted(saved.iterdir())
    with Checkpoints(saved) as checkpoints:
        assert checkpoints.restore(numbered(0))[0] == 200
        assert sorted(saved.iterdir()) == before
        checkpoints.save(300, numbered(300), {})
    assert sorted(path.name for path in saved.iterdir()) == ['200', '300']


def test_a_step_saved_again_is_not_mixed_up_with_what_was_read_before(saved):
    """TensorStore caches what it reads by path."""
    with Checkpoints(saved, every=100) as checkpoints:
        assert equal(checkpoints.restore(numbered(0))[1], 200)
        shutil.rmtree(saved / '200')
        checkpoints.save(200, numbered(7), {})
        assert equal(checkpoints.restore(numbered(0))[1], 7)


def test_a_kill_before_the_seal_leaves_nothing_under_the_name(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyError('killed')

    monkeypatch.setattr(storage, 'seal', killed)
    checkpoints = Checkpoints(tmp_path, every=1)
    checkpoints.save(1, numbered(1), {})
    with pytest.raises(RunError, match=f'{tmp_path}/1 was not saved'):
        checkpoints.wait()
    assert checkpoints.steps() == []
    monkeypatch.undo()
    assert checkpoints.save(1, numbered(1), {})
    assert equal(checkpoints.restore(numbered(0))[1], 1)


def test_a_kill_during_a_deletion_leaves_no_half_under_the_name(tmp_path, monkeypatch):
    with Checkpoints(tmp_path, keep=1, every=1) as checkpoints:
        checkpoints.save(1, numbered(1), {})
        checkpoints.save(2, numbered(2), {})
        monkeypatch.setattr(storage.shutil, 'rmtree', lambda *_, **__: None)
        checkpoints.wait()
    assert checkpoints.steps() == [2]
    assert (tmp_path / '1.deleted').is_dir()
