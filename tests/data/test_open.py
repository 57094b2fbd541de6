"""`open_data`: which examples are train, validation and test, and in which form."""

import json

import numpy as np
import pytest

from tljax.data import open_data


def rows(record):
    """(base split, row) of every example of a record's parts, by part."""
    found = {}
    for name in ('train', 'validation', 'test'):
        part = record[name]
        indices = range(part['count']) if part['indices'] is None else part['indices']
        found[name] = {(part['split'], row) for row in indices}
        assert len(found[name]) == part['count']
    return found


@pytest.mark.parametrize('shots', [0, 4])
def test_parts_never_overlap(configure, shots):
    data = open_data(configure(shots=shots), seed=3)
    for seed in (0, 1):
        parts = rows(json.loads(json.dumps(data.record(seed))))
        assert not parts['train'] & parts['validation']
        assert not parts['train'] & parts['test']
        assert len(parts['validation']) == 239  # 0.2 of 1197
        assert len(parts['train']) == (958 if shots == 0 else 40)
        assert len(parts['test']) == 600


def test_record_names_the_rows_used(configure):
    data = open_data(configure(shots=4), seed=3)
    record = data.record(seed=7)
    everything = open_data(configure(holdout=0.0), seed=0).split('train').arrays()
    used = data.split('train').arrays()['image'][data.subset(7)]
    np.testing.assert_array_equal(everything['image'][record['train']['indices']], used)
    held = data.split('validation').arrays()['image']
    np.testing.assert_array_equal(everything['image'][record['validation']['indices']], held)
    assert record['test'] == {'split': 'test', 'count': 600, 'indices': None}
    assert record['source'] == 'handwritten_digits/1.0.0'


def test_subset_is_stratified_and_drawn_by_its_own_seed(configure):
    data = open_data(configure(shots=4), seed=0)
    labels = data.split('train').labels()
    first = data.subset(0)
    assert first.dtype == np.int32
    assert np.bincount(labels[first]).tolist() == [4] * 10
    np.testing.assert_array_equal(first, open_data(configure(shots=4), seed=0).subset(0))
    assert set(first) != set(data.subset(1))


