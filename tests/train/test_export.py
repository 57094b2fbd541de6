"""Writing models for others, and reading them back: the same leaves bit for bit."""

import json
import os

import jax
import numpy as np
import pytest
from parity_support import Case, leaves_of, scheme_of

from tljax import pretrained, trees
from tljax.errors import RunError, UserError
from tljax.pretrained import porter
from tljax.train import export as exporting
from tljax.train import sources
from tljax.train.export import FORMATS, export
from tljax.train.model_dir import load_model, save_model
from tljax.train.workdir import write_json

CASE = Case('x', 'cifar_resnet', {'depth': 8}, {'image': (8, 8, 3)}, 5, 'akamaster')


@pytest.fixture
def leaves():
    return leaves_of(CASE)


@pytest.fixture
def workdir(tmp_path, leaves):
    """A workdir with a trained model, as `launch.py train` leaves it."""
    kinds = {
        'params': {p: x for p, x in leaves.items() if p.rpartition('/')[2] not in ('mean', 'var')},
        'batch_stats': {p: x for p, x in leaves.items() if p.rpartition('/')[2] in ('mean', 'var')},
    }
    workdir = tmp_path / 'run'
    workdir.mkdir()
    variables = {kind: trees.unflatten(flat) for kind, flat in kinds.items()}
    card = {'title': 'made up', 'label_names': list('abcde'), 'example': {'image': [8, 8, 3]}}
    save_model(workdir / 'model', variables, card)
    model = {'name': CASE.model, 'shortcut': 'pad', 'dtype': 'float32', **CASE.arguments}
    config = {'model': model, 'data': {'name': 'printed_digits'}}
    write_json(workdir / 'config.json', {'command': 'train', 'config': config, 'fingerprint': ''})
    return workdir


def read_back(path):
    if (path / 'card.json').exists():
        variables, _ = load_model(path)
        return trees.flatten(variables['params']) | trees.flatten(variables['batch_stats'])
    return pretrained.load(str(path), CASE.model).leaves


def assert_same(one, other):
    assert one.keys() == other.keys()
    for path, leaf in one.items():
        np.testing.assert_array_equal(other[path], leaf, err_msg=path, strict=True)


@pytest.mark.parametrize('scheme', ['', 'akamaster'])
@pytest.mark.parametrize('form', FORMATS)
def test_reading_an_export_gives_the_leaves_bit_for_bit(workdir, leaves, tmp_path, form, scheme):
    output = export(workdir, tmp_path / f'out.{form}', form, scheme)
    assert_same(leaves, read_back(output))
    assert not [path for path in tmp_path.iterdir() if 'partial' in path.name]


@pytest.mark.parametrize('form', FORMATS)
def test_a_source_can_be_exported(leaves, tmp_path, form):
    theirs = porter.unport(leaves, scheme_of(CASE), {})
    np.savez(tmp_path / 'theirs.npz', **theirs)
    output = export(str(tmp_path / 'theirs.npz'), tmp_path / 'out', form)
    assert_same(leaves, read_back(output))


def test_an_export_of_ours_in_a_models_directory_is_a_source_again(workdir, leaves, tmp_path):
    output = export(workdir, tmp_path / 'out', 'orbax')
    assert not sources.is_foreign(str(output))
    variables, card = load_model(output)
    assert card['title'] == 'made up'
    statistics = {path.rpartition('/')[2] for path in trees.flatten(variables['batch_stats'])}
    assert statistics == {'mean', 'var'}


def test_a_safetensors_file_says_what_the_model_is(workdir, tmp_path):
    from safetensors import safe_open

    output = export(workdir, tmp_path / 'out.safetensors', 'safetensors')
    with safe_open(output, 'numpy') as file:
        about = json.loads(file.metadata()['tljax'])
    assert about['model'] == 'cifar_resnet'
    assert about['arguments']['depth'] == 8


def test_wrong_exports(workdir, tmp_path):
    with pytest.raises(UserError, match='no such scheme'):
        export(workdir, tmp_path / 'out', 'npz', 'torchvison')
    with pytest.raises(UserError, match='holds no trained model'):
        export(tmp_path / 'nowhere', tmp_path / 'out', 'npz')
    (tmp_path / 'there').write_text('')
    for output, said in (('there', 'exists already'), ('there/out', 'cannot be written')):
        with pytest.raises(UserError, match=said):
            export(workdir, tmp_path / output, 'npz')
    assert (tmp_path / 'there').read_text() == ''


def test_a_full_disk_leaves_nothing(workdir, tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(exporting.np, 'savez', full)
    with pytest.raises(RunError, match='No space is left'):
        export(workdir, tmp_path / 'out.npz', 'npz')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['run']


def test_leaves_on_a_device_can_be_exported(workdir, tmp_path, leaves):
    made = porter.unport({p: jax.numpy.asarray(x) for p, x in leaves.items()}, scheme_of(CASE), {})
    assert all(isinstance(value, np.ndarray) for value in made.values())


@pytest.mark.parametrize('mask', [0o022, 0o027])
@pytest.mark.parametrize('form', ['safetensors', 'npz'])
def test_an_export_has_the_mode_of_any_new_file(workdir, tmp_path, form, mask):
    before = os.umask(mask)
    try:
        output = export(workdir, tmp_path / f'out.{form}', form)
    finally:
        os.umask(before)
    assert output.stat().st_mode & 0o777 == 0o666 & ~mask
