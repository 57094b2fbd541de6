"""Handwritten digits: scikit-learn's 1797 real 8x8 images as a TFDS set."""

from collections.abc import Iterator

import cv2
import numpy as np
import tensorflow_datasets as tfds

TRAIN = 1197  # the rest, 600, is the test split


class HandwrittenDigits(tfds.core.GeneratorBasedBuilder):
    """Real: 1797 digits written by 13 people (UCI Optical Recognition of Handwritten Digits).

    The images are those in scikit-learn's wheel (`sklearn.datasets.load_digits`); values 0 to 16
    are scaled to 0 to 255. The splits follow the order of the file, train the first 1197 and test
    the last 600, and are not shuffled: the file goes from writer to writer, so this keeps the
    writers of the two splits nearly apart, and a test result tells about new handwriting.
    """

    VERSION = tfds.core.Version('1.0.0')

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
            homepage='https://archive.ics.uci.edu/dataset/80',
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {
            'train': self._generate_examples(slice(0, TRAIN)),
            'test': self._generate_examples(slice(TRAIN, None)),
        }

    def _generate_examples(self, part: slice) -> Iterator[tuple[int, dict]]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)
        for key, (image, label) in enumerate(zip(images[part], digits.target[part], strict=True)):
            encoded = cv2.imencode('.png', image)[1].tobytes()
            yield key, {'image': encoded, 'label': int(label)}
