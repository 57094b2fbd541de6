"""Files that PyTorch itself writes, tensor by tensor the same as PyTorch reads them."""

import zipfile

import numpy as np
import pytest

from tljax.errors import UserError
from tljax.pretrained.readers import open_weights

torch = pytest.importorskip('torch')

KINDS = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32),
    *(torch.bool, torch.complex64),
)


def assert_same(array, tensor):
    """Equal bit for bit, in shape too."""
    assert array.shape == tuple(tensor.shape)
    flat = tensor.detach().contiguous().reshape(-1)
    # A tensor of zero dimensions cannot be looked at as bytes.
    assert np.ascontiguousarray(array).tobytes() == bytes(flat.view(torch.uint8).numpy())


def save(state, path, new=True):
    torch.save(state, path, _use_new_zipfile_serialization=new)
    weights = open_weights(path)
    assert weights.format == ('torch' if new else 'torch (legacy)')
    return weights


def state():
    torch.manual_seed(0)
    base = torch.randn(6, 8)
    tensors = {str(kind): (9 * base).to(kind) for kind in KINDS}
    return tensors | {
        'turned': base.T,
        'every third': base[::2, 1::3],
        'row': base[3],
        'shared': base,
        'parameter': torch.nn.Parameter(base[:2]),
        'scalar': torch.tensor(3.5),
        'empty': torch.zeros(0, 3),
        'spread': torch.ones(1, 5).expand(4, 5),
        'with a gradient': torch.ones(3, requires_grad=True),
    }


@pytest.mark.parametrize('new', [True, False])
def test_every_kind_of_tensor(tmp_path, new):
    tensors = state()
    if not new:  # that format knows no dtype without a storage class
        for kind in (torch.uint16, torch.uint32, torch.float8_e4m3fn):
            del tensors[str(kind)]
    weights = save(tensors, tmp_path / 'a.pt', new)
    assert list(weights.tensors) == list(tensors)
    for name, tensor in tensors.items():
        assert_same(weights.tensors[name].read(), tensor)


@pytest.mark.parametrize('new', [True, False])
def test_a_checkpoint_of_a_training_run(tmp_path, new):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    whole = {
        'epoch': 3,
        'best': np.float64(0.9),
        'state_dict': model.state_dict(),
        'optimizer': optimizer.state_dict(),
        'shape': torch.Size([1, 2]),
        'device': torch.device('cpu'),
        'dtype': torch.float16,
    }
    weights = save(whole, tmp_path / 'a.pth.tar', new)
    assert list(weights.tensors) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert_same(weights.tensors[name].read(), tensor)
    assert {key: weights.metadata[key] for key in ('epoch', 'best', 'shape', 'dtype')} == {
        'epoch': 3,
        'best': 0.9,
        'shape': [1, 2],
        'dtype': 'torch.float16',
    }


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_protocols(tmp_path, protocol):
    torch.save({'w': torch.arange(5)}, tmp_path / 'a.pt', pickle_protocol=protocol)
    assert_same(open_weights(tmp_path / 'a.pt').tensors['w'].read(), torch.arange(5))


def test_archives_written_without_sums(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({'w': torch.arange(5)}, tmp_path / 'a.pt')
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(open_weights(tmp_path / 'a.pt').tensors['w'].read(), torch.arange(5))


def test_big_endian_archives(tmp_path):
    """As PyTorch writes them on such a machine: swapped numbers, and a note that says so."""
    numbers = torch.arange(5, dtype=torch.int32)
    torch.save({'w': numbers}, tmp_path / 'a.pt')
    with zipfile.ZipFile(tmp_path / 'a.pt') as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(tmp_path / 'b.pt', 'w') as file:
        for name, data in members.items():
            data = b'big' if name.endswith('/byteorder') else data
            if name.endswith('/data/0'):
                data = numbers.numpy().byteswap().tobytes()
            file.writestr(name, data)
    assert_same(torch.load(tmp_path / 'b.pt')['w'].numpy(), numbers)
    assert_same(open_weights(tmp_path / 'b.pt').tensors['w'].read(), numbers)


@pytest.mark.parametrize('new', [True, False])
@pytest.mark.filterwarnings('ignore::UserWarning', 'ignore::DeprecationWarning')
def test_what_is_refused(tmp_path, new):
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    cases = {
        'whole pickled module': module,
        'quantised tensors': {'w': quantised},
        'sparse tensors': {'w': torch.eye(3).to_sparse()},
    }
    for message, whole in cases.items():
        torch.save(whole, tmp_path / 'a.pt', _use_new_zipfile_serialization=new)
        with pytest.raises(UserError, match=message):
            open_weights(tmp_path / 'a.pt')


@pytest.mark.filterwarnings('ignore')
def test_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / 'a.pt'))
    with pytest.raises(UserError, match='TorchScript program'):
        open_weights(tmp_path / 'a.pt')


@pytest.mark.parametrize('new', [True, False])
def test_truncated_files(tmp_path, new):
    path = tmp_path / 'a.pt'
    torch.save({'w': torch.ones(99)}, path, _use_new_zipfile_serialization=new)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=str(path)):
        open_weights(path)
