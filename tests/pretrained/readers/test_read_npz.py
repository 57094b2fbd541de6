"""npz: what numpy writes and reads, without ever unpickling."""

import io
import zipfile

import ml_dtypes
import numpy as np
import pytest
from torch_writer import examples

from tljax.errors import UserError
from tljax.pretrained.readers import open_weights


def npy(array, version=None):
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version)
    return out.getvalue()


def write(path, members):
    with zipfile.ZipFile(path, 'w') as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def header(text):
    return b'\x93NUMPY\1\0' + len(text).to_bytes(2, 'little') + text


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_the_same_as_numpy_reads(tmp_path, save):
    arrays = {name: a for name, a in examples().items() if name != 'bfloat16'}
    arrays |= {
        'Transformer/encoderblock_0/kernel': np.arange(6.0).reshape(2, 3),
        'columns first': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        'big endian': np.arange(5, dtype='>f4'),
        'complex': np.array([1 + 2j]),
    }
    path = tmp_path / 'a.npz'
    save(path, **arrays)
    weights = open_weights(path)
    assert weights.format == 'npz'
    with np.load(path, allow_pickle=False) as file:
        assert list(weights.tensors) == list(file)
        for name, tensor in weights.tensors.items():
            array = tensor.read()
            assert array.dtype == tensor.dtype == file[name].dtype.newbyteorder('=')
            assert array.shape == tensor.shape == file[name].shape
            np.testing.assert_array_equal(array, file[name], strict=False)
            with pytest.raises(ValueError, match='read-only'):
                array[...] = 0


def test_bfloat16_which_numpy_writes_as_two_bytes(tmp_path):
    numbers = np.arange(6).astype(ml_dtypes.bfloat16)
    np.savez(tmp_path / 'a.npz', w=numbers)
    tensor = open_weights(tmp_path / 'a.npz').tensors['w']
    assert tensor.dtype == numbers.dtype
    np.testing.assert_array_equal(tensor.read(), numbers)


def test_stored_members_are_mapped(tmp_path):
    np.savez(tmp_path / 'a.npz', w=np.arange(6.0))
    tensor = open_weights(tmp_path / 'a.npz').tensors['w']
    assert np.shares_memory(tensor.read(), tensor.read())


@pytest.mark.parametrize('version', [(1, 0), (2, 0), (3, 0)])
def test_versions_of_npy(tmp_path, version):
    path = write(tmp_path / 'a.npz', {'w.npy': npy(np.arange(3), version), 'notes.txt': b'hello'})
    weights = open_weights(path)
    np.testing.assert_array_equal(weights.tensors['w'].read(), np.arange(3))
    assert weights.metadata == {'other members': ['notes.txt']}


def test_python_objects_are_refused_by_name(tmp_path):
    class Bad:
        def __reduce__(self):
            return open, (str(tmp_path / 'ran'), 'w')

    np.savez(tmp_path / 'a.npz', good=np.ones(3), bad=np.array([Bad()], dtype=object))
    with pytest.raises(UserError, match="'bad' holds Python objects, which could run code"):
        open_weights(tmp_path / 'a.npz')
    assert not (tmp_path / 'ran').exists()


FINE = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (header(FINE.encode()) + bytes(8), None),
        (header(FINE.encode()) + bytes(7), "'w' has not the size that its header states"),
        (header(FINE.replace('(2,)', '(2, 2)').encode()) + bytes(8), 'has not the size'),
        (header(FINE.replace('(2,)', '(-2,)').encode()) + bytes(8), 'not one of .npy'),
        (header(FINE.replace("'<f4'", "[('a', '<f4')]").encode()) + bytes(8), 'no plain numbers'),
        (header(FINE.replace('<f4', '<U2').encode()) + bytes(8), 'no plain numbers'),
        (header(FINE.replace('<f4', '|V4').encode()) + bytes(8), 'no plain numbers'),
        (header(FINE.replace('<f4', '<f3').encode()) + bytes(8), "'w' is damaged"),
        (header(FINE.replace('False', '1').encode()) + bytes(8), 'not one of .npy'),
        (header(FINE.replace('shape', 'size').encode()) + bytes(8), 'not one of .npy'),
        (header(FINE.encode())[:30], 'not one of .npy'),
        (b'\x93NUMPY\4\0' + bytes(99), 'version 1 to 3'),
        (b'', 'version 1 to 3'),
    ],
)
def test_headers_that_make_no_sense(tmp_path, data, message):
    path = write(tmp_path / 'a.npz', {'w.npy': data})
    if message is None:
        assert open_weights(path).tensors['w'].read().tolist() == [0, 0]
        return
    with pytest.raises(UserError, match=message) as error:
        open_weights(path)
    assert str(path) in str(error.value)


def test_damage_shows(tmp_path):
    path = tmp_path / 'a.npz'
    np.savez(path, w=np.arange(60.0))
    raw = bytearray(path.read_bytes())
    raw[raw.index(np.arange(60.0).tobytes()) + 100] ^= 4
    path.write_bytes(raw)
    with pytest.raises(UserError, match='CRC-32'):
        open_weights(path).tensors['w'].read()


def test_locked_and_unknown_compression(tmp_path):
    path = tmp_path / 'a.npz'
    np.savez(path, w=np.arange(3.0))
    raw = path.read_bytes()
    locked = bytearray(raw)
    locked[raw.index(b'PK\1\2') + 8] |= 1
    path.write_bytes(locked)
    with pytest.raises(UserError, match='is encrypted'):
        open_weights(path)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_BZIP2) as file:
        file.writestr('w.npy', npy(np.arange(3.0)))
    with pytest.raises(UserError, match=r'compression \(kind 12\) is not deflate'):
        open_weights(path)
