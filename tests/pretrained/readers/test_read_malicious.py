"""Pickles that would run a command: each is shown to do so in Python's own unpickler, and not here.

The command makes a file, `ran`; that is how it shows.
"""

import copyreg
import os
import pickle
import struct

import pytest
from torch_writer import (
    MAGIC,
    Call,
    Name,
    Persistent,
    Raw,
    Stored,
    examples,
    opcodes,
    pickled,
    state_dict,
    tensor,
    write_legacy,
    write_zip,
)

from tljax.errors import UserError
from tljax.pretrained.readers import open_weights

EXTENSION = 0x7A


def text(value: str) -> bytes:
    return opcodes(value)


def payloads(ran) -> dict[str, Raw]:
    """Opcodes that leave something on the stack, having run a command."""
    touch = f'touch {ran}'
    python = f'open({str(ran)!r}, "w").close()'
    getattr_ = Name('builtins', 'getattr')
    import_os = Call(Name('builtins', '__import__'), ('os',))
    popen = (['touch', str(ran)],)
    stack_global = text('os') + text('system') + b'\x93' + opcodes((touch,)) + b'R'
    registered = bytes([0x82, EXTENSION]) + opcodes((touch,)) + b'R'
    iterate = opcodes(Name('builtins', 'list'))
    mapped = opcodes(Name('builtins', 'map')) + opcodes((Name('os', 'system'), [touch]))
    partial = Call(Name('functools', 'partial'), (Name('os', 'system'),))
    calls = {
        'posix.system': Call(Name('posix', 'system'), (touch,)),
        'os.system': Call(Name('os', 'system'), (touch,)),
        'builtins.eval': Call(Name('builtins', 'eval'), (python,)),
        'builtins.exec': Call(Name('builtins', 'exec'), (python,)),
        '__builtin__.exec': Call(Name('__builtin__', 'eval'), (python,)),
        'builtins.getattr': Call(Call(getattr_, (import_os, 'system')), (touch,)),
        'operator.methodcaller': Call(
            Call(Name('operator', 'methodcaller'), ('system', touch)), (import_os,)
        ),
        'functools.partial': Call(partial, (touch,)),
        'as a key': {Call(Name('os', 'system'), (touch,)): 1},
    }
    raw = {
        'STACK_GLOBAL': stack_global,
        'NEWOBJ': iterate + b'(' + mapped + b'\x81tR',
        'a map that is run': iterate + b'(' + mapped + b'RtR',
        'INST': b'(' + text(touch) + b'ios\nsystem\n',
        'OBJ': b'(' + opcodes(Name('subprocess', 'Popen')) + opcodes(popen[0]) + b'o',
        'EXT1': registered,
        'EXT2': bytes([0x83]) + struct.pack('<H', EXTENSION) + opcodes((touch,)) + b'R',
        'EXT4': bytes([0x84]) + struct.pack('<I', EXTENSION) + opcodes((touch,)) + b'R',
        'a state of its own': opcodes(Call(Name('os', 'system'), (touch,), None)) + b'0' + b'N',
    }
    return {name: Raw(opcodes(call)) for name, call in calls.items()} | {
        name: Raw(code) for name, code in raw.items()
    }


NAMES = list(payloads('x'))


@pytest.fixture
def registry():
    """A program whose extension registry knows os.system: codes are another way to name it."""
    module = os.system.__module__
    copyreg.add_extension(module, 'system', EXTENSION)
    yield
    copyreg.remove_extension(module, 'system', EXTENSION)


@pytest.mark.parametrize('name', NAMES)
def test_the_payload_is_one(tmp_path, registry, name):
    ran = tmp_path / 'ran'
    try:
        made = pickle.loads(b'\x80\x02' + payloads(ran)[name].code + b'.')
    except TypeError:  # of the half-made Popen, once its command has run
        made = None
    if hasattr(made, 'wait'):
        made.wait()
    assert ran.exists()


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('place', ['zip', 'deflated', 'inside', 'legacy', 'plain'])
def test_nothing_of_it_is_run(tmp_path, registry, name, place):
    ran, path = tmp_path / 'ran', tmp_path / 'a.pth'
    payload = payloads(ran)[name]
    inside, storages = state_dict(examples())
    if place == 'zip':
        write_zip(path, payload)
    elif place == 'deflated':
        write_zip(path, payload, deflate=True)
    elif place == 'inside':
        write_zip(path, {'state_dict': {**inside, 'w': [payload]}}, storages)
    elif place == 'legacy':
        write_legacy(path, {'w': payload})
    else:
        path.write_bytes(b'\x80\x02' + payload.code + b'.')
    with pytest.raises(UserError) as error:
        open_weights(path)
    assert not ran.exists()
    assert str(path) in str(error.value)
    assert 'could run a command' in str(error.value)


