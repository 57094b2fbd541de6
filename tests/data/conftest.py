"""Sets prepared once a session, in a folder that pytest owns; no test needs a network."""

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from tljax import config as config_lib
from tljax.data import prepared


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
    """A TFDS folder with our sets of digits."""
    directory = tmp_path_factory.mktemp('tfds')
    for name in ('handwritten_digits', 'printed_digits'):
        prepared.open_builder(name, str(directory))
    return str(directory)


@pytest.fixture
def configure(data_dir):
    """configure(name, key=value, ...) -> a config's data section that finds the prepared sets."""

    def make(name='handwritten_digits', **changes):
        config = config_lib.default().data
        config.name, config.dir = name, data_dir
        config.update(changes)
        return config

    return make


class Pets(tfds.core.GeneratorBasedBuilder):
    """30 + 9 colour images of several sizes in 3 classes, with masks, as photographs come.

    Image i is filled with the colour (i, 2 i, 3 i), as PNG, so that a pixel tells the row. Test
    has no labels, as in competitions.
    """

    VERSION = tfds.core.Version('1.2.0')

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(None, None, 3), encoding_format='png'),
                    'mask': tfds.features.Image(shape=(None, None, 1), encoding_format='png'),
                    'label': tfds.features.ClassLabel(names=['cat', 'dog', 'cow']),
                    'note': tfds.features.Text(),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {
            'train': self._generate_examples(30, True),
            'extra': self._generate_examples(9, True),
            'test': self._generate_examples(6, False),
        }

    def _generate_examples(self, count, labelled):
        for i in range(count):
            colour = np.array([i, 2 * i, 3 * i], np.uint8)
            picture = np.broadcast_to(colour, (5 + i % 3, 7, 3))
            yield (
                i,
                {
                    'image': cv2.imencode('.png', picture[..., ::-1])[1].tobytes(),
                    'mask': b'not even an image: nobody asked for it',
                    'label': i % 3 if labelled else -1,
                    'note': f'picture {i}',
                },
            )


def prepare(cls, directory, **options):
    builder = cls(data_dir=str(directory), file_format=options.pop('form', 'array_record'))
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False, **options)
    )
    return builder


@pytest.fixture(scope='session')
def pets_dir(tmp_path_factory):
    """A TFDS folder with `pets`, in two shards a split."""
    directory = tmp_path_factory.mktemp('pets')
    prepare(Pets, directory, num_shards=2)
    return str(directory)
