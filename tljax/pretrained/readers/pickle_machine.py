"""Reads pickles without running anything of theirs.

A pickle is a program for a small stack machine (Python's `pickletools` describes it). Python's own
machine imports what a pickle names and calls it. This one holds no way to do so: a name that is
not in the caller's list is an error before anything else happens, and what is in the list stands
for a function of ours that builds plain data. Nothing is ever called, set or fetched by a name
that comes from the file.
"""

import pickletools
from collections.abc import Callable, Mapping, Sized
from typing import Any, NamedTuple

BUDGET = 10_000_000  # operations, and items copied; bounds memory and time
TEXT_SHARE = 64  # bytes copied that count as one operation
KEYS = (str, bytes, int, float, complex, bool, type(None))
MARKED = (  # opcodes that take what lies above the last mark
    'DICT',
    'LIST',
    'TUPLE',
    'POP_MARK',
    'SETITEMS',
    'APPENDS',
    'ADDITEMS',
    'FROZENSET',
    'OBJ',
    'INST',
)

CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
EMPTY: dict[str, Callable[[], Any]] = {
    'EMPTY_DICT': dict,
    'EMPTY_LIST': list,
    'EMPTY_SET': set,
    'EMPTY_TUPLE': tuple,
}
LITERALS = {
    *('BINFLOAT', 'FLOAT', 'BININT', 'BININT1', 'BININT2', 'INT', 'LONG', 'LONG1', 'LONG4'),
    *('BINUNICODE', 'BINUNICODE8', 'SHORT_BINUNICODE', 'UNICODE'),
    *('BINSTRING', 'SHORT_BINSTRING', 'STRING'),
    *('BINBYTES', 'BINBYTES8', 'SHORT_BINBYTES', 'BYTEARRAY8'),
}
REFUSED = {
    'EXT1': 'an object from the extension registry',
    'EXT2': 'an object from the extension registry',
    'EXT4': 'an object from the extension registry',
    'NEXT_BUFFER': 'a buffer outside the pickle',
    'READONLY_BUFFER': 'a buffer outside the pickle',
}


class ForbiddenError(Exception):
    """A pickle wants something that is not in the list; the message is its dotted name."""


class Symbol(NamedTuple):
    """A name in a pickle, such as 'torch.FloatStorage': a name, and nothing behind it."""

    name: str


