"""PyTorch's two formats, from files written here byte by byte: no PyTorch is needed."""

import pickle
import zipfile

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from torch_writer import (
    Call,
    Name,
    Persistent,
    Stored,
    examples,
    pickled,
    state_dict,
    tensor,
    write_legacy,
    write_zip,
)

from tljax.errors import UserError
from tljax.pretrained.readers import open_weights

NUMBERS = np.arange(24, dtype=np.float32)
PARAMETER = Name('torch._utils', '_rebuild_parameter')
ORDERED = Name('collections', 'OrderedDict')


def assert_same(array, expected):
    """Equal bit for bit, in dtype and shape too."""
    assert array.dtype == expected.dtype
    assert array.shape == expected.shape
    assert np.ascontiguousarray(array).tobytes() == np.ascontiguousarray(expected).tobytes()


def write(form, path, whole, storages):
    return {'zip': write_zip, 'legacy': write_legacy}[form](path, whole, storages)


def more(form):
    return (None,) if form == 'legacy' else ()


@pytest.mark.parametrize('form', ['zip', 'legacy'])
def test_every_dtype_is_read_as_it_is_stored(tmp_path, form):
    arrays = examples()
    tensors, storages = state_dict(arrays, more(form))
    weights = open_weights(write(form, tmp_path / 'a.pth', tensors, storages))
    assert weights.format == {'zip': 'torch', 'legacy': 'torch (legacy)'}[form]
    assert list(weights.tensors) == list(arrays)
    for name, expected in arrays.items():
        tensor = weights.tensors[name]
        assert (tensor.shape, tensor.dtype) == (expected.shape, expected.dtype)
        assert_same(tensor.read(), expected)
        assert_same(
            np.asarray(jnp.asarray(tensor.read().astype(np.float32))), expected.astype('f4')
        )
        with pytest.raises(ValueError, match='read-only'):
            tensor.read()[...] = 0


@pytest.mark.parametrize('form', ['zip', 'legacy'])
def test_views_of_one_storage(tmp_path, form):
    s, m = Stored('0', NUMBERS), more(form)
    tensors = {
        'whole': tensor(s, (24,), more=m),
        'shared': tensor(s, (24,), more=m),
        'turned': tensor(s, (6, 4), (1, 6), more=m),
        'every third': tensor(s, (8,), (3,), offset=2, more=m),
        'last': tensor(s, (), (), offset=23, more=m),
        'spread': tensor(s, (3, 2), (0, 1), offset=4, more=m),
        'parameter': Call(PARAMETER, (tensor(s, (2, 12), more=m), True, Call(ORDERED, ()))),
    }
    read = {
        name: t.read()
        for name, t in open_weights(write(form, tmp_path / 'a.pt', tensors, (s,))).tensors.items()
    }
    assert_same(read['whole'], NUMBERS)
    assert_same(read['shared'], NUMBERS)
    assert_same(read['turned'], NUMBERS.reshape(4, 6).T)
    assert_same(read['every third'], NUMBERS[2::3])
    assert_same(read['last'], NUMBERS[23].reshape(()))
    assert_same(read['spread'], np.tile(NUMBERS[4:6], (3, 1)))
    assert_same(read['parameter'], NUMBERS.reshape(2, 12))
    assert np.shares_memory(read['whole'], read['shared'])  # mapped, not copied


def test_a_view_of_a_storage_as_pytorch_before_0_4_wrote_it(tmp_path):
    s = Stored('0', NUMBERS)
    view = tensor(s, (2, 3), more=(('1', 5, 6),), offset=0)
    weights = open_weights(write_legacy(tmp_path / 'a.pth', {'w': view}, (s,)))
    assert_same(weights.tensors['w'].read(), NUMBERS[5:11].reshape(2, 3))
    beyond = tensor(s, (2, 3), more=(('1', 20, 6),))
    with pytest.raises(UserError, match='numbers 20 to 26 of 24'):
        open_weights(write_legacy(tmp_path / 'b.pth', {'w': beyond}, (s,)))


@pytest.mark.parametrize('order', ['little', 'big'])
def test_byte_order(tmp_path, order):
    arrays = examples()
    tensors, storages = state_dict(arrays)
    weights = open_weights(write_zip(tmp_path / 'a.pt', tensors, storages, order=order))
    for name, expected in arrays.items():
        assert_same(weights.tensors[name].read(), expected)


def test_compressed_archives(tmp_path):
    arrays = examples()
    tensors, storages = state_dict(arrays)
    weights = open_weights(write_zip(tmp_path / 'a.pt', tensors, storages, deflate=True))
    for name, expected in arrays.items():
        assert_same(weights.tensors[name].read(), expected)


