"""Small files whose values refer to one another: written out or copied, they would have no end.

They are opened in a process of its own, which may take neither long nor much memory: a failure
here would otherwise be a suite that hangs.
"""

import functools
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch_writer import (
    MAGIC,
    Call,
    Name,
    Persistent,
    Raw,
    Stored,
    opcodes,
    pickled,
    tensor,
    write_zip,
)

from tljax.pretrained.readers.numpy_pickle import shown
from tljax.pretrained.readers.pickle_keys import checked_key

ROOT = Path(__file__).resolve().parents[3]
OPEN = """
import resource, sys
from pathlib import Path
from tljax.errors import UserError
from tljax.pretrained.readers import open_weights, pickle_machine, torch_state

pickle_machine.BUDGET, torch_state.STEPS = 1_000_000, 2_000_000  # as large, they take longer
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        weights = open_weights(path)
        said = f'opened, {len(weights.tensors)} tensors, {len(str(weights.metadata))} characters'
    except UserError as error:
        said = str(error).replace(str(path), 'FILE')
    print(f'{path.stem}: {said}', flush=True)
"""

# Two references to the one before, again and again: 2 ** 64 of them, in 64 steps.
TUPLES = b'K\1' + b'2\x86' * 64
BOMB = Raw(TUPLES)
DTYPE = Name('numpy', 'dtype')
FLOATS = Name('torch', 'FloatStorage')
LINE = b'(' + b'N' * 200_000 + b't'  # a long tuple, of 200 kB that deflate to nothing
BUILT = Name('argparse', 'Namespace')


def again(call: bytes, times: int = 400_000) -> bytes:
    """Opcodes that do the same many times, and leave nothing."""
    return call * times


def ones(count: int = 3) -> Stored:
    return Stored('0', np.ones(count, np.float32))


@functools.cache
def pickles() -> dict[str, tuple[object, str]]:
    """What a file holds, and what is said of it."""
    shape = (ones().reference(), 0, BOMB, (1,), False, {})
    storage = ('storage', FLOATS, '0', 'cpu', BOMB)
    reconstruct = Name('numpy.core.multiarray', '_reconstruct')
    numbers = Call(reconstruct, (Name('numpy', 'ndarray'), (0,), 'b'), (1, (BOMB,), 1, 0, 'x'))
    wide = b'}q\1(' + b''.join(opcodes(f'{i}') + b'N' for i in range(20_000)) + b'u0'
    fans = b'}(' + b''.join(opcodes(f'{i}') + b'}' + opcodes('a') + b'h\1s' for i in range(9_000))
    swapped = Call(DTYPE, ('f4',), (3, '>', None, None, None, -1, -1, 0))
    array = (1, (1 << 22,), swapped, False, Raw(b'B' + struct.pack('<I', 1 << 24) + bytes(1 << 24)))
    return {
        'device': (Call(Name('torch', 'device'), (BOMB,)), 'opened, 0 tensors'),
        'module': (Raw(TUPLES + opcodes('x') + b'\x93'), 'names something without text'),
        'name': (Raw(opcodes('torch') + TUPLES + b'\x93'), 'names something without text'),
        'ordered': (Call(Name('collections', 'OrderedDict'), ([(BOMB, 1)],)), 'a tuple for a key'),
        'dict': (Call(Name('builtins', 'dict'), ([[BOMB, 1]],)), 'a tuple for a key'),
        'counter': (Call(Name('collections', 'Counter'), (((BOMB, 1),),)), 'a tuple for a key'),
        'fields': (Call(BUILT, (), [(BOMB, 1)]), 'a tuple for a key'),
        'fields_made': (Call(BUILT, ([(BOMB, 1)],)), 'opened, 0 tensors'),
        'shape': (Call(Name('torch._utils', '_rebuild_tensor_v2'), shape), 'a tuple) is no shape'),
        'size': (Call(Name('torch', 'Size'), ((2, BOMB),)), '(2, a tuple) is no shape'),
        'axes': (Call(Name('torch', 'Size'), (Raw(LINE),)), 'a shape of 200,000 numbers'),
        'count': (Persistent(storage), 'is no shape'),
        'kind': (Persistent((BOMB, FLOATS, '0', 'cpu', 3)), 'it refers to a tuple'),
        'key': (Persistent(('storage', FLOATS, BOMB, 'cpu', 3)), 'a tuple where a str'),
        'dtype': (Call(DTYPE, (BOMB,)), 'asks for numpy.dtype(a tuple)'),
        'order': (Call(DTYPE, ('f4',), (3, BOMB)), 'a tuple is no byte order'),
        'coding': (Call(Name('_codecs', 'encode'), ('a', BOMB)), 'a tuple is no known coding'),
        'array': (numbers, 'a int where a Dtype belongs'),
        'letters': (Call(Name('builtins', 'list'), ('a' * 99,)), 'where a list belongs'),
        'long_key': (Raw(b'}' + opcodes('a' * 5000) + b'Ns'), 'a str for a key'),
        'states': (
            Raw(opcodes(Call(BUILT, ())) + wide + again(b'h\1b')),
            'more than 1,000,000 operations',
        ),
        'references': (Raw(LINE + b'q\0' + again(b'h\0Q0')), 'its pickle is damaged'),
        'rebuilt': (
            Raw(
                b'(' + opcodes(Name('builtins', 'list')) + b'(' + LINE + b'ttq\0000'
                + opcodes(Name('torch._tensor', '_rebuild_from_type_v2')) + b'q\1'
                + again(b'h\1h\0R0')
            ),
            'its pickle is damaged',
        ),
        'searched': (Raw(wide + fans + b'u'), 'dicts lie in dicts without end'),
        'swapped': (
            Raw(
                opcodes(Call(reconstruct, (Name('numpy', 'ndarray'), (0,), 'b'), array))
                + b'q\0010}(' + b''.join(opcodes(f'{i}') + b'h\1' for i in range(300)) + b'u'
            ),
            'claims to hold 5,033,164,800 bytes',
        ),
    }  # fmt: skip


