"""Hooks on the calls of a module's parts: to see what they give, or to change it.

A module is made anew for every trace, and called once; so its parts can be listened to without a
trace in its variables. Hooks run while tracing and cost nothing afterwards.
"""

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
from flax import nnx

from tljax.models import Model, Outline, merge

# What a hook gets: the call that it stands in for, and the call's arguments.
Hook = Callable[..., Any]
_ACTIVE = threading.local()
LISTENERS = 997


@contextmanager
def hooked(module: nnx.Module, hooks: Mapping[str, Sequence[Hook]]) -> Iterator[None]:
    """Runs hooks around the calls of a module's parts, while the context lasts.

    Args:
      module: whose parts are called inside the context.
      hooks: path of a part ('' is the module itself) -> hooks, the innermost first; each is called
        as `hook(call, *args, **kwargs)` and gives what the part's caller gets.

    Raises:
      KeyError: the module has no part of that path.

    >>> linear = nnx.Linear(2, 3, rngs=nnx.Rngs(params=0))
    >>> with hooked(linear, {'': [lambda call, x: 10 * call(x).size]}):
    ...     linear(jax.numpy.ones((1, 2)))
    30
    """
    parts = parts_of(module)
    chosen = [(parts[path], tuple(functions)) for path, functions in hooks.items()]
    active: dict[int, tuple[Hook, ...]] = vars(_ACTIVE).setdefault('hooks', {})
    before: dict[int, Any] = {id(p): (active.get(id(p)), type(p)) for p, _ in chosen}
    try:
        for part, functions in chosen:
            known, kind = before[id(part)]
            active[id(part)] = (known or ()) + functions
            if known is None:
                object.__setattr__(part, '__class__', _listening(kind))
        yield
    finally:
        for part, _ in chosen:
            known, kind = before[id(part)]
            active.pop(id(part))
            if known is not None:
                active[id(part)] = known
            object.__setattr__(part, '__class__', kind)


def parts_of(module: nnx.Module) -> dict[str, Any]:
    """Every module inside a module, by its path; the module itself is ''."""
    return {'/'.join(map(str, keys)): part for keys, part in nnx.iter_modules(module)}


def stage_outlets(model: Model, batch: Mapping[str, Any]) -> tuple[str, ...]:
    """The module that gives what each stage below the head gives, the lowest stage first.

    Of the outermost modules that lie in a stage with all their parameters, it is the one called
    last.

    Args:
      model: an architecture.
      batch: arrays, or shapes, of a batch as the model reads it.
    """
    outline = model.outline()
    backbone = outline.members[: len(outline.backbone)]
    called: list[str] = []
    # A size that no other axis has: what an embedding of positions gives has no examples in it.
    batch = {k: jax.ShapeDtypeStruct((LISTENERS, *s.shape[1:]), s.dtype) for k, s in batch.items()}

    def listen(variables: Any, batch: Any) -> Any:
        module = merge(model.graph(train=False), variables['params'], variables['batch_stats'])
        paths = [path for members in backbone for path in outermost(module, outline, members)]
        with hooked(module, {path: [_note(called, path)] for path in paths}):
            return module(batch)

    jax.eval_shape(listen, model.shapes(), batch)
    last = [[path for path in called if path in _inside(members)] for members in backbone]
    return tuple(paths[-1] for paths in last if paths)


def outermost(module: nnx.Module, outline: Outline, members: Sequence[str]) -> list[str]:
    """Paths of the largest modules, of those that can be called, whose parameters are `members`."""
    own = set(members)
    other = {path for stage in outline.members for path in stage} - own
    found: list[str] = []
    for path, part in sorted(parts_of(module).items(), key=lambda item: item[0].count('/')):
        prefix = path + '/' if path else ''
        if not callable(part) or any(path.startswith(f'{outer}/') for outer in found):
            continue
        if any(p.startswith(prefix) for p in own) and not any(p.startswith(prefix) for p in other):
            found.append(path)
    return found


def _inside(members: Sequence[str]) -> set[str]:
    """Paths of all modules that hold some of these parameters."""
    return {
        '/'.join(parts[:depth])
        for parts in (path.split('/') for path in members)
        for depth in range(1, len(parts))
    }


def _note(called: list[str], path: str) -> Hook:
    def hook(call: Any, *args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        if jax.numpy.ndim(result) > 1 and result.shape[0] == LISTENERS:
            called.append(path)
        return result

    return hook


@functools.cache
def _listening(kind: Any) -> type:
    """The class whose call runs the hooks; the same for all modules of a kind."""

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        call: Any = functools.partial(kind.__call__, self)
        for hook in vars(_ACTIVE)['hooks'][id(self)]:
            call = functools.partial(hook, call)
        return call(*args, **kwargs)

    return type(kind.__name__, (kind,), {'__call__': __call__})
