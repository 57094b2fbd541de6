"""safetensors: the same numbers as the package's own reader, and headers that make no sense."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tljax.errors import UserError
from tljax.pretrained.readers import open_weights

FLOAT = {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}


def write(path, header, data=b'', length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text) if length is None else length) + text + data)
    return path


def test_the_same_as_the_package_reads(tmp_path):
    rng = np.random.default_rng(0)
    kinds = ('float64', 'float32', 'float16', 'int64', 'int32', 'int16', 'int8', 'uint8', 'uint16')
    arrays = {kind: (9 * rng.normal(size=(3, 5))).astype(kind) for kind in kinds}
    arrays |= {'bool': rng.normal(size=7) > 0, 'scalar': np.array(3.0), 'empty': np.zeros((0, 2))}
    path = tmp_path / 'model.safetensors'
    save_file(arrays, path, metadata={'format': 'pt'})
    weights = open_weights(path)
    assert (weights.format, weights.files) == ('safetensors', (path,))
    assert weights.metadata == {'format': 'pt'}
    with safe_open(path, 'np') as file:
        assert set(weights.tensors) == set(file.keys())
        for name, tensor in weights.tensors.items():
            expected, array = file.get_tensor(name), tensor.read()
            assert array.dtype == tensor.dtype == expected.dtype
            assert array.shape == tensor.shape == expected.shape
            assert array.tobytes() == expected.tobytes() == arrays[name].tobytes()
            with pytest.raises(ValueError, match='read-only'):
                array[...] = 0


def test_tensors_are_in_the_order_of_the_header(tmp_path):
    header = {
        'b': {'dtype': 'F32', 'shape': [1], 'data_offsets': [4, 8]},
        'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]},
    }
    path = write(tmp_path / 'a', header, np.array([1, 2], np.float32).tobytes())
    weights = open_weights(path)
    assert {name: t.read().item() for name, t in weights.tensors.items()} == {'b': 2.0, 'a': 1.0}
    assert list(weights.tensors) == ['b', 'a']


@pytest.mark.parametrize(
    ('kind', 'dtype'),
    [
        ('BF16', ml_dtypes.bfloat16),
        ('F8_E4M3', ml_dtypes.float8_e4m3fn),
        ('F8_E5M2', ml_dtypes.float8_e5m2),
    ],
)
def test_kinds_that_numpy_has_not(tmp_path, kind, dtype):
    numbers = np.array([0.5, -3.0, 1.25, 96.0]).astype(dtype)
    header = {'w': {'dtype': kind, 'shape': [2, 2], 'data_offsets': [0, numbers.nbytes]}}
    path = write(tmp_path / 'a', header, numbers.tobytes())
    tensor = open_weights(path).tensors['w']
    assert tensor.dtype == np.dtype(dtype)
    assert tensor.read().tobytes() == numbers.tobytes()
    # Not aligned to its size, as a header of odd length leaves it.
    np.testing.assert_array_equal(tensor.read().astype('f4'), [[0.5, -3.0], [1.25, 96.0]])


@pytest.mark.parametrize(
    ('header', 'data', 'message'),
    [
        ({'w': FLOAT}, bytes(7), 'take 8 bytes, and the file has 7'),
        ({'w': FLOAT}, bytes(9), 'take 8 bytes, and the file has 9'),
        ({'w': FLOAT, 'v': FLOAT}, bytes(8), "'w' overlaps"),
        ({'w': {**FLOAT, 'data_offsets': [4, 12]}}, bytes(12), "'w' leaves a gap"),
        ({'w': {**FLOAT, 'data_offsets': [8, 0]}}, bytes(8), "'w' lies at 8 to 0"),
        ({'w': {**FLOAT, 'data_offsets': [0, 8.0]}}, bytes(8), "'w' lies at"),
        ({'w': {**FLOAT, 'data_offsets': [0]}}, bytes(8), 'header is damaged'),
        ({'w': {**FLOAT, 'shape': [3]}}, bytes(8), r"'w' has shape \(3,\) of F32, but 8 bytes"),
        ({'w': {**FLOAT, 'shape': [-2]}}, bytes(8), r"'w' has shape \(-2,\)"),
        ({'w': {**FLOAT, 'shape': 2}}, bytes(8), 'header is damaged'),
        ({'w': {**FLOAT, 'dtype': 'F4'}}, bytes(8), "'w' is F4, which is not read. Read are BOOL"),
        ({'w': {'dtype': 'F32'}}, bytes(8), 'header is damaged'),
        ({'w': 3}, bytes(8), 'header is damaged'),
        ({'__metadata__': {'a': 1}}, b'', '__metadata__ holds other things'),
        ({'__metadata__': [1]}, b'', 'header is damaged'),
        (b'{"w": 1, "w": 2}', b'', 'a name stands in it twice'),
        (b'{"w": ', b'', 'header is damaged'),
        (b'{' + b'"a":{' * 100_000, b'', 'header is damaged'),
        (b'{\xff}', b'', 'header is damaged'),
    ],
)
def test_headers_that_make_no_sense(tmp_path, header, data, message):
    path = write(tmp_path / 'a.safetensors', header, data)
    with pytest.raises(UserError, match=message) as error:
        open_weights(path)
    assert str(path) in str(error.value)
    with pytest.raises((SafetensorError, OverflowError)), safe_open(path, 'np') as file:
        file.get_tensors()


def test_a_header_that_the_file_does_not_hold(tmp_path):
    path = write(tmp_path / 'a.safetensors', {'w': FLOAT}, bytes(8), length=1000)
    with pytest.raises(UserError, match='bytes up to 1,008 are needed'):
        open_weights(path)


def test_views_share_the_mapped_file(tmp_path):
    path = tmp_path / 'a.safetensors'
    save_file({'w': np.arange(4, dtype=np.float32)}, path)
    tensor = open_weights(path).tensors['w']
    assert np.shares_memory(tensor.read(), tensor.read())
