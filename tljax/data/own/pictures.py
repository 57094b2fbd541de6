"""Images as they come, brought to 8-bit grey or colour PNG or JPEG, upright."""

import dataclasses
import io
from collections.abc import Callable

import numpy as np

from tljax.data.own.rows import BadRow

MOST_PIXELS = 2**27  # of an image; a small file may claim any number of them
QUALITY = 95  # of an image that was JPEG and has to be written again

TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # what EXIF orientations ask for
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: np.swapaxes(pixels, 0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(np.swapaxes(pixels, 0, 1), 2),
    8: np.rot90,
}


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image file's bytes, in a form that every reader here understands.

    Attributes:
      encoded: 8-bit grey or RGB, PNG or JPEG.
      shape: (height, width, channels), channels 1 or 3.
      peak: the largest value of a 16-bit image as it was stored; 0 for others.
    """

    encoded: bytes
    shape: tuple[int, int, int]
    peak: int = 0


def plain_picture(encoded: bytes, bits: int = 16) -> Picture:
    """Checks an image completely, and converts what isn't 8-bit grey or colour, or not upright.

    8-bit grey and colour JPEG and PNG stay as they are, byte for byte. Transparency is put on
    white; palettes, CMYK, BMP, WebP, TIFF and GIF (their first image) become grey or RGB; 16-bit
    values v become 255 v / (2**bits - 1); photographs are turned as their EXIF data says.

    Args:
      encoded: the file's bytes.
      bits: that 16-bit images really use: 12 for most medical scanners.

    Raises:
      BadRow: it is no image, damaged, too large, or of floating-point values.
    """
    from PIL import Image, UnidentifiedImageError

    if not encoded:
        raise BadRow('the file is empty')
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise BadRow(f'it has {width}x{height} pixels, more than {MOST_PIXELS}')
            image.load()
            return _plain(image, encoded, bits)
    except BadRow:
        raise
    except UnidentifiedImageError:
        raise BadRow('it is no image') from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadRow(f'it has more than {MOST_PIXELS} pixels') from None
    except Exception as error:  # Pillow's readers raise anything on damaged files
        raise BadRow(f'it is damaged: {error}') from None


def _plain(image, encoded: bytes, bits: int) -> Picture:
    from PIL import ImageOps

    kind, mode = image.format, image.mode
    if mode == 'F':
        raise BadRow('its values are floating-point numbers')
    if mode.startswith('I') or stored_bits(image, encoded) == 16:
        return _from_deep(encoded, bits, image.getexif().get(0x0112, 1) if kind == 'PNG' else 1)
    turned = image.getexif().get(0x0112, 1) not in (0, 1)
    clear = 'A' in mode or mode == 'P' or 'transparency' in image.info
    if kind in ('JPEG', 'PNG') and mode in ('L', 'RGB') and not turned and not clear:
        return Picture(encoded, (image.height, image.width, 3 if mode == 'RGB' else 1))
    image = ImageOps.exif_transpose(image)
    if clear:
        image = _on_white(image)
    image = image.convert('L' if image.mode in ('1', 'L') else 'RGB')
    buffer = io.BytesIO()
    if kind in ('JPEG', 'MPO'):
        image.save(buffer, 'JPEG', quality=QUALITY, subsampling=0)
    else:
        image.save(buffer, 'PNG', compress_level=3)
    channels = 1 if image.mode == 'L' else 3
    return Picture(buffer.getvalue(), (image.height, image.width, channels))


def stored_bits(image, encoded: bytes) -> int:
    """Bits a channel in the file: Pillow shows 16-bit colours as 8-bit ones."""
    if image.format == 'PNG':
        return encoded[24]
    if image.format == 'TIFF':
        bits = image.tag_v2.get(258, 8)
        return max(bits) if isinstance(bits, tuple) else bits
    return 8


def _on_white(image):
    from PIL import Image

    grey = image.mode in ('LA', 'La')
    layer = image.convert('RGBA')
    white = Image.new('RGBA', layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layer).convert('L' if grey else 'RGB')


def _from_deep(encoded: bytes, bits: int, orientation: int) -> Picture:
    # Of 16-bit files OpenCV turns TIFF by itself, and PNG not.
    import cv2

    values = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        found = 'unreadable' if values is None else values.dtype
        raise BadRow(f'its values are {found}; 8 and 16 bits are known')
    if orientation in TURNS:
        values = TURNS[orientation](values)
    top = 2**bits - 1
    scaled = np.minimum(values.astype(np.float32) * (255 / top), 255)
    if values.ndim == 3 and values.shape[2] == 4:
        alpha = values[..., 3:].astype(np.float32) / 65535
        scaled = scaled[..., :3] * alpha + 255 * (1 - alpha)
    pixels = np.rint(scaled).astype(np.uint8)
    shape = (*pixels.shape[:2], 1 if pixels.ndim == 2 else 3)
    return Picture(cv2.imencode('.png', pixels)[1].tobytes(), shape, int(values.max()))