def test_the_message_names_what_was_asked_for(tmp_path):
    path = write_zip(tmp_path / 'a.pth', Call(Name('posix', 'system'), ('true',)))
    with pytest.raises(UserError, match=r'asks for posix\.system.*Nothing of it was run.*safetens'):
        open_weights(path)


@pytest.mark.parametrize('which', range(5))
def test_no_pickle_of_the_legacy_format_is_trusted(tmp_path, which):
    ran = tmp_path / 'ran'
    parts = [pickled(part) for part in (MAGIC, 1001, {}, {}, [])]
    parts[which] = pickled(Call(Name('posix', 'system'), (f'touch {ran}',)))
    if which == 0:  # known by its first bytes, it must hold the number, too
        number = pickle.dumps(MAGIC, 2)[2:-1]
        parts[0] = b'\x80\x02' + number + b'0' + parts[0][2:]
    (tmp_path / 'a.pth').write_bytes(b''.join(parts))
    with pytest.raises(UserError, match=r'posix\.system'):
        open_weights(tmp_path / 'a.pth')
    assert not ran.exists()


def hidden(ran) -> dict[str, tuple[object, str]]:
    """Calls that go through names that are in the list, and what the error names."""
    system, touch = Name('posix', 'system'), f'touch {ran}'
    numbers = tensor(Stored('0', examples()['float32'].ravel()), (12,))
    rebuild = Name('torch._utils', '_rebuild_tensor_v2')
    from_type = Name('torch._tensor', '_rebuild_from_type_v2')
    reconstruct = Name('numpy.core.multiarray', '_reconstruct')
    return {
        'a storage class': (
            Call(rebuild, (Persistent(('storage', system, '0', 'cpu', 12)), 0, (12,), (1,))),
            r'posix\.system',
        ),
        'a rebuilder': (Call(from_type, (system, Name('torch', 'Tensor'), (touch,), {})), 'posix'),
        'another name as rebuilder': (
            Call(from_type, (Name('builtins', 'list'), Name('torch', 'Tensor'), (touch,), {})),
            r'builtins\.list',
        ),
        'backward hooks': (
            Call(rebuild, (*numbers.args[:5], Call(system, (touch,)))),
            r'posix\.system',
        ),
        'nested torch bytes': (
            Call(Name('torch.storage', '_load_from_bytes'), ('x',)),
            '_load_fro',
        ),
        'a method of something in the list': (
            Raw(text('builtins') + text('dict.__class__') + b'\x93'),
            r'dict\.__class__',
        ),
        'a call of a dict': (Call({}, (1,)), 'a call of a dict'),
        'a call of what is a name only': (
            Call(Name('torch', 'float32'), ()),
            'call of torch.float32',
        ),
        'an array of objects': (
            Call(
                reconstruct,
                (Name('numpy', 'ndarray'), (0,), 'b'),
                (1, (1,), Call(Name('numpy', 'dtype'), ('O8',)), False, [Call(system, (touch,))]),
            ),
            'numpy.dtype',
        ),
        'keywords': (
            Raw(opcodes(Name('argparse', 'Namespace')) + b')}(' + text('a') + b'K\1u\x92'),
            'keywords',
        ),
        'a buffer from outside': (Raw(b'\x97'), 'a buffer outside the pickle'),
        'a class of the file': (
            Raw(opcodes(('module', Name('__main__', 'Net'), 'a.py', 'import os')) + b'Q'),
            r'__main__\.Net',
        ),
    }


