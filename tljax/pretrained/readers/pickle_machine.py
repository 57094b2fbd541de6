"""Reads pickles without running anything of theirs.

A pickle is a program for a small stack machine (Python's `pickletools` describes it). Python's own
machine imports what a pickle names and calls it. This one holds no way to do so: a name that is
not in the caller's list is an error before anything else happens, and what is in the list stands
for a function of ours that builds plain data. Nothing is ever called, set or fetched by a name
that comes from the file.
"""

import functools
import pickletools
from collections.abc import Callable, Mapping, Sized
from typing import Any

from tljax.pretrained.readers.pickle_keys import Symbol, checked_key, mapping

BUDGET = 5_000_000  # operations, and items copied; bounds memory and time
TEXT_SHARE = 64  # bytes copied that count as one operation
NEW: dict[str, Callable[[], Any]] = {
    'EMPTY_DICT': dict,
    'EMPTY_LIST': list,
    'EMPTY_SET': set,
    'EMPTY_TUPLE': tuple,
    'NONE': lambda: None,
    'NEWTRUE': lambda: True,
    'NEWFALSE': lambda: False,
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
        self.actions = self.table()

    def table(self) -> dict[str, Callable[[Any], None]]:
        """What each opcode does, given its argument."""
        table: dict[str, Callable[[Any], None]] = dict.fromkeys(LITERALS, self.push)
        table |= {name: functools.partial(self.push_new, kind) for name, kind in NEW.items()}
        table |= {name: functools.partial(refuse, what) for name, what in REFUSED.items()}
        table |= {'PROTO': ignore, 'FRAME': ignore}
        own = {name for name in dir(self) if name.startswith('op_')}
        return table | {name[3:].upper(): getattr(self, name) for name in own}

    def load(self, window: Any) -> Any:
        """What the pickle at a Window's position holds; the window stands behind it afterwards.

        Raises:
          ForbiddenError: it names an object that is not in the list.
          ValueError, IndexError, KeyError, TypeError, ...: it is no pickle, or damaged.
        """
        for opcode, arg, _ in pickletools.genops(window):
            self.charge(1)
            if opcode.name == 'STOP':
                break
            self.actions[opcode.name](arg)
        if len(self.stack) != 1 or self.below:
            raise ValueError('the pickle ends in the middle of something')
        return self.stack.pop()

    def charge(self, cost: int) -> None:
        """Counts work done, so that a small pickle can't cause much of it."""
        self.left -= cost
        if self.left < 0:
            raise ValueError(f'it takes more than {BUDGET:,} operations to unpickle')

    def charge_for(self, value: Any, depth: int = 3) -> None:
        """Counts the work of copying a value, and what lies in its tuples."""
        if isinstance(value, str | bytes | bytearray):
            self.charge(len(value) // TEXT_SHARE)
        elif isinstance(value, Sized):
            self.charge(len(value))
            for item in value if depth and isinstance(value, tuple) else ():
                self.charge_for(item, depth - 1)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def push_new(self, kind: Callable[[], Any], _: None) -> None:
        self.stack.append(kind())

    def above_mark(self) -> list[Any]:
        """What lies above the last mark, taken off the stack with the mark."""
        items, self.stack = self.stack, self.below.pop()
        return items

    # The stack and the memo

    def op_mark(self, _: None) -> None:
        self.below.append(self.stack)
        self.stack = []

    def op_pop(self, _: None) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.stack = self.below.pop()

    def op_pop_mark(self, _: None) -> None:
        self.above_mark()

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

    def op_tuple(self, _: None) -> None:
        self.push(tuple(self.above_mark()))

    def op_tuple1(self, _: None) -> None:
        self.join(1)

    def op_tuple2(self, _: None) -> None:
        self.join(2)

    def op_tuple3(self, _: None) -> None:
        self.join(3)

    def join(self, count: int) -> None:
        """Makes a tuple of the last items."""
        if len(self.stack) < count:
            raise IndexError('the pickle takes more from its stack than there is')
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def op_list(self, _: None) -> None:
        self.push(self.above_mark())

    def op_dict(self, _: None) -> None:
        self.push(mapping(self.above_mark()))

    def op_frozenset(self, _: None) -> None:
        self.push(frozenset(map(checked_key, self.above_mark())))

    def op_append(self, _: None) -> None:
        item = self.stack.pop()
        self.expect(list).append(item)

    def op_appends(self, _: None) -> None:
        items = self.above_mark()
        self.expect(list).extend(items)

    def op_additems(self, _: None) -> None:
        items = self.above_mark()
        self.expect(set).update(map(checked_key, items))

    def op_setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.expect(dict)[checked_key(key)] = value

    def op_setitems(self, _: None) -> None:
        items = self.above_mark()
        self.expect(dict).update(mapping(items))

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

    def op_obj(self, _: None) -> None:
        function, *args = self.above_mark()
        self.push(self.build(function, tuple(args)))

    def op_inst(self, arg: str) -> None:
        args = tuple(self.above_mark())
        self.push(self.build(self.named(*arg.split(' ', 1)), args))

    def op_build(self, _: None) -> None:
        state = self.stack.pop()
        top = self.stack[-1]
        self.charge_for(state)
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
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError('the pickle names something without text')
        self.charge_for((module, name))
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
        self.charge_for(args)
        return function(*args)

    def referred(self, key: Any) -> Any:
        if self.persistent is None:
            raise ForbiddenError('a reference to something outside the pickle')
        self.charge_for(key)
        return self.persistent(key)


class Stateful:
    """Something of ours whose content a pickle gives after it has been built."""

    def set_state(self, state: Any) -> None:
        raise NotImplementedError


def refuse(what: str, _: Any) -> None:
    raise ForbiddenError(what)


def ignore(_: Any) -> None:
    pass