def test_validation_is_drawn_by_the_configs_seed(configure):
    one, same, other = (open_data(configure(), seed=s).split('validation').rows for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert set(one) != set(other)


def test_holdout_is_stratified(configure):
    data = open_data(configure(holdout=100), seed=0)
    counts = np.bincount(data.split('validation').labels())
    assert counts.sum() == 100
    assert set(counts.tolist()) <= {9, 10, 11}  # classes have 117 to 123 of 1197


def test_without_validation(configure):
    data = open_data(configure(holdout=0), seed=0)
    assert sorted(data.splits) == ['test', 'train']
    np.testing.assert_array_equal(data.subset(0), np.arange(1197))


def test_named_validation_leaves_train_whole(configure):
    data = open_data(configure(train='train[:900]', validation='train[900:]'), seed=0)
    assert (len(data.split('train')), len(data.split('validation'))) == (900, 297)
    whole = open_data(configure(holdout=0), seed=0).split('train').labels()
    np.testing.assert_array_equal(data.split('validation').labels(), whole[900:])


def test_classes_are_kept_and_relabelled_in_order(configure):
    data = open_data(configure(classes=('7', 5), holdout=0), seed=0)
    whole = open_data(configure(holdout=0), seed=0)
    assert data.label_names == ('7', '5')
    for name in ('train', 'test'):
        part, arrays = data.split(name), whole.split(name).arrays()
        keep = np.isin(arrays['label'], [5, 7])
        np.testing.assert_array_equal(part.arrays()['image'], arrays['image'][keep])
        np.testing.assert_array_equal(part.labels(), np.where(arrays['label'][keep] == 7, 0, 1))
        np.testing.assert_array_equal(part.arrays()['label'], part.labels())


def test_classes_with_holdout_and_shots(configure):
    """Positions in the pool, in the kept rows and in the file must not be mixed up."""
    data = open_data(configure(classes=('8', '9'), shots=3), seed=0)
    whole = open_data(configure(holdout=0), seed=0).split('train').arrays()
    record = data.record(1)
    for name in ('train', 'validation'):
        labels = whole['label'][record[name]['indices']]
        assert set(labels.tolist()) == {8, 9}
    assert record['train']['count'] == 6
    assert len(data.split('train')) + len(data.split('validation')) == 240  # 118 + 122 of 1197
    assert not set(data.split('train').rows) & set(data.split('validation').rows)


def test_photographs_are_read_as_stored(pets_dir, configure, monkeypatch):
    """As TFDS and the usual pipelines do; boxes and masks would not fit a turned image."""
    from tljax.data import decode

    asked = []
    monkeypatch.setattr(
        decode, 'decode', lambda e, form, upright: asked.append(upright) or np.zeros(form.shape)
    )
    pets(pets_dir, configure, holdout=0).split('train').arrays()
    assert set(asked) == {False}


def test_example_tells_what_arrays_and_source_give(configure):
    data = open_data(configure(), seed=0)
    split = data.split('test')
    arrays, source = split.arrays(), split.source()
    assert len(split) == len(source) == 600
    assert set(data.example) == set(arrays) == set(source[0]) == {'image', 'label'}
    for name, form in data.example.items():
        assert arrays[name].shape == (600, *form.shape)
        assert arrays[name].dtype == source[3][name].dtype == form.dtype
        assert source[3][name].shape == form.shape
        np.testing.assert_array_equal(source[3][name], arrays[name][3])


def test_arrays_are_read_once_and_kept(configure, monkeypatch):
    split = open_data(configure(), seed=0).split('train')
    first = split.arrays()
    assert split.arrays()['image'] is first['image']
    with pytest.raises(ValueError, match='read-only'):
        first['image'][0] = 0


def test_test_images_stay_unread_until_they_are_asked_for(configure, monkeypatch):
    from tljax.data.split import Records

    read = []
    scan = Records._scan
    monkeypatch.setattr(Records, '_scan', lambda *a: read.append(a[0].spec) or scan(*a))
    data = open_data(configure(), seed=0)
    data.split('train').arrays()
    data.split('validation').arrays()
    assert set(read) == {'train'}


@pytest.mark.parametrize(('choice', 'expected'), [('on', True), ('off', False), ('auto', True)])
def test_in_memory(configure, choice, expected):
    data = open_data(configure(in_memory=choice), seed=0)
    assert {split.in_memory for split in data.splits.values()} == {expected}


def test_auto_streams_what_is_large(configure, monkeypatch):
    from tljax.data import sources

    # 958 train images of 64 bytes are 61,312 bytes; validation and test are smaller.
    monkeypatch.setattr(sources, 'IN_MEMORY', 61_312)
    data = open_data(configure(), seed=0)
    assert {n: s.in_memory for n, s in data.splits.items()} == {
        'train': False,
        'validation': True,
        'test': True,
    }


def pets(pets_dir, configure, **changes):
    changes = {'image_size': 6, 'test': 'extra', **changes}
    return open_data(configure('tfds:pets', dir=pets_dir, **changes), seed=0)


def test_a_set_of_tfds_is_read_from_files_with_its_other_features_left_alone(pets_dir, configure):
    data = pets(pets_dir, configure, holdout=0)
    assert data.label_names == ('cat', 'dog', 'cow')
    assert data.full_name == 'pets/1.2.0'
    arrays = data.split('train').arrays()
    assert arrays['image'].shape == (30, 6, 6, 3)
    # Image i has the colour (i, 2 i, 3 i): rows, both shards and the order of channels are right.
    expected = np.arange(30)[:, None] * [1, 2, 3]
    np.testing.assert_array_equal(arrays['image'][:, 2, 2], expected)
    np.testing.assert_array_equal(arrays['label'], np.arange(30) % 3)


def test_version_in_the_name(pets_dir, configure):
    data = open_data(configure('tfds:pets:1.*.*', dir=pets_dir, image_size=6, test='extra'), seed=0)
    assert data.full_name == 'pets/1.2.0'


def test_rows_of_a_slice_are_those_of_the_slice(pets_dir, configure):
    data = pets(pets_dir, configure, train='train[20:25]+extra[:3]', test='extra[3:]', holdout=0)
    first_pixels = data.split('train').arrays()['image'][:, 0, 0, 0]
    assert first_pixels.tolist() == [20, 21, 22, 23, 24, 0, 1, 2]
    assert data.split('test').arrays()['image'][:, 0, 0, 0].tolist() == [3, 4, 5, 6, 7, 8]


def test_grey_on_request(pets_dir, configure):
    data = pets(pets_dir, configure, channels=1, holdout=0)
    assert data.example['image'].shape == (6, 6, 1)
    # 0.299 red + 0.587 green + 0.114 blue (ITU-R BT.601) of (10, 20, 30) is 18.15.
    assert data.split('train').arrays()['image'][10, 0, 0, 0] == 18


def test_grey_becomes_colour_on_request(configure):
    grey = open_data(configure(), seed=0).split('test').arrays()['image']
    colour = open_data(configure(channels=3), seed=0).split('test').arrays()['image']
    np.testing.assert_array_equal(colour, np.repeat(grey, 3, axis=-1))


def test_the_middle_is_taken(pets_dir, configure):
    data = pets(pets_dir, configure, resize=9, interpolation='bicubic', holdout=0)
    assert data.split('train').arrays()['image'].shape == (30, 6, 6, 3)
    assert (data.form.scale, data.form.shorter) == ('crop', 9)
    stretched = pets(pets_dir, configure, resize=-1, holdout=0)
    assert stretched.form.scale == 'stretch'


def test_resizing(configure):
    small = open_data(configure(image_size=4), seed=0).split('test').arrays()['image']
    whole = open_data(configure(), seed=0).split('test').arrays()['image']
    # Area interpolation to half size is the mean of 2x2 blocks.
    means = whole.reshape(-1, 4, 2, 4, 2, 1).mean((2, 4))
    assert abs(small - means).max() <= 0.5
