"""Which architecture and naming scheme a file is of, and whether all of it is accounted for."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from tljax import models
from tljax.errors import UserError
from tljax.pretrained import porter
from tljax.pretrained.attempt import OURS, PORTERS, Attempt, all_schemes, attempts_of, own_names
from tljax.pretrained.porter import Match, Shape

if TYPE_CHECKING:
    from tljax.pretrained.readers import Weights

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
