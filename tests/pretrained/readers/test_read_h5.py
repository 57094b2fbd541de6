"""HDF5 as Keras writes it: datasets only, and nothing outside the file."""

import h5py
import numpy as np
import pytest

from tljax.errors import UserError
from tljax.pretrained.readers import h5_file, open_weights


def test_datasets_by_their_paths(tmp_path):
    path = tmp_path / 'a.h5'
    expected = {}

    def keep(name, item):
        if isinstance(item, h5py.Dataset):
            expected[name] = np.asarray(item[()])

    with h5py.File(path, 'w') as file:
        file.attrs['model_config'] = '{"class_name": "Lambda"}'
        group = file.create_group('model_weights/conv1/conv1')
        for kind in ('f2', 'f4', 'f8', 'i4', 'u1', '>f4', '>i8'):
            group[kind] = np.arange(6).reshape(2, 3).astype(kind)
        group.create_dataset('packed', data=np.arange(1000.0), chunks=(100,), compression='gzip')
        group['scalar'] = np.float32(3)
        group['empty'] = np.zeros((0, 4), np.float32)
        file['again'] = h5py.SoftLink('/model_weights/conv1/conv1/f4')
        file.visititems(keep)
    weights = open_weights(path)
    assert weights.format == 'h5'
    assert list(weights.tensors) == list(expected)
    for name, tensor in weights.tensors.items():
        array, other = tensor.read(), expected[name]
        assert array.dtype == tensor.dtype == other.dtype.newbyteorder('=')
        assert array.shape == tensor.shape == other.shape
        np.testing.assert_array_equal(array, other)
        with pytest.raises(ValueError, match='read-only'):
            array[...] = 0


def test_what_lies_in_other_files_is_refused(tmp_path):
    outside = tmp_path / 'secret.h5'
    with h5py.File(outside, 'w') as file:
        file['w'] = np.ones(3)
    with h5py.File(tmp_path / 'link.h5', 'w') as file:
        file.create_group('g')['w'] = h5py.ExternalLink(str(outside), '/w')
    with pytest.raises(UserError, match=r"'g/w' lies in another file \(.*secret.h5\)"):
        open_weights(tmp_path / 'link.h5')
    (tmp_path / 'raw').write_bytes(bytes(24))
    with h5py.File(tmp_path / 'external.h5', 'w') as file:
        file.create_dataset('w', (3,), 'f8', external=[(str(tmp_path / 'raw'), 0, 24)])
    with pytest.raises(UserError, match=r"'w' lies in another file \(.*raw\)"):
        open_weights(tmp_path / 'external.h5')
    with h5py.File(tmp_path / 'virtual.h5', 'w') as file:
        layout = h5py.VirtualLayout((3,), 'f8')
        layout[:] = h5py.VirtualSource(str(outside), 'w', (3,))
        file.create_virtual_dataset('w', layout)
    with pytest.raises(UserError, match="'w' lies in another file"):
        open_weights(tmp_path / 'virtual.h5')


def test_texts_and_records_are_refused(tmp_path):
    for name, data in {'t': ['a'], 'r': np.zeros(2, [('a', 'f4')]), 'o': h5py.Empty('f4')}.items():
        with h5py.File(tmp_path / f'{name}.h5', 'w') as file:
            file['w'] = data
        with pytest.raises(UserError, match=r"'w' holds no plain numbers.*save_weights"):
            open_weights(tmp_path / f'{name}.h5')


def test_datasets_that_claim_more_than_is_stored(tmp_path):
    with h5py.File(tmp_path / 'a.h5', 'w') as file:
        file.create_dataset('w', (1 << 40,), 'f4', chunks=(1 << 20,), compression='gzip')
        file['w'][:10] = 1
    with pytest.raises(UserError, match='claims to hold 4,398,046,511,104 bytes'):
        open_weights(tmp_path / 'a.h5')


def chain(path, names):
    """Groups in groups, each with all the names in the one above: with two names, 2 ** 31 paths."""
    with h5py.File(path, 'w') as file:
        group = file
        for _ in range(31):
            below = group.create_group(names[0])
            for name in names[1:]:
                group[name] = below
            group = below
        group['w'] = np.ones(3)
    return path


def test_groups_with_two_names_each(tmp_path, monkeypatch):
    path = chain(tmp_path / 'a.h5', 'ab')
    looked = []
    address = h5_file.address
    monkeypatch.setattr(h5_file, 'address', lambda group: looked.append(group) or address(group))
    with pytest.raises(UserError, match=r"the group '[ab/]*b' has another name, too"):
        open_weights(path)
    assert len(looked) < 100
    assert len(open_weights(chain(tmp_path / 'b.h5', 'a')).tensors) == 1


def test_a_group_within_itself(tmp_path):
    with h5py.File(tmp_path / 'a.h5', 'w') as file:
        group = file.create_group('g')
        group['g'] = file['g']
    with pytest.raises(UserError, match="the group 'g/g' has another name, too"):
        open_weights(tmp_path / 'a.h5')
    with h5py.File(tmp_path / 'b.h5', 'w') as file:
        file['g'] = file['/']
    with pytest.raises(UserError, match="the group 'g' has another name, too"):
        open_weights(tmp_path / 'b.h5')


def test_too_many_names_or_levels(tmp_path, monkeypatch):
    with h5py.File(tmp_path / 'a.h5', 'w') as file:
        file['w0'] = np.ones(3)
        for i in range(1, 20):
            file[f'w{i}'] = file['w0']
    assert len(open_weights(tmp_path / 'a.h5').tensors) == 20
    monkeypatch.setattr(h5_file, 'MOST', 19)
    with pytest.raises(UserError, match='groups lie in groups without end'):
        open_weights(tmp_path / 'a.h5')
    with h5py.File(tmp_path / 'b.h5', 'w') as file:
        file['/'.join('a' * 40)] = np.ones(3)
    with pytest.raises(UserError, match='groups lie in groups without end'):
        open_weights(tmp_path / 'b.h5')
