"""Printed digits: synthetic 8x8 images, rendered from fonts; the digits' plentiful source."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tensorflow_datasets as tfds

SEED = 20
SPLITS = {'train': 10_000, 'test': 2_000}
FONTS = tuple(
    f'{family}{style}.ttf'
    for family, styles in {
        'DejaVuSans': ('', '-Bold', '-Oblique', '-BoldOblique'),
        'DejaVuSansMono': ('', '-Bold', '-Oblique', '-BoldOblique'),
        'DejaVuSerif': ('', '-Bold', '-Italic', '-BoldItalic'),
        'STIXGeneral': ('', 'Bol', 'Italic', 'BolIta'),
    }.items()
    for style in styles
)
CANVAS = 128  # pixels a side; the digit is drawn about this high before it is scaled down
BITMAP = 32  # the side of NIST's normalised bitmaps
WIDEST = 24  # of those 32 columns: handwritten_digits leaves its outer columns empty


class PrintedDigits(tfds.core.GeneratorBasedBuilder):
    """Synthetic: the digits of 16 fonts (DejaVu, STIX), rotated, sheared, stretched, blurred.

    Nothing in it was ever on paper. Images are brought to the form of `handwritten_digits`: a
    32x32 bitmap fitted to the digit's bounding box, then the number of black pixels in each 4x4
    block (0 to 16), times 255/16. Labels are balanced. Everything comes from one seed.
    """

    VERSION = tfds.core.Version('1.0.0')
    SYNTHETIC = 'printed digits rendered from fonts (DejaVu, STIX) and distorted at random.'

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=self.__doc__,
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(8, 8, 1), encoding_format='png'),
                    'label': tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
            supervised_keys=('image', 'label'),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        images, labels = render(SPLITS[split], seed=(SEED, list(SPLITS).index(split)))
        for key, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield key, {'image': png(image), 'label': int(label)}


def png(image: np.ndarray) -> bytes:
    """The bytes of a (height, width, 1) uint8 image as PNG."""
    return cv2.imencode('.png', image)[1].tobytes()


def render(count: int, seed: int | tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Renders printed digits.

    Args:
      count: how many; labels run 0, 1, ..., 9, 0, ...
      seed: of everything random; the same seed gives the same pixels.

    Returns:
      Images (count, 8, 8, 1) uint8, white on black, and labels (count,) int32.

    >>> images, labels = render(3, seed=0)
    >>> images.shape, labels.tolist()
    ((3, 8, 8, 1), [0, 1, 2])
    """
    outlines = [[outline(font, digit) for digit in range(10)] for font in FONTS]
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % 10
    fonts = rng.integers(len(FONTS), size=count)
    images = np.stack([_distorted(outlines[f][d], rng) for f, d in zip(fonts, labels, strict=True)])
    return images[..., None], labels


def outline(font: str, digit: int) -> list[np.ndarray]:
    """A digit's closed contours, each (points, 2) float64, y down, height 1, centred on 0."""
    import matplotlib
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    file = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / font
    path = TextPath((0, 0), str(digit), size=100, prop=FontProperties(fname=str(file)))
    contours = path.to_polygons(closed_only=True)
    points = np.concatenate(contours)
    low, high = points.min(0), points.max(0)
    return [(c - (low + high) / 2) / (high[1] - low[1]) * [1, -1] for c in contours]


def _distorted(contours: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """One digit at random, (8, 8) uint8."""
    angle = np.deg2rad(rng.normal(0, 8))
    shear = rng.normal(0, 0.2)
    width = np.exp(rng.normal(0, 0.15))
    pen = int(rng.integers(1, 5))
    blur = rng.uniform(1, 3)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return draw(contours, turn @ [[width, shear], [0, 1]], pen, blur)


def draw(
    contours: list[np.ndarray], matrix: np.ndarray, pen: int = 1, blur: float = 1.0
) -> np.ndarray:
    """Draws a digit.

    Args:
      contours: of `outline`.
      matrix: (2, 2), how its points are moved.
      pen: how thick its outline is drawn, in pixels of the canvas: larger is bolder.
      blur: standard deviation in pixels of the canvas; it rounds corners.

    Returns:
      (8, 8) uint8.
    """
    # fillPoly takes fixed-point coordinates: 4 fractional bits.
    points = [0.6 * CANVAS * c @ matrix.T + CANVAS / 2 for c in contours]
    polygons = [np.rint(p * 16).astype(np.int32) for p in points]
    canvas = np.zeros((CANVAS, CANVAS), np.uint8)
    cv2.fillPoly(canvas, polygons, 255, shift=4)  # even-odd: inner contours are holes
    cv2.polylines(canvas, polygons, True, 255, thickness=pen, shift=4)
    blurred = cv2.GaussianBlur(canvas, (0, 0), blur)
    return _normalise((blurred > 100).astype(np.uint8) * 255)


def _normalise(canvas: np.ndarray) -> np.ndarray:
    """Fits the bounding box into 32x32, as high as it goes, and counts pixels in 4x4 blocks.

    Alpaydin and Kaynak 1998, Cascading classifiers, section 4.1: the form of the UCI digits.
    """
    x, y, width, height = cv2.boundingRect(canvas)
    columns = min(WIDEST, max(1, round(width * BITMAP / height)))
    digit = cv2.resize(
        canvas[y : y + height, x : x + width], (columns, BITMAP), interpolation=cv2.INTER_AREA
    )
    bitmap = np.zeros((BITMAP, BITMAP), bool)
    left = (BITMAP - columns) // 2
    bitmap[:, left : left + columns] = digit > 127
    counts = bitmap.reshape(8, 4, 8, 4).sum((1, 3))
    return np.round(counts * (255 / 16)).astype(np.uint8)