def legacy(version: object, key: object, keys: object) -> bytes:
    """A file of PyTorch before 1.6, in parts."""
    storage = Persistent(('storage', FLOATS, key, 'cpu', 3, None))
    whole = {'w': Call(Name('torch._utils', '_rebuild_tensor'), (storage, 0, (3,), (1,)))}
    parts = b''.join(pickled(part) for part in (MAGIC, version, {}, whole, keys))
    return parts + struct.pack('<q', 3) + bytes(12)


LEGACY = {
    'legacy_plain': (legacy(1001, '0', ['0']), 'opened, 1 tensors'),
    'legacy_number': (legacy(1001, 94_000_000, [94_000_000]), 'opened, 1 tensors'),
    'legacy_version': (legacy(BOMB, '0', ['0']), 'of version a tuple'),
    'legacy_key': (legacy(1001, BOMB, ['0']), 'a tuple where a str belongs'),
    'legacy_keys': (legacy(1001, '0', [BOMB]), 'a tuple where a str belongs'),
}


@pytest.fixture(scope='module')
def said(tmp_path_factory):
    """What is said of each file."""
    folder = tmp_path_factory.mktemp('bombs')
    for name, (whole, _) in pickles().items():
        top = whole if name in ('searched', 'swapped') else {'w': whole}
        path = write_zip(folder / f'{name}.pth', top, (ones(),), deflate=True)
        assert path.stat().st_size < 300_000
    for name, (content, _) in LEGACY.items():
        (folder / f'{name}.pth').write_bytes(content)
    done = subprocess.run(
        [sys.executable, '-c', OPEN, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(line.split(': ', 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize('name', [*pickles(), *LEGACY])
def test_a_small_file_takes_neither_time_nor_memory(said, name):
    assert (pickles() | LEGACY)[name][1] in said[name]
    assert len(said[name]) < 1000


def test_what_a_message_shows():
    nested = (1,)
    for _ in range(64):
        nested = (nested, nested)
    assert shown(nested) == shown((1,)) == 'a tuple'
    assert shown('a' * 81) == 'a str'
    assert [shown(x) for x in ('a', b'a', -3, True)] == ["'a'", "b'a'", '-3', 'True']
    assert shown(1 << 100) == 'a int'


@pytest.mark.parametrize(
    'key', [1j, 1 << 64, 'a' * 5000, b'a' * 5000, (1,) * 17, ((1,),), [], {}, frozenset()]
)
def test_keys_that_take_time_to_hash_or_to_compare(key):
    with pytest.raises(TypeError, match='for a key'):
        checked_key(key)


def test_keys_of_real_files():
    for key in ('layer.0.weight', b'w', 140_234_567_890_123, 0.5, None, True, ('a', 1)):
        assert checked_key(key) is key


def test_a_tensor_is_built_as_before(tmp_path):
    """The rules above leave what is small as it is."""
    from tljax.pretrained.readers import open_weights

    device = Call(Name('torch', 'device'), ('cuda', 0))
    ordered = Call(Name('collections', 'OrderedDict'), ([['lr', 0.1]],))
    whole = {'w': tensor(ones(), (3,)), 'device': device, 'args': Call(BUILT, (), {'a': 1})}
    weights = open_weights(write_zip(tmp_path / 'a.pth', whole | {'o': ordered}, (ones(),)))
    assert weights.tensors['w'].read().tolist() == [1, 1, 1]
    assert weights.metadata == {'device': 'cuda:0', 'args.a': 1, 'o.lr': 0.1}