class Window:
    """A file-like view of bytes from `start` to `stop`; its `position` stands after what was read.

    Args:
      buffer: bytes, or a memory map.
    """

    def __init__(self, buffer: Any, start: int = 0, stop: int | None = None) -> None:
        self.buffer, self.position = buffer, start
        self.stop = len(buffer) if stop is None else min(stop, len(buffer))

    def read(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        begin = self.position
        self.position = min(begin + count, self.stop)
        return bytes(self.buffer[begin : self.position])

    def readline(self) -> bytes:
        """The bytes up to the next newline, it included."""
        end = self.buffer.find(b'\n', self.position, self.stop)
        return self.read((self.stop if end < 0 else end + 1) - self.position)

    def tell(self) -> int:
        return self.position


class Machine:
    """Runs one pickle.

    Args:
      builders: dotted name -> our function that stands for it; called with the arguments in the
        pickle. None: the name may be used only as a name.
      persistent: gives the object of a persistent id.
    """

    def __init__(
        self,
        builders: Mapping[str, Callable[..., Any] | None],
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.builders, self.persistent = builders, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}
        self.left = BUDGET

    def load(self, window: Any) -> Any:
        """What the pickle at a Window's position holds; the window stands behind it afterwards.

        Raises:
          ForbiddenError: it names an object that is not in the list.
          ValueError, IndexError, KeyError, TypeError, ...: it is no pickle, or damaged.
        """
        for opcode, arg, _ in pickletools.genops(window):
            name = opcode.name
            self.charge(1)
            if name in LITERALS:
                self.stack.append(arg)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name])
            elif name in EMPTY:
                self.stack.append(EMPTY[name]())
            elif name in REFUSED:
                raise ForbiddenError(REFUSED[name])
            elif name in ('PROTO', 'FRAME'):
                continue
            elif name == 'MARK':
                self.below.append(self.stack)
                self.stack = []
            elif name == 'STOP':
                break
            elif name in MARKED:
                items, self.stack = self.stack, self.below.pop()
                more = (arg,) if name == 'INST' else ()
                getattr(self, 'op_' + name.lower())(items, *more)
            else:
                getattr(self, 'op_' + name.lower())(arg)
        if len(self.stack) != 1 or self.below:
            raise ValueError('the pickle ends in the middle of something')
        return self.stack.pop()

    def charge(self, cost: int) -> None:
        """Counts work done, so that a small pickle can't cause much of it."""
        self.left -= cost
        if self.left < 0:
            raise ValueError(f'it takes more than {BUDGET:,} operations to unpickle')

    # The stack and the memo

    def op_pop(self, _: None) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.stack = self.below.pop()

    def op_pop_mark(self, items: list[Any]) -> None:
        pass

    def op_dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def op_put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    op_binput = op_long_binput = op_put

    def op_memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def op_get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    op_binget = op_long_binget = op_get

    # Containers

    def op_tuple(self, items: list[Any]) -> None:
        self.stack.append((*items,))

    def op_tuple1(self, _: None) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def op_tuple2(self, _: None) -> None:
        first, second = self.stack[-2:]
        self.stack[-2:] = [(first, second)]

    def op_tuple3(self, _: None) -> None:
        first, second, third = self.stack[-3:]
        self.stack[-3:] = [(first, second, third)]

    def op_list(self, items: list[Any]) -> None:
        self.stack.append(items)

    def op_dict(self, items: list[Any]) -> None:
        self.stack.append({})
        self.op_setitems(items)

    def op_frozenset(self, items: list[Any]) -> None:
        self.stack.append(frozenset(map(checked_key, items)))

    def op_append(self, _: None) -> None:
        item = self.stack.pop()
        self.op_appends([item])

    def op_appends(self, items: list[Any]) -> None:
        self.expect(list).extend(items)

    def op_additems(self, items: list[Any]) -> None:
        self.expect(set).update(map(checked_key, items))

    def op_setitem(self, _: None) -> None:
        items = self.stack[-2:]
        del self.stack[-2:]
        self.op_setitems(items)

    def op_setitems(self, items: list[Any]) -> None:
        self.expect(dict).update(zip(map(checked_key, items[::2]), items[1::2], strict=True))

    def expect(self, kind: type) -> Any:
        top = self.stack[-1]
        if not isinstance(top, kind):
            raise TypeError(f'the pickle takes a {type(top).__name__} for a {kind.__name__}')
        return top

    # Names, and what is built from them

    def op_global(self, arg: str) -> None:
        self.stack.append(self.named(*arg.split(' ', 1)))

    def op_stack_global(self, _: None) -> None:
        module, name = self.stack[-2:]
        self.stack[-2:] = [self.named(module, name)]

    def op_reduce(self, _: None) -> None:
        function, args = self.stack[-2:]
        self.stack[-2:] = [self.build(function, args)]

    op_newobj = op_reduce  # an instance made without __init__: for our builders no difference

    def op_newobj_ex(self, _: None) -> None:
        function, args, keywords = self.stack[-3:]
        if keywords:
            raise ForbiddenError('a constructor with keywords')
        self.stack[-3:] = [self.build(function, args)]

    def op_obj(self, items: list[Any]) -> None:
        self.stack.append(self.build(items[0], tuple(items[1:])))

    def op_inst(self, items: list[Any], arg: str) -> None:
        self.stack.append(self.build(self.named(*arg.split(' ', 1)), tuple(items)))

    def op_build(self, _: None) -> None:
        state = self.stack.pop()
        top = self.stack[-1]
        if isinstance(top, Stateful):
            top.set_state(state)
        # The attributes of a dict or of a tensor, such as an OrderedDict's _metadata, say nothing
        # about the numbers, and are dropped.

    def op_persid(self, arg: str) -> None:
        self.stack.append(self.referred(arg))

    def op_binpersid(self, _: None) -> None:
        self.stack[-1:] = [self.referred(self.stack[-1])]

    def named(self, module: Any, name: Any) -> Symbol:
        """What stands for a name: nothing but the name, and only if it is in the list."""
        dotted = f'{module}.{name}'
        if dotted not in self.builders:
            raise ForbiddenError(dotted)
        return Symbol(dotted)

    def build(self, symbol: Any, args: Any) -> Any:
        """What our function for a name makes of arguments."""
        if not isinstance(symbol, Symbol):
            raise ForbiddenError(f'a call of a {type(symbol).__name__}')
        function = self.builders.get(symbol.name)
        if function is None:
            raise ForbiddenError(f'a call of {symbol.name}')
        if not isinstance(args, tuple):
            raise TypeError('the pickle calls a function without a tuple of arguments')
        for arg in args:
            if isinstance(arg, str | bytes | bytearray):
                self.charge(len(arg) // TEXT_SHARE)
            elif isinstance(arg, Sized):
                self.charge(len(arg))
        return function(*args)

    def referred(self, key: Any) -> Any:
        if self.persistent is None:
            raise ForbiddenError('a reference to something outside the pickle')
        return self.persistent(key)


class Stateful:
    """Something of ours whose content a pickle gives after it has been built."""

    def set_state(self, state: Any) -> None:
        raise NotImplementedError


def checked_key(key: Any) -> Any:
    """A key that takes no time to hash: tuples of tuples of tuples ... can take for ever."""
    parts = key if isinstance(key, tuple) else (key,)
    if not all(isinstance(part, KEYS) for part in parts):
        raise TypeError(f'the pickle has a {type(key).__name__} for a key')
    return key
