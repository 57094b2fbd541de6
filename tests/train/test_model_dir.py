"""Models on disk: what is saved is loaded, what is damaged is told, and no code is run."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tljax.errors import RunError, UserError
from tljax.train.model_dir import load_card, load_model, model_metadata, save_model


def variables(seed=0):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(3, 3, 1, 8)).astype(np.float32)
    return {
        'params': {
            'backbone': {'conv1': {'kernel': jnp.asarray(kernel)}},
            'head': {'bias': jnp.asarray(rng.normal(size=10), jnp.bfloat16)},
        },
        'batch_stats': {'backbone': {'norm1': {'mean': np.ones(8, np.float32)}}},
    }


def assert_equal(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for leaf, other in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        assert isinstance(leaf, np.ndarray)
        assert leaf.dtype == other.dtype
        np.testing.assert_array_equal(leaf, np.asarray(other))


def model(path, **changes):
    save_model(path, variables(), {'title': 'digits', 'steps': 3, **changes}, {'entries': []})
    return path


def test_a_model_comes_back_with_its_card(tmp_path):
    path = model(tmp_path / 'deep' / 'model', labels=['0', 'ß'])
    loaded, card = load_model(path)
    assert_equal(loaded, variables())
    assert card == load_card(str(path)) == {'title': 'digits', 'steps': 3, 'labels': ['0', 'ß']}
    assert json.loads((path / 'manifest.json').read_text()) == {'entries': []}
    assert sorted(p.name for p in path.iterdir()) == ['card.json', 'manifest.json', 'variables']
    assert [p.name for p in path.parent.iterdir()] == ['model']


def test_without_a_manifest_and_with_empty_collections(tmp_path):
    save_model(tmp_path / 'm', {'params': {'b': np.ones(1)}, 'batch_stats': {}}, {})
    loaded, card = load_model(tmp_path / 'm')
    assert_equal(loaded, {'params': {'b': np.ones(1)}, 'batch_stats': {}})
    assert card == {}
    assert not (tmp_path / 'm' / 'manifest.json').exists()


def test_metadata_is_flat_and_reads_no_array(tmp_path, monkeypatch):
    path = model(tmp_path / 'm')
    monkeypatch.setattr('tljax.train.storage.orbax', None)
    for file in (path / 'variables' / 'state').rglob('*'):
        if file.is_file():
            file.unlink()
    assert model_metadata(path) == {
        'backbone/conv1/kernel': jax.ShapeDtypeStruct((3, 3, 1, 8), jnp.float32),
        'head/bias': jax.ShapeDtypeStruct((10,), jnp.bfloat16),
        'backbone/norm1/mean': jax.ShapeDtypeStruct((8,), jnp.float32),
    }


def test_a_model_is_replaced_by_the_next_one_in_the_same_process(tmp_path):
    for seed in range(3):
        save_model(tmp_path / 'm', variables(seed), {'seed': seed})
        loaded, card = load_model(tmp_path / 'm')
        assert card == {'seed': seed}
        assert_equal(loaded, variables(seed))
    assert [p.name for p in tmp_path.iterdir()] == ['m']


def test_the_previous_model_is_found_after_a_kill_between_the_renames(tmp_path):
    path = model(tmp_path / 'm')
    path.rename(tmp_path / '.m.previous')
    assert load_model(path)[1]['steps'] == 3
    save_model(path, variables(), {'steps': 4})
    assert load_model(path)[1]['steps'] == 4
    save_model(path, variables(), {'steps': 5})
    assert [p.name for p in tmp_path.iterdir()] == ['m']


def test_a_failure_between_the_renames_leaves_the_previous_model(tmp_path, monkeypatch):
    path = model(tmp_path / 'm')
    rename = Path.rename

    def fail(self, target):
        if self.name.endswith('.new'):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, 'rename', fail)
    with pytest.raises(RunError, match=f'{path} was not saved: .* Input/output error'):
        save_model(path, variables(), {'steps': 4})
    assert load_model(path)[1]['steps'] == 3


def test_one_path_in_two_collections_is_refused(tmp_path):
    leaf = np.ones(1)
    with pytest.raises(ValueError, match="'norm/scale' is in two collections"):
        save_model(
            tmp_path / 'm',
            {'params': {'norm': {'scale': leaf}}, 'stats': {'norm': {'scale': leaf}}},
            {},
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('what', 'words'),
    [
        ('nothing', 'is no directory'),
        ('file', 'is no directory'),
        ('empty', 'holds no model of tljax'),
        ('card only', 'holds no model of tljax'),
        ('checkpoint', 'holds no model of tljax'),
    ],
)
def test_what_is_no_model(tmp_path, what, words):
    path = tmp_path / 'm'
    if what == 'file':
        path.write_text('')
    elif what != 'nothing':
        path.mkdir()
    if what == 'card only':
        (path / 'card.json').write_text('{}')
    elif what == 'checkpoint':
        shutil.copytree(model(tmp_path / 'other') / 'variables', path / '100')
    for read in (load_model, load_card, model_metadata):
        with pytest.raises(UserError, match=f'{path} {words}.*launch.py train'):
            read(path)


DAMAGES = {
    'card cut': ('card.json', lambda content: content[:5], 'card.json'),
    'card no object': ('card.json', lambda content: b'[1]', 'card.json is no JSON object'),
    'card not text': ('card.json', lambda content: b'\xff\xfe', 'card.json'),
    'card too deep': ('card.json', lambda content: b'[' * 100_000, 'card.json'),
    'record cut': (
        'variables/tljax.json',
        lambda content: content[:50],
        'tljax.json is unreadable',
    ),
    'record empty': ('variables/tljax.json', lambda content: b'', 'tljax.json is unreadable'),
    'record changed': (
        'variables/tljax.json',
        lambda content: content.replace(b'bfloat16', b'float16 '),
        'is not the one that was written',
    ),
    'no record': ('variables/tljax.json', None, 'tljax.json is missing'),
}


@pytest.mark.parametrize('name', DAMAGES)
def test_a_damaged_model_is_told(tmp_path, name):
    path = model(tmp_path / 'm')
    file, change, words = DAMAGES[name]
    if change is None:
        (path / file).unlink()
    else:
        (path / file).write_bytes(change((path / file).read_bytes()))
    for read in (load_model, load_card, model_metadata):
        with pytest.raises(UserError, match=f'The model {path} is damaged: .*{words}'):
            read(path)


ODD_CARDS = {
    'config': {'config': 5},
    'config.source': {'config': {'source': 'x'}},
    'config.transfer': {'config': {'transfer': ['lora']}},
    'model': {'model': ['convnet']},
    'label_names': {'label_names': 10},
    'outputs': {'outputs': 'ten'},
}


@pytest.mark.parametrize('key', ODD_CARDS)
def test_a_card_of_another_form_is_told(tmp_path, key):
    path = model(tmp_path / 'm', **ODD_CARDS[key])
    with pytest.raises(UserError, match=f'The model {path} is damaged: card.json: {key} is '):
        load_model(path)


def test_a_model_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    path = model(tmp_path / 'm')
    monkeypatch.setattr('tljax.pretrained.readers.weights.FREE', 0)
    load_model(path)
    monkeypatch.setattr('tljax.pretrained.readers.weights.INFLATION', 0)
    with pytest.raises(UserError, match=f'{path} claims to hold'):
        load_model(path)


def test_a_flipped_bit_in_a_weight_is_told(tmp_path):
    path = model(tmp_path / 'm')
    files = [file for file in path.glob('variables/state/**/*') if file.is_file()]
    data = max(files, key=lambda file: file.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(UserError, match=f'{path} is damaged: the bytes of the file .* Train'):
        load_model(path)


WATCHED = """
import pickle, sys
from tljax.train.model_dir import load_model
seen = []
def watch(event, arguments):
    if event.startswith(('pickle.', 'marshal.', 'subprocess.', 'os.system', 'os.exec', 'exec')):
        seen.append((event, str(arguments)[:200]))