def test_untyped_storages_and_dtypes_without_a_storage_class(tmp_path):
    numbers = np.arange(6).astype(ml_dtypes.float8_e4m3fn)
    raw = Stored('0', numbers.view(np.uint8))
    key = ('storage', Name('torch.storage', 'UntypedStorage'), '0', 'cpu', 6)
    args = (Persistent(key), 0, (2, 3), (3, 1), False, Call(ORDERED, ()))
    v3 = Call(Name('torch._utils', '_rebuild_tensor_v3'), (*args, Name('torch', 'float8_e4m3fn')))
    weights = open_weights(write_zip(tmp_path / 'a.pt', {'w': v3}, (raw,)))
    assert_same(weights.tensors['w'].read(), numbers.reshape(2, 3))


def one():
    return tensor(Stored('0', NUMBERS), (24,))


@pytest.mark.parametrize(
    ('whole', 'names'),
    [
        ({'w': one()}, ['w']),
        ({'state_dict': {'w': one()}, 'epoch': 3}, ['w']),
        ({'model': {'w': one()}, 'ema': {'w': one()}}, ['w']),
        ({'model': {'w': one()}, 'best': one()}, ['w']),
        ({'net': {'w': one()}, 'optimizer': {'state': {0: {'m': one()}}}}, ['w']),
        ({'my_weights': {'w': one()}, 'opt': {'state': {0: one()}, 'param_groups': []}}, ['w']),
        ({'model': {'state_dict': {'w': one()}}}, ['w']),
        ({'state_dict': {'a': {'w': one()}, 'b': {'w': one()}}}, ['a.w', 'b.w']),
        ({'w': one(), 'a': {'v': one()}, 'b': [one(), one()]}, ['w', 'a.v', 'b.0', 'b.1']),
        (Call(ORDERED, ([('w', one())],), {'_metadata': {'': {'version': 1}}}), ['w']),
    ],
)
def test_the_state_dict_is_found(tmp_path, whole, names):
    weights = open_weights(write_zip(tmp_path / 'a.pt', whole, (Stored('0', NUMBERS),)))
    assert list(weights.tensors) == names


def test_what_lies_beside_the_state_dict_is_metadata(tmp_path):
    dtype = Call(Name('numpy', 'dtype'), ('f8', False, True), (3, '<', None, None, None, -1, -1, 0))
    data = (np.float64(91.78).tobytes().decode('latin1'), 'latin1')
    raw = Call(Name('_codecs', 'encode'), data)
    number = Call(Name('numpy.core.multiarray', 'scalar'), (dtype, raw))
    whole = {
        'epoch': 164,
        'arch': 'resnet20',
        'best_prec1': number,
        'seen': Call(Name('builtins', 'set'), ([1, 2],)),
        'args': Call(Name('argparse', 'Namespace'), (), {'lr': 0.1}),
        'size': Call(Name('torch', 'Size'), ((1, 2),)),
        'device': Call(Name('torch', 'device'), ('cuda', 0)),
        'dtype': Name('torch', 'float32'),
        'optimizer': {'state': {0: {'momentum': one()}}, 'param_groups': [{'lr': 0.1}]},
        'ema': {'w': one()},
        'mean': one(),
        'state_dict': {'w': one(), 'counter': 3},
    }
    weights = open_weights(write_zip(tmp_path / 'a.pt', whole, (Stored('0', NUMBERS),)))
    assert weights.metadata == {
        'epoch': 164,
        'arch': 'resnet20',
        'best_prec1': 91.78,
        'seen': [1, 2],
        'args': {'lr': 0.1},
        'size': [1, 2],
        'device': 'cuda:0',
        'dtype': 'torch.float32',
        'optimizer': 'not read: the state of an optimiser or the like',
        'ema': 'not read: 1 other tensors',
        'mean': 'tensor of shape (24,)',
        'state_dict.counter': 3,
    }


def test_arrays_of_numpy_in_a_state_dict(tmp_path):
    dtype = Call(Name('numpy', 'dtype'), ('f4', False, True), (3, '>', None, None, None, -1, -1, 0))
    raw = Call(
        Name('_codecs', 'encode'), (NUMBERS.astype('>f4').tobytes().decode('latin1'), 'latin1')
    )
    empty = (Name('numpy', 'ndarray'), (0,), 'b')
    array = Call(
        Name('numpy.core.multiarray', '_reconstruct'), empty, (1, (4, 6), dtype, False, raw)
    )
    weights = open_weights(write_zip(tmp_path / 'a.pt', {'w': array}))
    assert_same(weights.tensors['w'].read(), NUMBERS.reshape(4, 6))


