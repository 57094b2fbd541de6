"""Models averaged in the space of their weights: interpolation and soups.

A model is its leaves by path. Sums are taken in float64 and given back in each leaf's own dtype,
so that a model averaged with itself, or taken with weight 1, is itself bit for bit.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tljax.errors import UserError, nearest

Leaves = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Soup:
    """A greedy soup and how it came about.

    Attributes:
      leaves: of the soup.
      members: indices of the models in it, in the order in which they were added.
      alone: the score of each model by itself, in the order given.
      score: of the soup.
      tried: (model, score of the soup with it, whether it stayed), in the order tried.
    """

    leaves: dict[str, np.ndarray]
    members: tuple[int, ...]
    alone: tuple[float, ...]
    score: float
    tried: tuple[tuple[int, float, bool], ...]


def interpolate(first: Leaves, second: Leaves, share: float) -> dict[str, np.ndarray]:
    """The model on the line between two: (1 - share) first + share second.

    WiSE-FT (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", equation 1) takes the
    source for the first and its fine-tuned self for the second; at share 0.5 that often keeps the
    gain in distribution and loses less under shift.

    Args:
      first: leaves by path.
      second: leaves of the same paths, shapes and dtypes.
      share: of the second, from 0 to 1.

    Raises:
      UserError: the models differ in their leaves, or share is outside of [0, 1].

    >>> interpolate({'bias': np.zeros(2)}, {'bias': np.array([1.0, 2.0])}, 0.5)['bias'].tolist()
    [0.5, 1.0]
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise UserError(f'the share of an interpolation is {share!r}; it goes from 0 to 1.')
    return weighted([first, second], [1 - share, share])


def uniform(models: Sequence[Leaves], names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The uniform soup: the mean of the models.

    Wortsman et al. 2022, "Model soups", table 2. Of use for models that began from the same
    weights; models that were trained apart average to nothing of use.

    Args:
      models: leaves by path, alike in paths, shapes and dtypes.
      names: of the models, for error messages.

    Raises:
      UserError: the models differ in their leaves.

    >>> uniform([{'bias': np.zeros(2)}, {'bias': np.array([1.0, 3.0])}])['bias'].tolist()
    [0.5, 1.5]
    """
    return weighted(models, [1 / len(models)] * len(models), names)


def greedy(
    models: Sequence[Leaves], score: Callable[[Leaves], float], names: Sequence[str] = ()
) -> Soup:
    """The greedy soup: models from the best on, each kept if the soup is no worse for it.

    Wortsman et al. 2022, "Model soups", recipe 1. Scores must come from validation examples that
    no model was trained on.

    Args:
      models: as for `uniform`.
      score: of leaves, higher is better; what isn't finite counts as the worst.
      names: of the models, for error messages.

    Raises:
      UserError: there is no model, or they differ in their leaves.

    >>> models = [{'w': np.array(x)} for x in (1.0, 3.0, 9.0)]
    >>> soup = greedy(models, lambda leaves: -abs(float(leaves['w']) - 2.1))
    >>> soup.members, soup.leaves['w'].item()
    ((1, 0), 2.0)
    """
    check_alike(models, names)

    def scored(leaves: Leaves) -> float:
        value = float(score(leaves))
        return value if math.isfinite(value) else -math.inf

    alone = [scored(model) for model in models]
    first, *rest = sorted(range(len(models)), key=lambda index: -alone[index])
    members, best = [first], alone[first]
    leaves = uniform([models[first]])
    tried = []
    for index in rest:
        with_it = uniform([models[member] for member in [*members, index]])
        value = scored(with_it)
        stays = value >= best
        tried.append((index, value, stays))
        if stays:
            leaves, best = with_it, value
            members.append(index)
    return Soup(leaves, tuple(members), tuple(alone), best, tuple(tried))


def weighted(
    models: Sequence[Leaves], weights: Sequence[float], names: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """The sum of the models, each times its weight; a weight of 0 leaves a model out.

    Leaves that are no floating-point numbers cannot be averaged: they must be equal.

    Raises:
      UserError: the models differ in their leaves.
    """
    check_alike(models, names)
    used = [(m, w) for m, w in zip(models, weights, strict=True) if w]
    averaged = {}
    for path, leaf in used[0][0].items():
        leaf = np.asarray(leaf)
        parts = [np.asarray(model[path]) for model, _ in used]
        if all(np.array_equal(part, leaf) for part in parts) and _is_one(w for _, w in used):
            averaged[path] = leaf.copy()  # frozen leaves stay what they are, bit for bit
            continue
        if not _is_floating(leaf):
            raise UserError(
                f'the leaf {path!r} holds {leaf.dtype}, which has no average, and differs between '
                'the models.'
            )
        total = sum(
            weight * part.astype(np.float64) for part, (_, weight) in zip(parts, used, strict=True)
        )
        averaged[path] = np.asarray(total).astype(leaf.dtype)
    return averaged


def check_alike(models: Sequence[Leaves], names: Sequence[str] = ()) -> None:
    """Checks that models have the same leaves, in shape and dtype too.

    Args:
      models: leaves by path.
      names: of the models, for error messages; left out, their numbers.

    Raises:
      UserError: there is none, or a leaf is missing or another; says in which.
    """
    if not models:
        raise UserError('an average needs one model at least.')
    names = names or [f'model {index}' for index in range(len(models))]
    first = {path: _kind(leaf) for path, leaf in models[0].items()}
    for model, name in zip(models[1:], names[1:], strict=True):
        other = {path: _kind(leaf) for path, leaf in model.items()}
        for path in sorted(first.keys() ^ other.keys()):
            has, lacks = (names[0], name) if path in first else (name, names[0])
            known = other if path in first else first
            raise UserError(
                f'{has} has the leaf {path!r}, and {lacks} does not.{nearest(path, known)} Only '
                'models of one architecture, with the same arguments, can be averaged.'
            )
        for path, kind in first.items():
            if other[path] != kind:
                raise UserError(
                    f'the leaf {path!r} is {_words(kind)} in {names[0]} and '
                    f'{_words(other[path])} in {name}. Only models of one architecture, with the '
                    'same arguments and classes, can be averaged.'
                )


def _kind(leaf: Any) -> tuple[tuple[int, ...], str]:
    return tuple(np.shape(leaf)), str(np.asarray(leaf).dtype)


def _words(kind: tuple[tuple[int, ...], str]) -> str:
    return f'{kind[1]}{list(kind[0])}'


def _is_one(weights: Any) -> bool:
    return math.isclose(sum(weights), 1.0, rel_tol=1e-9)


def _is_floating(leaf: np.ndarray) -> bool:
    # bfloat16 and float8 are no sub-types of numpy's floating.
    return np.issubdtype(leaf.dtype, np.floating) or leaf.dtype.kind == 'V'