load_model(sys.argv[1])  # whatever is imported late is imported now
sys.addaudithook(watch)
try:
    print(load_model(sys.argv[2])[1])
finally:
    print('seen', seen, 'hacked' in sys.modules)
    pickle.loads(pickle.dumps(print))  # the watch itself works
    print('then', [event for event, _ in seen])
"""


def hostile(path, marker):
    """Pickles and code wherever a careless reader might run them."""
    import pickle

    class Bomb:
        def __reduce__(self):
            return os.system, (f'touch {marker}',)

    bomb = pickle.dumps(Bomb())
    for name in ('variables.pkl', 'variables/state/x.npy', 'variables/state/checkpoint.msgpack'):
        (path / name).write_bytes(bomb)
    code = f"import os; os.system('touch {marker}')"
    for name in ('__init__.py', 'hacked.py', 'variables/__init__.py'):
        (path / name).write_text(code)
    metadata = path / 'variables' / '_CHECKPOINT_METADATA'
    content = json.loads(metadata.read_text())
    content['item_handlers'] = {'state': 'hacked.Handler', 'other': 'os.system'}
    metadata.write_text(json.dumps(content))
    tree = path / 'variables' / 'state' / '_METADATA'
    tree.write_text(tree.read_text().replace('np.ndarray', 'hacked.Array'))
    # and sums that fit all of it
    from tljax.train import storage

    record = storage.read_record(path / 'variables')
    storage.seal(path / 'variables', record.leaves, record.extra)


def test_reading_a_strangers_model_runs_no_code_of_it(tmp_path):
    good, path, marker = model(tmp_path / 'good'), model(tmp_path / 'm'), tmp_path / 'marker'
    hostile(path, marker)
    done = subprocess.run(
        [sys.executable, '-c', WATCHED, str(good), str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, 'PYTHONPATH': f'{os.getcwd()}:{path}', 'JAX_PLATFORMS': 'cpu'},
    )
    assert 'seen [] False' in done.stdout, done.stdout + done.stderr
    assert "then ['pickle.find_class']" in done.stdout
    assert not marker.exists()


def test_leaves_named_as_parts_of_the_way_out_stay_inside(tmp_path):
    """A record may say any name; nothing outside the model's directory is written or read."""
    from tljax.train import storage

    path = model(tmp_path / 'm')
    (tmp_path / 'secret').write_text('secret')
    record = storage.read_record(path / 'variables')
    record.files['../../secret'] = storage.file_sum(tmp_path / 'secret')
    with pytest.raises(storage.DamagedError, match=r'\.\./\.\./secret is missing'):
        storage.verify(path / 'variables', record)
