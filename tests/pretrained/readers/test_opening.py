"""Which file is opened and as what; shards; what lies beside; the real files."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from torch_writer import Stored, tensor, write_legacy, write_zip

from tljax.errors import UserError
from tljax.pretrained.readers import open_weights

REAL = Path(os.environ.get('TLJAX_REALDATA', '../shared/data')) / 'weights'
ONES = Stored('0', np.ones(3, np.float32))


def write(path, value=1.0):
    """A small file of the format that its suffix says."""
    array = np.full(3, value, np.float32)
    if path.suffix == '.safetensors':
        save_file({'w': array}, path)
    elif path.suffix == '.npz':
        with open(path, 'wb') as file:
            np.savez(file, w=array)
    elif path.suffix == '.h5':
        import h5py

        with h5py.File(path, 'w') as file:
            file['w'] = array
    else:
        stored = Stored('0', array)
        write_zip(path, {'w': tensor(stored, (3,))}, (stored,))
    return path


@pytest.mark.parametrize(
    ('kind', 'form'),
    [('safetensors', 'safetensors'), ('npz', 'npz'), ('h5', 'h5'), ('pth', 'torch')],
)
@pytest.mark.parametrize('suffix', ['', '.npz', '.h5', '.bin', '.safetensors', '.pth'])
def test_the_format_is_found_whatever_the_suffix(tmp_path, kind, form, suffix):
    path = write(tmp_path / f'a.{kind}').rename(tmp_path / f'b{suffix}')
    weights = open_weights(str(path))
    assert weights.format == form
    assert weights.files == (path,)
    assert weights.tensors['w'].file == path
    np.testing.assert_array_equal(weights.tensors['w'].read(), np.ones(3, np.float32))


def test_a_directory_s_file_is_found_in_a_fixed_order(tmp_path):
    names = ['b.pt', 'a.h5', 'c.npz', 'x.safetensors', 'pytorch_model.bin', 'model.safetensors']
    for value, name in enumerate(names):
        write(tmp_path / name, value)
        weights = open_weights(tmp_path)
        assert weights.files == (tmp_path / name,)
        assert weights.tensors['w'].read()[0] == value


def test_several_files_of_one_kind(tmp_path):
    write(tmp_path / 'b.pth')
    write(tmp_path / 'a.pt')
    with pytest.raises(UserError, match=r'several files of weights: a\.pt, b\.pth\. Name one'):
        open_weights(tmp_path)


def test_a_directory_without_weights(tmp_path):
    with pytest.raises(UserError, match=r'holds no weights; it holds nothing. Formats'):
        open_weights(tmp_path)
    (tmp_path / 'README.md').touch()
    with pytest.raises(UserError, match=r'it holds README\.md\. Formats'):
        open_weights(tmp_path)


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match=rf'There is no file {tmp_path}/a\.pth'):
        open_weights(tmp_path / 'a.pth')


def tar():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w', format=tarfile.USTAR_FORMAT) as file:
        file.addfile(tarfile.TarInfo('storages'))
    return out.getvalue()


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'it is empty'),
        (b'hello there', 'unknown format: it begins with 68 65 6c 6c 6f 20 74 68. Formats'),
        (b'\x80\x04}.', 'plain Python pickle, which could run a command: it is not read'),
        (b'<!DOCTYPE html>', 'web page, perhaps of a failed download'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'git lfs pull'),
        (tar(), 'tar archive. If PyTorch before 0.2 wrote it'),
        (b'PK\5\6' + bytes(18), 'ZIP archive with neither the data.pkl of PyTorch'),
    ],
)
def test_what_no_reader_knows(tmp_path, content, message):
    (tmp_path / 'a.pth').write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_weights(tmp_path / 'a.pth')


def test_the_config_beside_the_weights(tmp_path):
    path = write(tmp_path / 'model.safetensors')
    assert open_weights(path).config == {}
    (tmp_path / 'config.json').write_text('{"model_type": "bert"}')
    assert open_weights(path).config == {'model_type': 'bert'}
    (tmp_path / '1_Pooling').mkdir()
    (tmp_path / '1_Pooling' / 'config.json').write_text('{"pooling_mode_mean_tokens": true}')
    pooling = {'pooling_mode_mean_tokens': True}
    assert open_weights(tmp_path).config == {'model_type': 'bert', 'pooling': pooling}
    for broken in ('{"model_type": "be', '{"architectures": [], "x": \udc80}'):
        (tmp_path / 'config.json').write_bytes(broken.encode('utf-8', 'surrogateescape'))
        with pytest.raises(UserError, match=r'config\.json cannot be read'):
            open_weights(path)


@pytest.mark.parametrize('key', ['model_type', 'architecture', 'architectures'])
def test_a_published_config_is_known_by_its_keys(tmp_path, key):
    path = write(tmp_path / 'a.npz')
    (tmp_path / 'config.json').write_text(json.dumps({key: 'x', 'depth': 3}))
    assert open_weights(path).config == {key: 'x', 'depth': 3}


@pytest.mark.parametrize(
    'content',
    [
        '{"command": "train", "config": {"model": {"name": "vit", "model_type": 1}}}',
        '{"num_attention_heads": 16}',
        '["model_type"]',
        '"model_type"',
        '// not JSON at all',
        '\udc80',
        '',
        '[' * 100_000,
        '{"model_type": "x"' + ' ' * (16 << 20) + '}',
    ],
)
def test_a_config_of_another_program_says_nothing(tmp_path, content):
    path = write(tmp_path / 'a.npz')
    (tmp_path / 'config.json').write_bytes(content.encode('utf-8', 'surrogateescape'))
    assert open_weights(path).config == {}


def shards(folder, form='safetensors', **where):
    """Shards a and b with one tensor each, and an index."""
    prefix = {'safetensors': 'model', 'bin': 'pytorch_model'}[form]
    for value, name in enumerate(('a', 'b')):
        array = np.full(3, value, np.float32)
        if form == 'bin':
            stored = Stored('0', array)
            write_zip(folder / f'{name}.bin', {name: tensor(stored, (3,))}, (stored,))
        else:
            save_file({name: array}, folder / f'{name}.safetensors')
    content = {
        'metadata': {'total_size': 24},
        'weight_map': {'b': f'b.{form}', 'a': f'a.{form}'} | where,
    }
    index = folder / f'{prefix}.{form}.index.json'
    index.write_text(json.dumps(content))
    return index


@pytest.mark.parametrize('form', ['safetensors', 'bin'])
def test_shards(tmp_path, form):
    index = shards(tmp_path, form)
    for weights in (open_weights(index), open_weights(tmp_path)):
        assert list(weights.tensors) == ['b', 'a']
        assert [t.read()[0] for t in weights.tensors.values()] == [1, 0]
        assert weights.files == (tmp_path / f'a.{form}', tmp_path / f'b.{form}')
        assert weights.format == {'safetensors': 'safetensors', 'bin': 'torch'}[form]
        assert weights.metadata['total_size'] == 24


def test_a_missing_shard(tmp_path):
    index = shards(tmp_path)
    (tmp_path / 'b.safetensors').unlink()
    with pytest.raises(UserError, match=r'shard b\.safetensors, which is missing.*a\.safetensors'):
        open_weights(index)


@pytest.mark.parametrize('name', ['../x', '/etc/passwd', 'x/../../y', 'C:\\x', '', '..'])
def test_an_index_that_points_out_of_its_directory(tmp_path, name):
    index = shards(tmp_path, c=name)
    with pytest.raises(UserError, match='a shard outside its own directory'):
        open_weights(index)


def test_an_index_that_its_shards_contradict(tmp_path):
    with pytest.raises(UserError, match=r"disagree: 'c' is not in a\.safetensors"):
        open_weights(shards(tmp_path, c='a.safetensors'))
    with pytest.raises(UserError, match=r"'b' is not in a.*'b' is in b"):
        open_weights(shards(tmp_path, b='a.safetensors', a='b.safetensors'))
    index = shards(tmp_path)
    index.write_text('{"weight_map": {"a": "a.safetensors", "b": "a.safetensors"}}')
    with pytest.raises(UserError, match="'b' is not in a"):
        open_weights(index)


@pytest.mark.parametrize('content', ['{', '[]', '{"weight_map": {}}', '{"weight_map": []}', '{}'])
def test_an_index_that_makes_no_sense(tmp_path, content):
    index = shards(tmp_path)
    index.write_text(content)
    with pytest.raises(UserError, match=r'index\.json cannot be read'):
        open_weights(index)


def test_a_legacy_file(tmp_path):
    path = write_legacy(tmp_path / 'a.th', {'w': tensor(ONES, (3,), more=(None,))}, (ONES,))
    assert open_weights(tmp_path).files == (path,)
    assert open_weights(tmp_path).format == 'torch (legacy)'


@pytest.mark.realdata
@pytest.mark.skipif(not REAL.is_dir(), reason=f'{REAL} is not there')
class TestRealFiles:
    def test_resnet20(self):
        torch = open_weights(REAL / 'resnet_cifar10/resnet20-12fca82f.th')
        numpy = open_weights(REAL / 'resnet_cifar10/resnet20-12fca82f.npz')
        assert (torch.format, numpy.format) == ('torch (legacy)', 'npz')
        assert torch.metadata == {'best_prec1': pytest.approx(91.78)}
        assert [name.removeprefix('module.') for name in torch.tensors] == list(numpy.tensors)
        for name, one in numpy.tensors.items():
            assert one.read().tobytes() == torch.tensors[f'module.{name}'].read().tobytes()

    def test_squeezenet(self):
        (path,) = REAL.glob('squeezenet1_1_imagenet/*.h5')
        keras, numpy = open_weights(path), open_weights(path.with_name('squeezenet1_1_notop.npz'))
        assert (keras.format, numpy.format) == ('h5', 'npz')
        theirs = sorted(keras.tensors['conv1/conv1_b'].read())
        assert theirs == sorted(numpy.tensors['conv1.bias'].read())
        assert sum(t.nbytes for t in keras.tensors.values()) == 4 * 722_496

    def test_silero(self):
        from safetensors.numpy import load_file

        path = REAL / 'silero_vad/silero_vad_16k.safetensors'
        for name, array in load_file(path).items():
            assert open_weights(path).tensors[name].read().tobytes() == array.tobytes()

    def test_llama2_c(self):
        with pytest.raises(UserError, match=r'unknown format: .*are read: \.safetensors, PyTorch'):
            open_weights(REAL / 'llama2c_stories260K/stories260K.bin')
