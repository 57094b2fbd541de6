"""Which architecture and naming scheme a file is of, and whether all of it is accounted for."""

import dataclasses
import functools
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from tljax import models, trees
from tljax.errors import UserError
from tljax.pretrained import porter
from tljax.pretrained.porter import Match, Shape

if TYPE_CHECKING:
    from tljax.pretrained.readers import Weights

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
SHOWN = 8  # names in a message


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """A file whose every tensor is accounted for.

    Attributes:
      weights: the file, opened; nothing is read yet.
      scheme: its name.
      model: of `tljax.models`.
      arguments: of that model.
      guessed: which of those the file does not tell: they are only what is usual.
      outputs: size of the file's head; 0 where it has none.
      example: of what the model reads, without the batch axis.
      shapes: our path -> ShapeDtypeStruct, parameters and batch statistics together.
      skipped: their name -> why it is not read.
      match: where each leaf comes from.
    """

    weights: 'Weights'
    scheme: str
    model: str
    arguments: dict[str, Any]
    guessed: tuple[str, ...]
    outputs: int
    example: dict[str, jax.ShapeDtypeStruct]
    shapes: dict[str, jax.ShapeDtypeStruct]
    skipped: dict[str, str]
    match: Match

    def read(self) -> dict[str, np.ndarray]:
        """Path -> float32 array, each a copy of its own; the file can be closed afterwards."""
        leaves: dict[str, np.ndarray] = {}
        parts = sorted(self.match.leaves.items(), key=lambda item: item[1].name)
        name, tensor = '', np.zeros(())
        for path, part in parts:
            if part.name != name:
                name, tensor = part.name, self.weights.tensors[part.name].read()
            leaves[path] = np.array(porter.part_of(part, tensor), np.float32, order='C')
        return {path: leaves[path] for path in self.match.leaves}


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


def identify(weights: 'Weights', model: str = '') -> Found:
    """Finds the scheme that accounts for every tensor of a file and every leaf of its model.

    Args:
      weights: the opened file.
      model: the architecture that is wanted; '' takes any. A head may be absent from the file.

    Raises:
      UserError: no scheme fits (it says which came nearest, and what was missing), the file is
        another architecture's, or its numbers are integers.
    """
    shapes = {name: tensor.shape for name, tensor in weights.tensors.items()}
    where = ', '.join(map(str, weights.files))
    if not shapes:
        raise UserError(f'{where} holds no tensors.')
    stated = stated_by(weights)
    order = sorted(PORTERS, key=lambda name: name != (model or stated.get('model')))
    if stated and own_names(shapes):
        order = [stated['model']]
    attempts: list[Attempt] = []
    for name in order:
        for attempt in attempts_of(name, shapes, weights.config, stated):
            attempts.append(attempt)
            if not attempt.fits:
                continue
            found = made(weights, attempt)
            if model and found.model != model:
                raise UserError(
                    f'{where} is a {found.model} ({found.scheme} names), but config.model.name is '
                    f'{model!r}. Set config.model.name to {found.model!r}, or name other weights.'
                )
            return found
    wanted = [a for a in attempts if a.match.scheme.model == model] if model else []
    best = max(wanted or attempts, key=lambda attempt: attempt.nearness)
    raise UserError(f'{where} fits no naming scheme. {account_of(best, shapes)}')


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


def stated_by(weights: 'Weights') -> dict[str, Any]:
    """What a file that tljax exported says of its model; {} if it isn't one, or was edited."""
    try:
        stated = json.loads(weights.metadata[OURS])
        known = models.arguments(stated['model'])
        arguments = {key: stated['arguments'][key] for key in known if key != 'name'}
        example = {name: tuple(map(int, shape)) for name, shape in stated['example'].items()}
        outputs = int(stated['outputs'])
    except (ValueError, TypeError, KeyError, AttributeError, UserError):
        return {}
    # A model of more layers than the file has tensors would take long to build, and can't fit.
    layers = [arguments.get('depth', 0), arguments.get('layers', 0)]
    layers += [len(value) for value in arguments.values() if isinstance(value, list | tuple)]
    if max(layers) > 10 * len(weights.tensors):
        return {}
    return {
        'model': stated['model'],
        'arguments': arguments,
        'guessed': (),
        'outputs': outputs,
        'example': example,
    }


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


def made(weights: 'Weights', attempt: Attempt) -> Found:
    """What was found, once its numbers are known to be floating-point."""
    match = attempt.match
    used = dict.fromkeys(part.name for part in match.leaves.values())
    for name in used:
        dtype = weights.tensors[name].dtype
        if not jax.numpy.issubdtype(dtype, np.floating):
            raise UserError(
                f'{weights.files[0]}: {name} is {dtype}, not floating-point: the weights are '
                'quantised. Name the file with the original weights.'
            )
    shapes = match.shapes({name: weights.tensors[name].shape for name in used})
    return Found(
        weights=weights,
        scheme=match.scheme.name,
        model=match.scheme.model,
        arguments=attempt.arguments,
        guessed=attempt.guessed,
        outputs=attempt.outputs,
        example=attempt.example,
        shapes={path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in shapes.items()},
        skipped=match.skipped,
        match=match,
    )


def account_of(best: Attempt, shapes: Mapping[str, Shape]) -> str:
    """What came nearest, and what was wrong with it."""
    scheme, match = best.match.scheme, best.match
    read = {part.name for part in match.leaves.values()}
    if not read:
        known = sorted({scheme.model for scheme in all_schemes()})
        return (
            f'None of its {len(shapes)} names is known; they begin with {listed(shapes)}. '
            f'Architectures that can be read: {", ".join(known)}.'
        )
    words = [
        f'Nearest is {scheme.model} with {scheme.name} names, which reads {len(read)} of '
        f'{len(shapes)} tensors.'
    ]
    for faults, what in (
        (match.unread, 'Unknown to it'),
        (best.missing, 'Leaves without a tensor'),
        (best.extra, 'Leaves of another shape, or too many'),
        (match.faults, 'Wrong'),
        ((best.trouble,) if best.trouble else (), 'And'),
    ):
        if faults:
            words.append(f'{what}: {listed(faults)}.')
    return ' '.join(words)


def listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(names[:SHOWN]) + more


@functools.cache
def all_schemes() -> tuple[porter.Scheme, ...]:
    """Every scheme of every architecture."""
    return tuple(
        scheme
        for name in PORTERS
        for scheme in importlib.import_module(f'tljax.pretrained.porters.{name}').SCHEMES
    )
