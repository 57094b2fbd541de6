"""`config.data.name='folder'`: images or sounds in a folder for each class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from tljax.data.own import prepare
from tljax.data.own.examine import Examined, Opened, content, examine
from tljax.data.own.listing import list_folder
from tljax.data.own.pictures import plain_picture
from tljax.data.own.rows import Ready, Row
from tljax.data.own.sounds import plain_sound
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
    stamp = prepare.stamp_of(
        config, listing.rows, [str(root.resolve()), listing.bad, listing.notes]
    )

    def ready(kept: Path) -> Ready:
        return files_ready(
            config,
            root,
            listing.rows,
            listing.kind,
            kept,
            never=listing.bad,
            ignored=listing.ignored,
            notes=listing.notes,
        )

    return prepare.prepare(config, stamp, ready)


def files_ready(
    config: Any, root: Path, rows: Sequence[Row], kind: str, kept: Path, **more: Any
) -> Ready:
    """Rows whose content is an image or a sound file, every one opened.

    Args:
      config: the section `config.data`.
      root: where the files are.
      rows: that name them.
      kind: 'image' or 'audio'.
      kept: where what was done stays if it is interrupted.
      **more: of `Ready`.

    Raises:
      UserError: sounds of several rates, and no rate was asked for.
    """
    import tensorflow_datasets as tfds

    read = read_sound(config.rate) if kind == 'audio' else read_picture(config.bits)
    quiet = logging.get_verbosity() < logging.INFO
    found = examine(root, rows, read, kept, quiet)
    good = [one for one in found if not one.bad]
    notes = list(more.pop('notes', ()))
    rate = 0
    if kind == 'audio':
        rate = common_rate(config, rows, found)
        features = {'audio': tfds.features.Tensor(shape=(None,), dtype=np.int16)}
    else:
        features = {'image': tfds.features.Image(shape=common_shape(good))}
        notes += deep_notes(good, config.bits)

    def example(index: int) -> dict[str, Any]:
        encoded = content(root, rows[index], found[index], kept)
        return {kind: np.frombuffer(encoded, '<i2') if kind == 'audio' else encoded}

    return Ready(
        rows=rows,
        bad=[one.bad for one in found],
        digests=[one.digest for one in found],
        features=features,
        example=example,
        notes=notes,
        rate=rate,
        **more,
    )


def read_picture(bits: int) -> Any:
    """What `examine` reads images with."""

    def read(encoded: bytes) -> Opened:
        picture = plain_picture(encoded, bits)
        converted = picture.encoded is not encoded
        return Opened(picture.encoded, picture.shape, converted, picture.peak)

    return read


def read_sound(rate: int) -> Any:
    """What `examine` reads sounds with."""

    def read(encoded: bytes) -> Opened:
        samples, found = plain_sound(encoded, rate)
        return Opened(samples.astype('<i2').tobytes(), (len(samples), found), True)

    return read


def common_rate(config: Any, rows: Sequence[Row], found: Sequence[Examined]) -> int:
    """Samples a second of all sounds.

    Raises:
      UserError: they differ; a file of each is named.
    """
    rates: dict[int, str] = {}
    for row, one in zip(rows, found, strict=True):
        if not one.bad:
            rates.setdefault(one.shape[1], row.file)
    if len(rates) > 1:
        told = ', '.join(f'{rate} ({where})' for rate, where in sorted(rates.items()))
        raise UserError(
            f'config.data.dir={config.dir}: sounds have several rates: {told}. Set '
            f'config.data.rate to the one that all are to be brought to, such as {min(rates)}.'
        )
    return next(iter(rates), 0)


def common_shape(found: Sequence[Examined]) -> tuple[int | None, int | None, int]:
    """(height, width, channels): None where images differ; 3 channels where any has colours."""
    heights, widths = ({one.shape[axis] for one in found} for axis in (0, 1))
    return (
        heights.pop() if len(heights) == 1 else None,
        widths.pop() if len(widths) == 1 else None,
        max((one.shape[2] for one in found), default=3),
    )


def deep_notes(found: Sequence[Examined], bits: int) -> list[str]:
    """Whether 16-bit images use the range that `config.data.bits` says."""
    peak = max((one.peak for one in found), default=0)
    needed = max(int(peak).bit_length(), 8)
    if not peak or needed == bits:
        return []
    effect = 'they are dark' if needed < bits else 'brighter ones are cut off'
    return [
        f'the largest value of its 16-bit images is {peak}, and config.data.bits={bits} makes '
        f'{2**bits - 1} white: {effect}. Set config.data.bits={needed} if they have so many.'
    ]
