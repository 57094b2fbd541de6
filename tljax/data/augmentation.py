"""Random changes to training pictures, on the device: each example by a key of its own."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from tljax.errors import UserError, nearest

Batch = Mapping[str, jax.Array]
MARGIN = 8  # a crop moves by up to an eighth of the side


def flip(image_HxWxC: jax.Array, key: jax.Array) -> jax.Array:
    """Left and right exchanged in half of the cases (Krizhevsky et al. 2012, section 4.1)."""
    return jnp.where(jax.random.bernoulli(key), image_HxWxC[:, ::-1], image_HxWxC)


def crop(image_HxWxC: jax.Array, key: jax.Array) -> jax.Array:
    """A window of the same size, moved over the picture with a margin of zeros around it.

    As He et al. 2016, section 4.2, whose margin of 4 is an eighth of their 32 pixels.
    """
    height, width, channels = image_HxWxC.shape
    down, across = height // MARGIN, width // MARGIN
    wide = jnp.pad(image_HxWxC, ((down, down), (across, across), (0, 0)))
    start = jax.random.randint(key, (2,), 0, jnp.array([2 * down + 1, 2 * across + 1]))
    return jax.lax.dynamic_slice(wide, (start[0], start[1], 0), (height, width, channels))


AUGMENTATIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {'crop': crop, 'flip': flip}


def check(names: Sequence[str], example: Mapping[str, jax.ShapeDtypeStruct]) -> None:
    """Raises UserError for a name that there isn't, or examples that are no pictures."""
    for name in names:
        if name not in AUGMENTATIONS:
            raise UserError(f'config.data.augment: no {name!r}.{nearest(str(name), AUGMENTATIONS)}')
    if names and len(example['image'].shape if 'image' in example else ()) != 3:
        raise UserError(
            f'config.data.augment is {tuple(names)}, which is for pictures; the examples have '
            f'{sorted(example)}. Leave the key out.'
        )


def augment(batch: Batch, names: Sequence[str], key: jax.Array, seed: int) -> Batch:
    """The batch with its pictures changed, the names' changes one after another.

    Args:
      batch: 'image' (B, H, W, C); with 'row' and 'view' (B,) int32 the change of an example
        depends on these and the seed alone, and so is the same whenever they are.
      names: of AUGMENTATIONS; none changes nothing.
      key: for batches without views.
      seed: for those with.

    >>> batch = {'image': jnp.arange(8.0).reshape(2, 2, 2, 1)}
    >>> augment(batch, ('flip',), jax.random.key(3), 0)['image'].shape
    (2, 2, 2, 1)
    """
    if not names:
        return batch
    image_BxHxWxC = batch['image']
    if 'view' in batch:
        base = jax.random.key(seed)
        fold = jax.vmap(lambda row, view: jax.random.fold_in(jax.random.fold_in(base, row), view))
        keys_B = fold(batch['row'], batch['view'])
    else:
        keys_B = jax.random.split(jax.random.fold_in(key, 1), len(image_BxHxWxC))
    for number, name in enumerate(names):
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys_B, number)
        image_BxHxWxC = jax.vmap(AUGMENTATIONS[name])(image_BxHxWxC, keys)
    return {**batch, 'image': image_BxHxWxC}
