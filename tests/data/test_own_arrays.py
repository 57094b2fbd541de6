"""Arrays of the user's own: .npz, .npy, and those handed over in a notebook."""

import numpy as np
import pytest

from tljax import config as config_lib
from tljax.data import open_data, prepared
from tljax.data.own.arrays import save_arrays
from tljax.errors import RunError, UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (30, 6, 5, 3)).astype(np.uint8)
LABELS = np.arange(30) % 3


@pytest.fixture
def configure_arrays(tmp_path):
    def make(path, **changes):
        config = config_lib.default().data
        config.update(name='arrays', dir=str(path), prepared=str(tmp_path / 'prepared'))
        config.update(changes)
        return config

    return make


def rows_of(data, split):
    """Numbers of a split's rows in their array."""
    builder = data.split(split).records.builder
    return [int(e['where'].decode().split('[')[1][:-1]) for e in builder.as_data_source(split)]


def save(tmp_path, form, image, label):
    if form == 'npz':
        np.savez(tmp_path / 'mine.npz', x=image, y=label)
        return tmp_path / 'mine.npz'
    np.save(tmp_path / 'images.npy', image)
    np.save(tmp_path / 'labels.npy', label)
    return tmp_path if form == 'folder' else tmp_path / 'images.npy'


@pytest.mark.parametrize('form', ['npz', 'npy', 'folder'])
def test_images_and_labels(tmp_path, configure_arrays, form):
    data = open_data(configure_arrays(save(tmp_path, form, IMAGES, LABELS)), 0)
    assert data.label_names == ('0', '1', '2')
    assert data.example['image'].shape == (6, 5, 3)
    test = data.split('test')
    rows = rows_of(data, 'test')
    np.testing.assert_array_equal(test.arrays()['image'], IMAGES[rows])
    np.testing.assert_array_equal(test.labels(), LABELS[rows])
    assert np.bincount(test.labels()).tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (lambda x: x / np.float32(255), IMAGES),
        (lambda x: x.astype(np.int64), IMAGES),
        (lambda x: x.astype(np.float32), IMAGES),
        (lambda x: x.astype(np.uint16) * 257, IMAGES),
        (lambda x: np.moveaxis(x, 3, 1), IMAGES),
        (lambda x: x > 127, (IMAGES > 127) * 255),
        (lambda x: x[..., 0], IMAGES[..., :1]),
        (lambda x: np.concatenate([x, np.full((30, 6, 5, 1), 255, np.uint8)], 3), IMAGES),
        (lambda x: np.concatenate([x, np.zeros((30, 6, 5, 1), np.uint8)], 3), None),
    ],
)
def test_kinds_of_values(tmp_path, configure_arrays, change, expected):
    path = save(tmp_path, 'npz', change(IMAGES), LABELS)
    if expected is None:  # wholly transparent: all the same
        expected = np.full_like(IMAGES, 255)
    data = open_data(configure_arrays(path), 0)
    images = data.split('test').arrays()['image']
    np.testing.assert_array_equal(images, expected[rows_of(data, 'test')])


def test_arrays_for_each_split(tmp_path, configure_arrays):
    np.savez(
        tmp_path / 'mine.npz',
        x_train=IMAGES[:20],
        y_train=LABELS[:20],
        x_test=IMAGES[20:],
        y_test=LABELS[20:],
    )
    data = open_data(configure_arrays(tmp_path / 'mine.npz', image='x', label='y'), 0)
    assert rows_of(data, 'test') == list(range(10))
    np.testing.assert_array_equal(data.split('test').arrays()['image'], IMAGES[20:])


