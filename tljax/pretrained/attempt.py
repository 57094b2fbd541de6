"""A file's names read by one scheme: which leaves, of which model, and what is left over."""

import dataclasses
import functools
import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from tljax import models, trees
from tljax.errors import UserError
from tljax.pretrained import porter
from tljax.pretrained.porter import Match, Shape

PORTERS = (
    'alexnet',
    'bert',
    'bit',
    'cifar_resnet',
    'efficientnet_lite',
    'gpt2',
    'resnet',
    'squeezenet',
    'vit',
    'wav2vec2',
)
# What config.json calls networks that compute what ours do; others share their tensors' names.
MODEL_TYPES = {
    'bert': ('bert', 'distilbert', 'electra'),
    'bit': ('bit',),
    'gpt2': ('gpt2',),
    'resnet': ('resnet',),
    'vit': ('deit', 'vit', 'vit_mae', 'vit_msn'),
    'wav2vec2': ('wav2vec2',),
}
OURS = 'tljax'  # the scheme of files that carry our own paths


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What came of reading a file's names by one scheme."""

    match: Match
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    guessed: tuple[str, ...] = ()
    outputs: int = 0
    example: dict[str, jax.ShapeDtypeStruct] = dataclasses.field(default_factory=dict)
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    trouble: str = ''

    @property
    def fits(self) -> bool:
        match = self.match
        wrong = match.unread or match.faults or self.missing or self.extra or self.trouble
        return bool(match.leaves) and not wrong

    @property
    def nearness(self) -> tuple[float, float]:
        names, leaves = self.match, len(self.match.leaves)
        read = len({part.name for part in names.leaves.values()})
        wrong = len(self.missing) + len(self.extra) + bool(self.trouble)
        return read / (read + len(names.unread) + 1), leaves / (leaves + wrong + 1)


def attempts_of(
    name: str,
    shapes: Mapping[str, Shape],
    config: Mapping[str, Any],
    stated: Mapping[str, Any],
) -> Iterator[Attempt]:
    """Reads the names by each scheme of an architecture, or by our own.

    Args:
      name: of the architecture.
      shapes: of the file's tensors.
      config: of the config.json beside it.
      stated: what the file itself says of its model, if tljax exported it.
    """
    arguments_of, schemes = None, ()
    if name in PORTERS:
        module = importlib.import_module(f'tljax.pretrained.porters.{name}')
        arguments_of, schemes = module.arguments, module.SCHEMES
    known = stated if stated.get('model') == name else {}
    for scheme in (OwnScheme(OURS, name, ()),) if own_names(shapes) else schemes:
        yield attempt_by(scheme, arguments_of, shapes, config, known)


def own_names(names: Iterable[str]) -> bool:
    """Whether a file carries our own paths."""
    return any(name.startswith('backbone/') for name in names)


class OwnScheme(porter.Scheme):
    """Every name is its own path."""

    def find(self, name: str) -> tuple[porter.Row, dict[str, int]] | None:
        ours = name.startswith(('backbone/', 'head/'))
        return (porter.Row(name, name), {}) if ours else None


def attempt_by(
    scheme: porter.Scheme,
    arguments_of: Any,
    shapes: Mapping[str, Shape],
    config: Mapping[str, Any],
    stated: Mapping[str, Any],
) -> Attempt:
    """Reads the names by one scheme, and compares the leaves with those of such a model."""
    match = porter.match(scheme, shapes)
    ours = match.shapes(shapes)
    if not ours or len(match.unread) > len(shapes) / 2:
        return Attempt(match)
    try:
        told = stated or arguments_told(scheme, arguments_of, shapes, ours, config)
    except UserError as error:
        return Attempt(match, trouble=str(error))
    except (KeyError, ValueError, IndexError, StopIteration, TypeError, AttributeError) as error:
        return Attempt(match, trouble=f'its size cannot be told ({error!r})')
    arguments, guessed = told['arguments'], told['guessed']
    outputs, example = told['outputs'], example_of(told['example'])
    try:
        expected = shapes_of(scheme.model, arguments, outputs, example)
    except UserError as error:
        return Attempt(match, arguments, guessed, trouble=str(error))
    # A tied head has no leaves, and is not missing.
    headless = not any(path.startswith('head/') for path in ours)
    headless &= any(path.startswith('head/') for path in expected)
    if headless:
        expected = {p: s for p, s in expected.items() if not p.startswith('head/')}
    missing = tuple(path for path in expected if path not in ours)
    extra = tuple(f'{path} {shape}' for path, shape in ours.items() if expected.get(path) != shape)
    outputs = 0 if headless else outputs
    return Attempt(match, arguments, guessed, outputs, example, missing, extra)


