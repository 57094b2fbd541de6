"""Encoded images to arrays."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import jax
import numpy as np

from tljax.data.forms import AT_ONCE
from tljax.data.own.pictures import plain_picture
from tljax.errors import UserError

CHANNELS = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR_RGB, 4: cv2.IMREAD_UNCHANGED}


@dataclasses.dataclass(frozen=True)
class Form:
    """How an image file becomes an array.

    Attributes:
      shape: (height, width, channels) wanted; channels 1 (grey), 3 (red, green, blue) or 4 (and
        alpha). Colours become grey, and grey is repeated, as needed.
      scale: what is done with an image of another size: 'none' refuses it, 'stretch' scales it to
        exactly that height and width, 'crop' scales its shorter side to `shorter`, keeping the
        aspect ratio, and takes the middle.
      shorter: pixels of the shorter side before the middle is taken.
      interpolation: 'bilinear' or 'bicubic', both over the area of a pixel where images shrink, as
        the pipelines of most pretrained models have it (Pillow's); 'auto' is means over areas
        where images shrink, and bilinear where they grow.
    """

    shape: tuple[int, int, int]
    scale: str = 'none'
    shorter: int = 0
    interpolation: str = 'auto'

    columns: ClassVar[tuple[str, ...]] = ('image',)
    buckets: ClassVar[None] = None
    at_once: ClassVar[int] = AT_ONCE

    @property
    def parts(self) -> dict[str, jax.ShapeDtypeStruct]:
        """What an example has of it: 'image' (height, width, channels) uint8."""
        return {'image': jax.ShapeDtypeStruct(self.shape, np.uint8)}

    def read(self, stored: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The parts of one example, as pictures lie in the file: TFDS turns none upright."""
        return {'image': decode(stored['image'], self, upright=False)}


def decode(encoded: bytes, form: Form, upright: bool) -> np.ndarray:
    """Decodes an image file's bytes.

    Args:
      encoded: PNG, JPEG or another format that OpenCV reads.
      form: of the array that is wanted.
      upright: whether to turn it as its EXIF data says. TFDS and the usual pipelines don't.

    Returns:
      (height, width, channels) uint8.

    Raises:
      ValueError: it is no image, or of another size or number of channels.
    """
    channels = form.shape[2]
    flag = CHANNELS[channels]
    if not upright and channels != 4:
        flag |= cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag) if len(encoded) else None
    if image is None:
        raise ValueError('it is no image of a kind that is read, or it is damaged')
    if channels == 4:
        if image.ndim != 3 or image.shape[2] != 4:
            raise ValueError('it has no alpha channel')
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)
    if image.dtype != np.uint8:
        raise ValueError(f'its values are {image.dtype}, not uint8')
    return fitted(image, form).reshape(form.shape)


def fitted(image: np.ndarray, form: Form) -> np.ndarray:
    """An image, (height, width[, channels]) uint8, at the height and width of a form.

    Raises:
      ValueError: it is of another size, and the form refuses that.

    >>> wide = np.repeat(np.uint8([[0, 10, 20, 30]]), 2, axis=0)
    >>> fitted(wide, Form((2, 2, 1), 'crop', shorter=2)).tolist()
    [[10, 20], [10, 20]]
    """
    height, width, _ = form.shape
    rows, columns = image.shape[:2]
    if form.scale == 'none' and (rows, columns) != (height, width):
        raise ValueError(f'it is {rows}x{columns}, not {height}x{width}')
    if form.scale != 'crop':
        return resized(image, height, width, form.interpolation)
    short = min(rows, columns)
    image = resized(
        image, form.shorter * rows // short, form.shorter * columns // short, form.interpolation
    )
    top, left = (round((image.shape[axis] - form.shape[axis]) / 2) for axis in (0, 1))
    return image[top : top + height, left : left + width]


def resized(image: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """An image scaled to exactly that size; its aspect ratio is not kept."""
    if image.shape[:2] == (height, width):
        return image
    if interpolation == 'auto':
        smaller = height <= image.shape[0] and width <= image.shape[1]
        how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        return cv2.resize(image, (width, height), interpolation=how)
    from PIL import Image

    over_areas = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}
    scaled = Image.fromarray(image).resize((width, height), over_areas[interpolation])
    return np.asarray(scaled)


def load_images(paths: Sequence[str | Path], form: Form, bits: int = 0) -> np.ndarray:
    """Reads image files into the form of a data set's examples, for predictions.

    Photographs are turned upright (EXIF); size and channels are made to fit. Nothing else is: a
    model that learnt white digits on black takes black on white for something new.

    Args:
      paths: image files.
      form: such as `Data.form`; an image of another size is never refused.
      bits: where the model learnt from the user's own images, `config.data.bits`: these are then
        treated as those were; see `tljax.data.own.pictures`. 0 is any other set.

    Returns:
      (len(paths), height, width, channels) uint8.

    Raises:
      UserError: no paths, a file that can't be read, or that is no image; it is named.
    """
    if not paths:
        raise UserError('There are no image files to read.')
    images = []
    for path in paths:
        try:
            images.append(load_image(path, form, bits))
        except ValueError as error:
            raise UserError(f'{path}: {error}.') from None
    return np.stack(images)


def load_image(path: str | Path, form: Form, bits: int = 0) -> np.ndarray:
    """One of them: (height, width, channels) uint8.

    Raises:
      ValueError: why it can't be read; OpenCV itself prints nothing of it.
    """
    if form.scale == 'none':
        form = dataclasses.replace(form, scale='stretch')
    try:
        encoded = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f'cannot be read: {error.strerror}') from None
    try:
        encoded = plain_picture(encoded, bits).encoded if bits else encoded
        with silenced():
            return decode(encoded, form, upright=True)
    except (ValueError, cv2.error) as error:
        alpha = ' with an alpha channel' if form.shape[2] == 4 else ''
        raise ValueError(f'{error}. Give whole PNG or JPEG files{alpha}') from None


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Without what OpenCV prints of a damaged file."""
    log = cv2.utils.logging
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(level)