@pytest.mark.parametrize('name', list(hidden('x')))
def test_names_in_the_list_give_no_way_round_it(tmp_path, name):
    ran = tmp_path / 'ran'
    whole, named = hidden(ran)[name]
    storage = Stored('0', examples()['float32'].ravel())
    path = write_zip(tmp_path / 'a.pth', {'w': whole}, (storage,))
    with pytest.raises(UserError, match=named):
        open_weights(path)
    assert not ran.exists()


def test_a_state_changes_no_object_of_this_program(tmp_path):
    """In Python's unpickler a state sets attributes, of functions and classes too."""
    rebuild = Name('torch._utils', '_rebuild_tensor_v2')
    state = (None, {'__defaults__': (1,), '__code__': 2, '__class__': 3})
    built = Raw(opcodes(rebuild) + opcodes(state) + b'b')
    ordered = Raw(opcodes(Name('collections', 'OrderedDict')) + opcodes(state) + b'b')
    numbers = Stored('0', examples()['float32'].ravel())
    changed = Raw(opcodes(tensor(numbers, (12,))) + opcodes({'shape': (99,), 'dtype': 1}) + b'b')
    whole = {'a': built, 'b': ordered, 'w': changed}
    for _ in range(2):  # the second time anything changed would show
        weights = open_weights(write_zip(tmp_path / 'a.pth', whole, (numbers,)))
        assert weights.tensors['w'].read().shape == (12,)
        assert weights.metadata['a'] == 'torch._utils._rebuild_tensor_v2'


# Two references to the one before, again and again: 2 ** n of them, in n steps.
TUPLES = b'}' + b'2\x86' * 64
DICTS = b'}q\5' + (b'0}(' + text('a') + b'h\5' + text('b') + b'h\5uq\5') * 25
LIST = b'c__builtin__\nlist\n'


@pytest.mark.parametrize(
    ('code', 'message'),
    [
        (DICTS, 'without end'),
        (b'}' + TUPLES + b'Ns', 'for a key'),
        (b'\x8f(' + TUPLES + b'\x90', 'for a key'),
        (b'(' + TUPLES + b'\x91', 'for a key'),
        (opcodes(Name('builtins', 'set')) + b'](' + TUPLES + b'e\x85R', 'for a key'),
        (b'}q\5(' + text('a') + b'h\5u', 'without end'),
        (b']' * 110_000, 'more than 100,000 operations'),
        (b'](' + b'N' * 20_000 + b'eq\0' + (LIST + b'h\0\x85R0') * 9, 'operations'),
        (b'N' + b'r\xff\xff\xff\x7f' + b'0', 'in the middle of something'),
        (b'\x8e' + struct.pack('<Q', 1 << 60), 'its pickle is damaged'),
        (b'B' + struct.pack('<I', 0xFFFFFFFF), 'its pickle is damaged'),
        (b'\x95' + struct.pack('<Q', 1 << 60) + b'N', 'holds NoneType'),
        (b'I' + b'9' * 100_000 + b'\n', 'its pickle is damaged'),
        (b'.', 'in the middle of something'),
        (b'0', 'its pickle is damaged'),
        (b'R', 'its pickle is damaged'),
        (b'u', 'its pickle is damaged'),
        (b'N\x86', 'its pickle is damaged'),
        (b'\xff', 'its pickle is damaged'),
    ],
)
def test_pickles_that_would_fill_the_memory_or_take_for_ever(tmp_path, monkeypatch, code, message):
    monkeypatch.setattr('tljax.pretrained.readers.pickle_machine.BUDGET', 100_000)
    path = write_zip(tmp_path / 'a.pth', Raw(code), deflate=True)
    with pytest.raises(UserError, match=message):
        open_weights(path)


def test_metadata_are_cut_short(tmp_path):
    path = write_zip(tmp_path / 'a.pth', Raw(b'}' + text('a') + TUPLES + b's'))
    assert len(str(open_weights(path).metadata)) < 10_000


def test_a_pickle_of_unbelievable_size(tmp_path, monkeypatch):
    monkeypatch.setattr('tljax.pretrained.readers.torch_file.LARGEST_PICKLE', 1 << 20)
    path = write_zip(tmp_path / 'a.pth', Raw(b'N' * (2 << 20)))
    with pytest.raises(UserError, match='its pickle has 2,097,155 bytes'):
        open_weights(path)
