"""Encoded images to arrays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tljax.errors import UserError

CHANNELS = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR_RGB, 4: cv2.IMREAD_UNCHANGED}


def decode(encoded: bytes, shape: tuple[int, int, int], resize: bool, upright: bool) -> np.ndarray:
    """Decodes an image file's bytes.

    Args:
      encoded: PNG, JPEG or another format that OpenCV reads.
      shape: (height, width, channels) wanted; channels 1 (grey), 3 (red, green, blue) or 4 (and
        alpha). Colours become grey, and grey is repeated, as needed.
      resize: whether an image of another height or width is scaled (to exactly that size; its
        aspect ratio is not kept) or refused.
      upright: whether to turn it as its EXIF data says. TFDS and the usual pipelines don't.

    Returns:
      (height, width, channels) uint8.

    Raises:
      ValueError: it is no image, or of another size or number of channels.
    """
    height, width, channels = shape
    flag = CHANNELS[channels]
    if not upright and channels != 4:
        flag |= cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag) if len(encoded) else None
    if image is None:
        raise ValueError('it is no image that OpenCV reads')
    if channels == 4:
        if image.ndim != 3 or image.shape[2] != 4:
            raise ValueError('it has no alpha channel')
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)
    if image.dtype != np.uint8:
        raise ValueError(f'its values are {image.dtype}, not uint8')
    if image.shape[:2] != (height, width):
        if not resize:
            raise ValueError(f'it is {image.shape[0]}x{image.shape[1]}, not {height}x{width}')
        smaller = height <= image.shape[0] and width <= image.shape[1]
        how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        image = cv2.resize(image, (width, height), interpolation=how)
    return image.reshape(shape)


def load_images(paths: Sequence[str | Path], example: Any) -> np.ndarray:
    """Reads image files into the form of a data set's examples, for predictions.

    Photographs are turned upright (EXIF); size and channels are made to fit. Nothing else is: a
    model that learnt white digits on black takes black on white for something new.

    Args:
      paths: image files.
      example: with `.shape` (height, width, channels), such as `Data.example['image']`.

    Returns:
      (len(paths), height, width, channels) uint8.

    Raises:
      UserError: no paths, a file that can't be read, or that is no image; it is named.
    """
    shape = tuple(example.shape)
    if not paths:
        raise UserError('There are no image files to read.')
    images = []
    for path in paths:
        try:
            encoded = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f'{path}: cannot be read: {error.strerror}.') from None
        try:
            images.append(decode(encoded, shape, resize=True, upright=True))
        except ValueError as error:
            raise UserError(
                f'{path}: {error}. Give PNG or JPEG files'
                f'{" with an alpha channel" if shape[2] == 4 else ""}.'
            ) from None
    return np.stack(images)
