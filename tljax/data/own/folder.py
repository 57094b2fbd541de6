"""`config.data.name='folder'`: images in a folder for each class."""

from pathlib import Path
from typing import Any

from absl import logging

from tljax.data.own import prepare
from tljax.data.own.examine import Examined, Opened, content, examine
from tljax.data.own.listing import list_folder
from tljax.data.own.pictures import plain_picture
from tljax.data.own.rows import Listing
from tljax.errors import UserError


def open_folder(config: Any) -> Any:
    """The TFDS builder of a folder of the user's, prepared on the first call.

    Args:
      config: the section `config.data`.

    Raises:
      UserError: as for `list_folder` and `prepare.prepare`.
    """
    root = Path(config.dir).expanduser()
    listing = list_folder(root, config.group)
    if listing.kind != 'image':
        raise UserError(f'config.data.dir={config.dir} holds sounds, which are not supported yet.')
    stamp = prepare.stamp_of(config, listing.rows, [str(root.resolve()), listing.bad])

    def ready(kept: Path) -> prepare.Ready:
        return pictures_ready(config, root, listing, kept)

    return prepare.prepare(config, stamp, ready, listing.bad, listing.ignored)


def pictures_ready(config: Any, root: Path, listing: Listing, kept: Path) -> prepare.Ready:
    """The images of a folder, every one opened."""
    import tensorflow_datasets as tfds

    bits = config.bits

    def read(encoded: bytes) -> Opened:
        picture = plain_picture(encoded, bits)
        converted = picture.encoded is not encoded
        return Opened(picture.encoded, picture.shape, converted, picture.peak)

    quiet = logging.get_verbosity() < logging.INFO
    found = examine(root, listing.rows, read, kept, quiet)
    good = [one for one in found if not one.bad]
    return prepare.Ready(
        rows=listing.rows,
        bad=[one.bad for one in found],
        digests=[one.digest for one in found],
        features={'image': tfds.features.Image(shape=common_shape(good))},
        example=lambda index: {'image': content(root, listing.rows[index], found[index], kept)},
        notes=deep_notes(good, bits),
    )


def common_shape(found: list[Examined]) -> tuple[int | None, int | None, int]:
    """(height, width, channels): None where images differ; 3 channels where any has colours."""
    heights, widths = ({one.shape[axis] for one in found} for axis in (0, 1))
    return (
        heights.pop() if len(heights) == 1 else None,
        widths.pop() if len(widths) == 1 else None,
        max((one.shape[2] for one in found), default=3),
    )


def deep_notes(found: list[Examined], bits: int) -> list[str]:
    """Whether 16-bit images use the range that `config.data.bits` says."""
    peak = max((one.peak for one in found), default=0)
    if not peak:
        return []
    needed = max(int(peak).bit_length(), 8)
    if needed == bits:
        return []
    effect = 'they are dark' if needed < bits else 'brighter ones are cut off'
    return [
        f'the largest value of its 16-bit images is {peak}, and config.data.bits={bits} makes '
        f'{2**bits - 1} white: {effect}. Set config.data.bits={needed} if '
        'they have so many.'
    ]
