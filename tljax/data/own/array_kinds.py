"""What the rows of an array are: images, texts or sounds, and how each is stored."""

import dataclasses
from typing import Any

import numpy as np

from tljax.data.own.pictures import plain_picture
from tljax.data.own.rows import BadRow
from tljax.data.own.sounds import to_samples
from tljax.errors import UserError

DARK = 64  # of 255: a set whose largest value is below it was probably not scaled


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
    """The rows of one array.

    Attributes:
      name: 'image', 'text' or 'audio'.
      values: the array.
      features: what the examples are like: shape of images, rate of sounds.
      notes: what was done with the values.
      scale: that images are multiplied by.
      rate: of sounds, samples a second.
      ends: of sounds that lie behind each other, where each ends.
    """

    name: str
    values: np.ndarray
    features: tuple[Any, ...]
    notes: tuple[str, ...] = ()
    scale: float = 1.0
    rate: int = 0
    ends: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values if self.ends is None else self.ends)

    def at(self, index: int) -> np.ndarray:
        """The values of a row."""
        if self.ends is None:
            return self.values[index]
        return self.values[self.ends[index - 1] if index else 0 : self.ends[index]]

    def raw(self, index: int) -> bytes:
        """What tells a row's content.

        Raises:
          BadRow: it has values that are not finite, or is empty.
        """
        value = self.at(index)
        if self.name == 'text':
            if not str(value).strip():
                raise BadRow('empty text')
            return str(value).encode()
        if value.dtype.kind == 'f' and not np.isfinite(value).all():
            raise BadRow('it has values that are not finite')
        if not value.size:
            raise BadRow('it is empty')
        return np.ascontiguousarray(value).tobytes()

    def example(self, index: int) -> dict[str, Any]:
        """A row as it is stored."""
        value = self.at(index)
        if self.name == 'text':
            return {'text': str(value)}
        if self.name == 'audio':
            floats = value.astype(np.float32)
            if value.dtype.kind == 'i':
                floats /= 2 ** (8 * value.dtype.itemsize - 1)
            return {'audio': to_samples(floats, self.rate, 0)[0]}
        pixels = np.clip(np.rint(value.astype(np.float32) * self.scale), 0, 255).astype(np.uint8)
        return {'image': plain_picture(as_png(pixels)).encoded}

    def tfds_features(self) -> dict[str, Any]:
        import tensorflow_datasets as tfds

        if self.name == 'text':
            return {'text': tfds.features.Text()}
        if self.name == 'audio':
            return {'audio': tfds.features.Tensor(shape=(None,), dtype=np.int16)}
        return {'image': tfds.features.Image(shape=self.features)}


def as_png(pixels: np.ndarray) -> bytes:
    """(height, width[, channels]) uint8 with 1, 3 or 4 channels as PNG."""
    import cv2

    if pixels.ndim == 3 and pixels.shape[2] > 1:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return cv2.imencode('.png', np.ascontiguousarray(pixels))[1].tobytes()


def kind_of(config: Any, name: str, values: np.ndarray, lengths: np.ndarray | None) -> Kind:
    """What an array holds, by its dtype and shape and what the config says.

    Args:
      config: the section `config.data`.
      name: of the array.
      values: (rows, height, width[, channels]) of images, (rows,) of texts, (rows, samples) of
        sounds.
      lengths: of sounds, where `values` has them behind each other.

    Raises:
      UserError: it can be none of these.
    """
    if values.dtype.kind in 'US' and values.ndim == 1:
        if values.dtype.kind == 'S':
            values = decoded(name, values)
        return Kind('text', values, ())
    if values.dtype.kind not in 'biuf':
        raise UserError(f'config.data.dir: the array {name!r} is {values.dtype}, not numbers.')
    if values.ndim in (3, 4) and not config.audio:
        return image_kind(config, name, values)
    if values.ndim == 2 or lengths is not None:
        if not config.audio or not config.rate:
            raise UserError(
                f'config.data.dir: the array {name!r} has the shape {values.shape}: if its rows '
                'are sounds, name it in config.data.audio, with their samples a second in '
                'config.data.rate. Images need (rows, height, width) or one dimension more.'
            )
        ends = None if lengths is None else np.cumsum(lengths)
        return Kind('audio', values, (config.rate,), rate=config.rate, ends=ends)
    raise UserError(
        f'config.data.dir: the array {name!r} has the shape {values.shape} and dtype '
        f'{values.dtype}: it is neither images, texts nor sounds.'
    )


def decoded(name: str, values: np.ndarray) -> np.ndarray:
    """Texts that are bytes, as str."""
    try:
        return np.char.decode(values, 'utf-8')
    except UnicodeDecodeError as error:
        raise UserError(
            f'config.data.dir: the texts of {name!r} are bytes that are no UTF-8 ({error}). Decode '
            'them, such as by numpy.char.decode(texts, ENCODING).'
        ) from None


def image_kind(config: Any, name: str, values: np.ndarray) -> Kind:
    """Images: (rows, height, width[, channels]); channels may be first."""
    notes: tuple[str, ...] = ()
    channels = (1, 3, 4)
    if values.ndim == 4 and values.shape[3] not in channels:
        if values.shape[1] not in channels:
            raise UserError(
                f'config.data.dir: the array {name!r} has the shape {values.shape}: images have 1, '
                '3 or 4 channels, in the last place.'
            )
        values = np.moveaxis(values, 1, 3)
        notes = (f'the channels of {name} were moved from the second place to the last.',)
    scale, note = scale_of(config, name, values)
    stored = 3 if values.ndim == 4 and values.shape[3] > 1 else 1
    shape = (*values.shape[1:3], stored)
    return Kind('image', values, shape, (*notes, *note), scale)


def scale_of(config: Any, name: str, values: np.ndarray) -> tuple[float, tuple[str, ...]]:
    """What brings the values to 0..255, and a note where that is more than a matter of form.

    Raises:
      UserError: values that are no brightness as they stand.
    """
    if values.dtype == bool:
        return 255.0, ()
    low, high = np.inf, -np.inf
    for row in values:
        finite = row[np.isfinite(row)] if row.dtype.kind == 'f' else row
        if finite.size:
            low, high = min(low, finite.min()), max(high, finite.max())
    # What has overshot 1 a little is no brightness of 255.
    if low >= 0 and high <= 255 and (values.dtype.kind in 'iu' or high >= 2):
        dark = f'the largest value of {name} is {high:g} of 255: its images are dark. Scale them.'
        return 1.0, (dark,) if high < DARK else ()
    if low >= 0 and high <= 1:
        return 255.0, (f'the values of {name}, from 0 to 1, were multiplied by 255.',)
    if values.dtype == np.uint16:
        top = 2**config.bits - 1
        return 255 / top, (f'of the 16-bit values of {name}, {top} is white (config.data.bits).',)
    raise UserError(
        f'config.data.dir: the values of {name!r} ({values.dtype}) run from {low:g} to {high:g}; '
        'images need 0 to 255, or 0 to 1. Scale them.'
    )
