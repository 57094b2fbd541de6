"""TFDS sets whose features have other names: texts and images found by name."""

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from tljax import config as config_lib
from tljax.data import open_data, prepared
from tljax.errors import UserError


class Reviews(tfds.core.GeneratorBasedBuilder):
    """40 rows of a sentence, a picture of one colour, a sentiment; test has no labels."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    'sentence': tfds.features.Text(),
                    'photo': tfds.features.Image(shape=(None, None, 3), encoding_format='png'),
                    'sentiment': tfds.features.ClassLabel(names=['bad', 'good']),
                    'author': tfds.features.Text(),
                    'stars': np.int32,
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples(40), 'test': self._generate_examples(4, True)}

    def _generate_examples(self, count, secret=False):
        for i in range(count):
            pixels = np.full((4, 4, 3), 3 * i + 1 + 126 * secret, np.uint8)
            yield (
                i,
                {
                    'sentence': f'sentence {i} {secret}',
                    'photo': cv2.imencode('.png', pixels)[1].tobytes(),
                    'sentiment': -1 if secret else i % 2,
                    'author': f'author {i // 4}',
                    'stars': i % 2 + 3,
                },
            )


@pytest.fixture(scope='module')
def reviews_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp('reviews')
    Reviews(data_dir=str(directory), file_format='array_record').download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    return str(directory)


@pytest.fixture
def configure_reviews(reviews_dir, tmp_path):
    def make(**changes):
        config = config_lib.default().data
        config.update(name='tfds:reviews', dir=reviews_dir, prepared=str(tmp_path / 'prepared'))
        config.update(changes)
        return config

    return make


def test_texts_by_name(configure_reviews):
    builder = prepared.open_set(configure_reviews(text='sentence', label='sentiment'))
    account = prepared.account_of(builder)
    assert builder.info.features['label'].names == ['bad', 'good']
    assert account['bad']['reasons'] == {'no label': 4}
    assert account['bad']['rows'][0] == ['test[0]', 'no label']
    assert {n: s.num_examples for n, s in builder.info.splits.items()} == {'train': 32, 'test': 8}
    for example in builder.as_data_source('test'):
        assert int(example['text'].split()[1]) % 2 == example['label']


def test_images_by_name_and_groups(configure_reviews):
    config = configure_reviews(image='photo', label='stars', group='author')
    data = open_data(config, 0)
    assert data.label_names == ('3', '4')
    held = []
    for split in data.splits.values():
        rows = [(int(picture.flat[0]) - 1) // 3 for picture in split.arrays()['image']]
        np.testing.assert_array_equal(split.labels(), np.array(rows) % 2)
        held.append({row // 4 for row in rows if row < 40})
    assert not held[0] & held[1]
    assert not held[0] & held[2]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(text='sentense', label='sentiment'), "Did you mean 'sentence'"),
        (dict(text='photo', label='sentiment'), 'is Image, not Text'),
        (dict(text='sentence'), r'data\.label; text is set'),
        (dict(label='sentiment'), 'label is set'),
    ],
)
def test_features_that_do_not_fit(configure_reviews, changes, message):
    with pytest.raises(UserError, match=message):
        prepared.open_set(configure_reviews(**changes))