@pytest.mark.parametrize(
    ('whole', 'message'),
    [
        ({'gen': {'w': one()}, 'disc': {'w': one()}}, "several sets of weights: 'gen', 'disc'"),
        ({'model': {'w': one()}, 'state_dict': {'w': one()}}, "sets of weights: 'model', 'state"),
        ([one()], 'holds list, not a dict of tensors'),
        (one(), 'one tensor without a name'),
        ({'w': tensor(Stored('0', NUMBERS), (25,))}, "'w' reaches beyond its storage"),
        ({'w': tensor(Stored('0', NUMBERS), (2,), offset=23)}, 'reaches beyond its storage'),
        ({'w': tensor(Stored('0', NUMBERS), (2,), (-1,), offset=3)}, 'is no shape'),
        ({'w': tensor(Stored('0', NUMBERS), (-2,))}, 'is no shape'),
        ({'w': tensor(Stored('0', NUMBERS), (2,), (1, 1))}, 'do not fit the shape'),
        ({'w': tensor(Stored('1', NUMBERS), (24,))}, 'archive/data/1 is missing'),
        ({'w': tensor(Stored('0', NUMBERS[:9]), (9,))}, 'has 96 bytes, not 36'),
        ({'w': tensor(Stored('0', NUMBERS), (1 << 20, 1 << 20), (0, 0))}, 'claims to hold'),
    ],
)
def test_what_makes_no_sense_is_an_error(tmp_path, whole, message):
    path = write_zip(tmp_path / 'a.pt', whole, (Stored('0', NUMBERS),))
    with pytest.raises(UserError, match=message) as error:
        open_weights(path)
    assert str(path) in str(error.value)


def test_kinds_of_tensors_that_are_not_read(tmp_path):
    quantised = Call(Name('torch._utils', '_rebuild_qtensor'), ())
    with pytest.raises(UserError, match=r'holds quantised tensors.*dequantize'):
        open_weights(write_zip(tmp_path / 'q.pt', {'w': quantised}))
    sparse = Call(Name('torch._utils', '_rebuild_sparse_tensor'), ())
    with pytest.raises(UserError, match=r'holds sparse tensors.*to_dense'):
        open_weights(write_zip(tmp_path / 's.pt', {'w': sparse}))
    script = write_zip(tmp_path / 't.pt', {'w': 1}, more={'constants.pkl': pickled(())})
    with pytest.raises(UserError, match=r'TorchScript program.*state_dict'):
        open_weights(script)


@pytest.mark.parametrize('form', ['zip', 'legacy'])
def test_a_whole_module_is_refused(tmp_path, form):
    layers = Call(Name('torch.nn.modules.linear', 'Linear'), (), {'w': 1})
    module = Call(Name('__main__', 'Net'), (), {'_modules': {'fc': layers}})
    path = write(form, tmp_path / 'a.pt', module, ())
    with pytest.raises(UserError, match=r'whole pickled module \(__main__.Net\).*state_dict\(\)'):
        open_weights(path)


def test_sums_of_members_are_compared(tmp_path):
    tensors, storages = state_dict({'v': NUMBERS, 'w': NUMBERS})
    path = write_zip(tmp_path / 'a.pt', tensors, storages)
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(NUMBERS.tobytes()) + 5] ^= 1
    path.write_bytes(raw)
    weights = open_weights(path)
    assert_same(weights.tensors['v'].read(), NUMBERS)
    with pytest.raises(UserError, match=r"'archive/data/1' is damaged .*CRC-32"):
        weights.tensors['w'].read()


def test_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr('tljax.pretrained.readers.weights.FREE', 1 << 20)
    zeros = Stored('0', np.zeros(1_000_000, np.float32))
    path = write_zip(tmp_path / 'a.pt', {'w': tensor(zeros, (1_000_000,))}, (zeros,), deflate=True)
    with pytest.raises(UserError, match='claims to hold 4,000,000 bytes'):
        open_weights(path)


def test_archives_that_zipfile_would_unlock_or_mix_up(tmp_path):
    tensors, storages = state_dict({'w': NUMBERS})
    path = write_zip(tmp_path / 'a.pt', tensors, storages)
    raw = path.read_bytes()
    # The directory says that data/0 is where `version` is.
    with zipfile.ZipFile(path) as file:
        places = {i.filename: i.header_offset.to_bytes(4, 'little') for i in file.infolist()}
    end = raw.rindex(b'archive/data/0')
    swapped = raw[: end - 4] + places['archive/version'] + raw[end:]
    path.write_bytes(swapped)
    with pytest.raises(UserError, match='the directory and its own header disagree'):
        open_weights(path).tensors['w'].read()


@pytest.mark.parametrize('protocol', range(6))
def test_every_protocol_of_pickle_is_read(tmp_path, protocol):
    mixed = [1, -2, 1 << 40, 1 << 200, 2.5, None, True, ('x', b'y', 'ü' * 300)] * 2
    values = {'a': mixed, 'b': (1,), 'c': (1, 2), 'd': {3, 4}, 'e': frozenset([5])}
    values |= {'f': bytearray(b'g'), 'again': mixed}
    with zipfile.ZipFile(tmp_path / 'a.pt', 'w') as file:
        file.writestr('archive/data.pkl', pickle.dumps(values, protocol))
    found = dict(open_weights(tmp_path / 'a.pt').metadata)
    listed = [1, -2, 1 << 40, 1 << 200, 2.5, None, True, ['x', "b'y'", 'ü' * 300]] * 2
    assert found.pop('f') in ("b'g'", "bytearray(b'g')")
    assert found == {'a': listed, 'b': [1], 'c': [1, 2], 'd': [3, 4], 'e': [5], 'again': listed}