def arguments_told(
    scheme: porter.Scheme,
    arguments_of: Any,
    theirs: Mapping[str, Shape],
    ours: Mapping[str, Shape],
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """What names, shapes and config.json tell of a model: as `stated_by`, and what is guessed."""
    check_config(scheme.model, config)
    implied = {**scheme.tell(theirs), **scheme.fixed}
    arguments = {**arguments_of(ours, config), **implied}
    defaults = models.arguments(scheme.model)
    for key, value in arguments.items():
        if key in defaults and not alike(value, defaults[key]):
            raise UserError(
                f'config.json makes {key} {value!r}, which is no {kind_of(defaults[key])}'
            )
    return {
        'outputs': arguments.pop('outputs'),
        'example': arguments.pop('example'),
        'guessed': tuple(key for key in arguments.pop('guessed', ()) if key not in implied),
        'arguments': arguments,
    }


def check_config(model: str, config: Mapping[str, Any]) -> None:
    """Checks that a config.json is of a network that computes what ours does.

    Raises:
      UserError: it is of another, though its tensors may have the same names.
    """
    stated = config.get('model_type')
    known = MODEL_TYPES.get(model)
    if stated is not None and known and stated not in known:
        raise UserError(
            f'config.json: model_type is {stated!r}, which names its tensors as {model} does and '
            f'computes something else; {model} here reads {", ".join(known)}'
        )
    for key in ('is_decoder', 'add_cross_attention'):
        if config.get(key) and model != 'gpt2':
            raise UserError(f'config.json: {key} is set, and {model} here is an encoder')


def kind_of(default: Any) -> str:
    return 'number' if isinstance(default, int | float) else type(default).__name__


def alike(value: Any, default: Any) -> bool:
    """Whether a value is of a default's kind; whole numbers are not truth values."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    kinds = (tuple, list) if isinstance(default, tuple | list) else type(default)
    return isinstance(value, kinds)


def example_of(shapes: Mapping[str, Shape]) -> dict[str, jax.ShapeDtypeStruct]:
    """Entry -> shape, with the dtypes that pictures, sound and tokens come in."""
    kinds = {'image': np.uint8, 'audio': np.float32}
    return {
        name: jax.ShapeDtypeStruct(tuple(shape), kinds.get(name, np.int32))
        for name, shape in shapes.items()
    }


def shapes_of(
    model: str,
    arguments: Mapping[str, Any],
    outputs: int,
    example: Mapping[str, jax.ShapeDtypeStruct],
) -> dict[str, Shape]:
    """Path -> shape for a model of these arguments.

    Raises:
      UserError: it can't be built.
    """
    shapes = models.build({'name': model, **arguments}, example, outputs).shapes()
    flat = trees.flatten(shapes['params']) | trees.flatten(shapes['batch_stats'])
    return {path: tuple(leaf.shape) for path, leaf in flat.items()}


@functools.cache
def all_schemes() -> tuple[porter.Scheme, ...]:
    """Every scheme of every architecture."""
    return tuple(
        scheme
        for name in PORTERS
        for scheme in importlib.import_module(f'tljax.pretrained.porters.{name}').SCHEMES
    )