def test_texts_and_groups(tmp_path, configure_arrays):
    texts = np.array([f'text {i}' for i in range(40)])
    groups = np.arange(40) // 4
    np.savez(tmp_path / 'a.npz', text=texts, label=np.arange(40) % 2, who=groups)
    builder = prepared.open_set(configure_arrays(tmp_path / 'a.npz', group='who'))
    who = [
        {int(e['text'].split()[1]) // 4 for e in builder.as_data_source(split)}
        for split in ('train', 'validation', 'test')
    ]
    assert sum(map(len, who)) == len(set.union(*who)) == 10


def test_bad_rows(tmp_path, configure_arrays):
    images = IMAGES / 255.0
    images[4, 0, 0, 0] = np.nan
    images[7] = images[9]
    images[10] = images[12]
    labels = LABELS.astype(str)
    labels[7] = labels[9]
    labels[20] = ''
    data = open_data(configure_arrays(save(tmp_path, 'npz', images, labels)), 0)
    assert dict(data.account['bad']['rows']) == {
        'mine.npz:x[4]': 'it has values that are not finite',
        'mine.npz:x[20]': 'no label',
        'mine.npz:x[9]': 'the same as: mine.npz:x[7]',
        'mine.npz:x[10]': 'the same under another label: mine.npz:x[12] (0)',
        'mine.npz:x[12]': 'the same under another label: mine.npz:x[10] (1)',
    }


@pytest.mark.parametrize(
    ('arrays', 'changes', 'message'),
    [
        (dict(x=IMAGES), {}, r'config\.data\.label: name the array'),
        (dict(y=LABELS, z=IMAGES), {}, 'name the array of what is to be classified'),
        (dict(x=IMAGES, y=LABELS), dict(image='xx'), "no array 'xx'"),
        (dict(x=IMAGES, y=LABELS[:9]), {}, 'one label for each'),
        (dict(x=IMAGES, y=np.eye(30)), {}, 'one label for each'),
        (dict(x=IMAGES.astype(np.float32) - 100, y=LABELS), {}, 'Scale them'),
        (dict(x=np.zeros((30, 7)), y=LABELS), {}, 'if its rows are sounds'),
        (dict(x=np.zeros((30, 7, 7, 7)), y=LABELS), {}, '3 or 4 channels'),
        (dict(x=np.zeros(30), y=LABELS), {}, 'neither images'),
        (dict(x=np.array([{}] * 30), y=LABELS), {}, 'Python objects'),
        (dict(x=IMAGES, y=RNG.normal(size=30)), {}, 'these are no classes'),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, configure_arrays, arrays, changes, message):
    np.savez(tmp_path / 'a.npz', **arrays)
    with pytest.raises(UserError, match=message):
        open_data(configure_arrays(tmp_path / 'a.npz', **changes), 0)


def test_files_that_are_no_arrays(tmp_path, configure_arrays):
    with pytest.raises(UserError, match='there are no arrays'):
        open_data(configure_arrays(tmp_path / 'a.npz'), 0)
    (tmp_path / 'a.npz').write_text('no')
    with pytest.raises(RunError, match='damaged'):
        open_data(configure_arrays(tmp_path / 'a.npz'), 0)


def test_handed_over_in_a_notebook(tmp_path, configure_arrays):
    images = [*IMAGES]
    images[3] = images[3][:4]
    path = save_arrays(tmp_path / 'mine', image=images, label=[int(label) for label in LABELS])
    data = open_data(configure_arrays(path), 0)
    assert data.account['bad']['rows'] == [
        ['mine.npz:image[3]', 'ragged: its shape is (4, 5, 3), not (6, 5, 3)']
    ]
    left = np.delete(IMAGES, 3, axis=0)
    rows = rows_of(data, 'test')
    np.testing.assert_array_equal(data.split('test').arrays()['image'], left[rows])
    np.testing.assert_array_equal(data.split('test').labels(), np.delete(LABELS, 3)[rows])
    with pytest.raises(UserError, match='30 rows'):
        save_arrays(tmp_path / 'other', image=IMAGES, label=[1, 2])


def test_sounds_of_several_lengths(tmp_path, configure_arrays):
    sounds = [np.sin(np.arange(50 + i) * (i + 1) / 9) * 0.5 for i in range(20)]
    path = save_arrays(tmp_path / 'a', audio=sounds, label=np.arange(20) % 2)
    builder = prepared.open_set(configure_arrays(path, audio='audio', rate=8000))
    assert prepared.account_of(builder)['rate'] == 8000
    for example in builder.as_data_source('test'):
        row = int(example['where'].decode().split('[')[1][:-1])
        np.testing.assert_allclose(example['audio'] / 32768, sounds[row], atol=2e-5)


def test_a_group_that_no_array_holds(tmp_path, configure_arrays):
    np.savez(tmp_path / 'a.npz', image=IMAGES, label=LABELS, patient=np.arange(30) // 3)
    with pytest.raises(UserError, match=r"config\.data\.group: .*no array 'patiant'.*'patient'"):
        open_data(configure_arrays(tmp_path / 'a.npz', group='patiant'), 0)


def test_a_group_that_one_split_lacks(tmp_path, configure_arrays):
    np.savez(
        tmp_path / 'a.npz',
        **dict(x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:, ::-1], y_test=LABELS),
        who_train=np.arange(30) // 3,
    )
    with pytest.raises(UserError, match=r"config\.data\.group: .*no array 'who' for test"):
        open_data(configure_arrays(tmp_path / 'a.npz', group='who'), 0)


def test_splits_that_would_be_scaled_otherwise(tmp_path, configure_arrays):
    x = IMAGES / np.float32(255)
    np.savez(tmp_path / 'a.npz', x_train=x, y_train=LABELS, x_test=2.5 * x[::-1], y_test=LABELS)
    with pytest.raises(UserError, match=r'x_train.*by 255.*x_test.*by 1'):
        open_data(configure_arrays(tmp_path / 'a.npz'), 0)
    np.savez(tmp_path / 'b.npz', x_train=IMAGES, y_train=LABELS, x_test=x[::-1], y_test=LABELS)
    data = open_data(configure_arrays(tmp_path / 'b.npz'), 0)  # of another dtype it is no guess
    assert data.split('test').arrays()['image'].max() > 200


def test_values_that_are_neither_0_to_1_nor_0_to_255(tmp_path, configure_arrays):
    np.savez(tmp_path / 'a.npz', x=IMAGES * np.float32(1.02 / 255), y=LABELS)
    with pytest.raises(UserError, match=r'run from 0 to 1\.02'):
        open_data(configure_arrays(tmp_path / 'a.npz'), 0)
    np.savez(tmp_path / 'b.npz', x=IMAGES // 16, y=LABELS)
    data = open_data(configure_arrays(tmp_path / 'b.npz'), 0)
    assert any('15 of 255' in note for note in data.account['notes'])


def test_texts_of_bytes_that_are_no_utf_8(tmp_path, configure_arrays):
    texts = np.array([f'café {i}'.encode('latin-1') for i in range(30)])
    np.savez(tmp_path / 'a.npz', text=texts, label=LABELS)
    with pytest.raises(UserError, match=r"'text'.*no UTF-8"):
        open_data(configure_arrays(tmp_path / 'a.npz'), 0)
