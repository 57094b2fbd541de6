"""Folders of the user's own images: listing, kinds of images, bad files, splits, preparation."""

import io
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from tljax import config as config_lib
from tljax.data import open_data
from tljax.data.own import examine as examine_lib
from tljax.data.own.listing import list_folder
from tljax.data.own.pictures import plain_picture
from tljax.data.own.rows import BadRow
from tljax.errors import RunError, UserError


def picture(value, size=(6, 6), **options):
    """PNG bytes of noise that depends on `value`; options are Pillow's."""
    pixels = np.random.default_rng(value).integers(0, 256, (*size, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **{'format': 'PNG', **options})
    return buffer.getvalue()


def fill(root, counts, first=0):
    """Files root/NAME/I.png, as many of each name."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            first += 1
            (root / name / f'{i:03}.png').write_bytes(picture(first))
    return first


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / 'mine'
    fill(folder, {'cat': 10, 'dog': 20})
    return folder


@pytest.fixture
def configure_own(tmp_path):
    def make(root, **changes):
        config = config_lib.default().data
        config.update(name='folder', dir=str(root), prepared=str(tmp_path / 'prepared'))
        config.update(changes)
        return config

    return make


def stored_in(data, split):
    """Paths of a split's rows, as splits.tsv has them."""
    folder = data.split(split).records.builder.data_path
    lines = [line.split('\t') for line in (folder / 'splits.tsv').read_text().splitlines()]
    return [line[1] for line in lines if line[0] == split]


def test_a_folder_of_classes(root, configure_own):
    data = open_data(configure_own(root), 0)
    assert data.label_names == ('cat', 'dog')
    assert data.example['image'].shape == (6, 6, 3)
    assert {name: len(split) for name, split in data.splits.items()} == {
        'train': 19,
        'validation': 5,
        'test': 6,
    }
    assert np.bincount(data.split('test').labels()).tolist() == [2, 4]
    for row, where in enumerate(stored_in(data, 'test')):
        expected = np.asarray(Image.open(root / where))
        np.testing.assert_array_equal(data.split('test').arrays()['image'][row], expected)
        assert data.label_names[data.split('test').labels()[row]] == where.split('/')[0]


def test_the_draw_is_saved_and_seeded(root, configure_own):
    first = open_data(configure_own(root), 0)
    again = open_data(configure_own(root), 5)  # of validation alone
    assert first.full_name == again.full_name
    assert stored_in(first, 'test') == stored_in(again, 'test')
    other = open_data(configure_own(root, split_seed=1), 0)
    assert stored_in(first, 'test') != stored_in(other, 'test')
    assert first.full_name != other.full_name


def test_nothing_is_prepared_twice_and_changes_are_noticed(root, configure_own, monkeypatch):
    first = open_data(configure_own(root), 0)
    os.utime(root / 'cat' / '000.png', (1, 1))  # looked at again, and found to be the same
    assert open_data(configure_own(root), 0).full_name == first.full_name
    with monkeypatch.context() as patch:
        patch.setattr(examine_lib, '_write_part', None)
        assert open_data(configure_own(root), 0).full_name == first.full_name
    (root / 'cat' / '000.png').write_bytes(picture(1000))
    assert open_data(configure_own(root), 0).full_name != first.full_name


@pytest.mark.parametrize(
    'names', [('train', 'test'), ('Training', 'testing', 'val'), ('train', 'dev')]
)
def test_split_folders(tmp_path, configure_own, names):
    first = 0
    for name in names:
        first = fill(tmp_path / 'mine' / name, {'b': 5, 'a': 5}, first)
    data = open_data(configure_own(tmp_path / 'mine'), 0)
    assert data.label_names == ('a', 'b')
    if 'dev' in names or 'val' in names:
        assert len(data.split('validation')) == 10
    else:
        assert len(data.split('validation')) == 2  # data.holdout of train
    assert len(data.split('test')) == (2 if 'dev' in names else 10)


def test_a_class_may_be_called_train(tmp_path, configure_own):
    fill(tmp_path / 'mine', {'train': 6, 'bus': 6})
    assert open_data(configure_own(tmp_path / 'mine'), 0).label_names == ('bus', 'train')


@pytest.mark.parametrize(
    ('paths', 'message'),
    [
        ((), 'has no subfolders'),
        (('cat/a.txt',), 'no image or sound'),
        (('cat/a.png', 'dog/b.wav'), 'keep images and sounds'),
        (('train/cat/a.png', 'extra/cat/b.png'), 'cannot be told'),
        (('train/cat/a.png', 'training/cat/b.png'), 'a split twice'),
        (('test/cat/a.png', 'val/cat/b.png'), 'no folder train'),
    ],
)
def test_folders_that_are_refused(tmp_path, paths, message):
    root = tmp_path / 'mine'
    root.mkdir()
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    with pytest.raises(UserError, match=message):
        list_folder(root)


def test_folders_that_are_not_there(tmp_path, configure_own):
    with pytest.raises(UserError, match='is no folder'):
        open_data(configure_own(tmp_path / 'nowhere'), 0)
    with pytest.raises(UserError, match=r'config\.data\.dir is empty'):
        open_data(configure_own(''), 0)


KINDS = {
    'bmp': dict(format='BMP'),
    'webp': dict(format='WEBP', lossless=True),
    'tiff': dict(format='TIFF'),
    'jpeg': dict(format='JPEG', quality=100, subsampling=0),
}


@pytest.mark.parametrize('kind', KINDS)
def test_kinds_of_files(kind):
    smooth = np.fromfunction(lambda y, x, c: 8 * x + 4 * y + 20 * c, (16, 12, 3))
    buffer = io.BytesIO()
    Image.fromarray(smooth.astype(np.uint8)).save(buffer, **KINDS[kind])
    found = plain_picture(buffer.getvalue())
    pixels = np.asarray(Image.open(io.BytesIO(found.encoded)))
    assert found.shape == pixels.shape == (16, 12, 3)
    assert np.abs(pixels - smooth).max() <= (4 if kind == 'jpeg' else 0)
    assert (found.encoded == buffer.getvalue()) == (kind == 'jpeg')


def encoded_as(image, kind='PNG', **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_of(encoded, **options):
    found = plain_picture(encoded, **options)
    assert Image.open(io.BytesIO(found.encoded)).mode in ('L', 'RGB')
    return np.asarray(Image.open(io.BytesIO(found.encoded))), found


def test_kinds_of_pixels():
    clear = Image.fromarray(np.uint8([[[10, 20, 30, 0], [10, 20, 30, 255]]]))
    pixels, _ = pixels_of(encoded_as(clear))
    assert pixels.tolist() == [[[255] * 3, [10, 20, 30]]]
    cmyk = Image.new('CMYK', (8, 8), (0, 255, 255, 0))  # red
    pixels, _ = pixels_of(encoded_as(cmyk, 'JPEG'))
    assert pixels[4, 4].tolist() == pytest.approx([255, 0, 0], abs=3)
    bits = Image.new('1', (4, 4), 1)
    pixels, found = pixels_of(encoded_as(bits))
    assert (pixels == 255).all()
    assert found.shape == (4, 4, 1)
    palette = Image.new('P', (4, 4), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    assert pixels_of(encoded_as(palette))[0][0, 0].tolist() == [9, 8, 7]
    grey_clear = Image.new('LA', (4, 4), (7, 255))
    assert pixels_of(encoded_as(grey_clear))[1].shape == (4, 4, 1)


def test_photographs_are_turned_upright():
    array = np.zeros((8, 4, 3), np.uint8)
    array[0] = 255  # the sensor's first row
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    for kind in ('PNG', 'JPEG'):
        pixels, found = pixels_of(encoded_as(Image.fromarray(array), kind, exif=exif))
        assert found.shape == (4, 8, 3)
        assert pixels[:, -1].min() > 200
        assert pixels[:, 0].max() < 50
        assert Image.open(io.BytesIO(found.encoded)).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize('kind', ['.png', '.tiff'])
def test_sixteen_bits(kind):
    values = np.uint16([[0, 257, 4095, 65535]])
    encoded = cv2.imencode(kind, values)[1].tobytes()
    pixels, found = pixels_of(encoded)
    assert pixels.tolist() == [[0, 1, 16, 255]]
    assert found.peak == 65535
    assert pixels_of(encoded, bits=12)[0].tolist() == [[0, 16, 255, 255]]
    colours = np.uint16([[[257] * 3] * 3 + [[255 * 257, 128 * 257, 64 * 257]]])
    pixels, _ = pixels_of(cv2.imencode(kind, colours)[1].tobytes())
    assert pixels[0, 3].tolist() == pytest.approx([64, 128, 255], abs=0.5)  # OpenCV has blue first


@pytest.mark.parametrize(
    ('encoded', 'message'),
    [
        (b'', 'empty'),
        (b'hello', 'no image'),
        (picture(0)[:80], 'damaged'),
        (picture(0, (64, 64), format='JPEG')[:700], 'damaged'),
    ],
)
def test_files_that_are_no_image(encoded, message):
    with pytest.raises(BadRow, match=message):
        plain_picture(encoded)


@pytest.fixture
def flawed(root):
    """The folder with seven flaws, six of them bad rows."""
    (root / 'cat' / 'empty.png').touch()
    (root / 'dog' / 'torn.jpg').write_bytes(picture(77, (64, 64), format='JPEG')[:700])
    (root / 'dog' / 'again.png').write_bytes((root / 'dog' / '003.png').read_bytes())
    (root / 'dog' / 'both.png').write_bytes((root / 'cat' / '003.png').read_bytes())
    (root / 'stray.png').write_bytes(picture(99))
    (root / 'dog' / 'notes.txt').write_text('not looked at')
    return root


def test_bad_rows_are_left_out_and_listed(flawed, configure_own):
    data = open_data(configure_own(flawed), 0)
    bad = dict(data.account['bad']['rows'])
    assert bad == {
        'stray.png': 'it lies in no class folder',
        'cat/empty.png': 'the file is empty',
        'dog/torn.jpg': bad['dog/torn.jpg'],
        'dog/again.png': 'the same as: dog/003.png',
        'cat/003.png': 'the same under another label: dog/both.png (dog)',
        'dog/both.png': 'the same under another label: cat/003.png (cat)',
    }
    assert 'damaged' in bad['dog/torn.jpg']
    assert data.account['rows'] == 35
    assert data.account['used'] == 29
    assert data.account['ignored'] == {'.txt': 1}
    assert data.account['bad']['count'] == 6


def test_bad_rows_are_refused(flawed, configure_own):
    with pytest.raises(UserError, match='6 of 35 rows cannot be used') as told:
        open_data(configure_own(flawed, on_error='refuse'), 0)
    assert 'cat/empty.png: the file is empty' in str(told.value)


def test_too_many_bad_rows(tmp_path, configure_own):
    fill(tmp_path / 'mine', {'cat': 2, 'dog': 2})
    for i in range(5):
        (tmp_path / 'mine' / 'cat' / f'{i}.jpg').write_text('no')
    with pytest.raises(UserError, match='too many'):
        open_data(configure_own(tmp_path / 'mine'), 0)


def test_a_label_only_in_test_and_leaks(tmp_path, configure_own):
    root = tmp_path / 'mine'
    first = fill(root / 'train', {'a': 6, 'b': 6})
    fill(root / 'test', {'a': 4, 'b': 4, 'c': 1}, first)
    (root / 'train' / 'a' / 'leak.png').write_bytes((root / 'test' / 'a' / '000.png').read_bytes())
    data = open_data(configure_own(root), 0)
    bad = dict(data.account['bad']['rows'])
    assert bad.keys() == {'train/a/leak.png', 'test/c/000.png'}
    assert bad['train/a/leak.png'] == 'the same as: test/a/000.png'
    assert "training: 'c'" in bad['test/c/000.png']
    assert len(data.split('test')) == 8


def test_groups_stay_together(tmp_path, configure_own):
    first = 0
    for patient in range(12):
        for name in ('healthy', 'ill'):
            folder = tmp_path / 'mine' / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(3):
                first += 1
                (folder / f'p{patient:02}_{i}.png').write_bytes(picture(first))
    data = open_data(configure_own(tmp_path / 'mine', group='(p[0-9]+)_'), 0)
    patients = [
        {where.split('/')[1][:3] for where in stored_in(data, split)}
        for split in ('train', 'validation', 'test')
    ]
    assert not patients[0] & patients[1]
    assert not patients[0] & patients[2]
    assert not patients[1] & patients[2]
    assert sum(len(p) for p in patients) == 12
    assert np.bincount(data.split('test').labels()).tolist() == [6, 6]


def test_groups_that_are_not_in_names(root, configure_own):
    with pytest.raises(UserError, match='has no group'):
        open_data(configure_own(root, group='(patient[0-9]+)'), 0)
    with pytest.raises(UserError, match='no regular expression'):
        open_data(configure_own(root, group='(p'), 0)


class Stopped(BaseException):
    pass


def test_examination_goes_on_where_it_was_stopped(root, configure_own, monkeypatch):
    monkeypatch.setattr(examine_lib, 'PART', 8)
    seen, after = [], 17

    def counted(encoded, bits):
        seen.append(encoded)
        if len(seen) > after:
            raise Stopped
        return plain_picture(encoded, bits)

    monkeypatch.setattr('tljax.data.own.folder.plain_picture', counted)
    with pytest.raises(Stopped):
        open_data(configure_own(root), 0)
    after, before = 1000, len(set(seen))
    seen.clear()
    data = open_data(configure_own(root), 0)
    assert len(seen) == 30 - 16 < before
    monkeypatch.setattr('tljax.data.own.folder.plain_picture', plain_picture)
    whole = open_data(configure_own(root, prepared=str(root.parent / 'elsewhere')), 0)
    assert whole.full_name == data.full_name
    assert not list((root.parent / 'prepared' / 'unfinished').iterdir())


def test_a_file_that_changes_meanwhile(root, configure_own, monkeypatch):
    def slow(*arguments):
        found = examine(*arguments)
        (root / 'cat' / '000.png').write_bytes(picture(2000))
        return found

    examine = examine_lib.examine
    monkeypatch.setattr('tljax.data.own.folder.examine', slow)
    with pytest.raises(RunError, match='changed while'):
        open_data(configure_own(root), 0)


def test_mixed_images_are_scaled(root, configure_own):
    (root / 'cat' / 'grey.png').write_bytes(encoded_as(Image.new('L', (9, 4), 100)))
    with pytest.raises(UserError, match='image_size'):
        open_data(configure_own(root), 0)
    data = open_data(configure_own(root, image_size=5), 0)
    assert data.example['image'].shape == (5, 5, 3)
    for split in data.splits.values():
        assert split.arrays()['image'].shape[1:] == (5, 5, 3)


def test_the_account_is_json(flawed, configure_own):
    data = open_data(configure_own(flawed), 0)
    folder = data.split('train').records.builder.data_path
    assert json.loads((folder / 'account.json').read_text()) == data.account
    assert data.account['counts']['train'].keys() == {'cat', 'dog'}
    assert data.account['imbalance'] > 1


def test_what_killed_processes_left_is_swept(root, configure_own, tmp_path):
    old, new = (tmp_path / 'prepared' / 'unfinished' / name for name in ('old', 'new'))
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / '000000.json').touch()
    for path in (old / '000000.json', old):
        os.utime(path, (1, 1))
    open_data(configure_own(root), 0)
    assert not old.exists()
    assert new.exists()


def test_names_that_are_no_utf_8(root, configure_own):
    with open(os.fsencode(root) + b'/cat/caf\xe9.png', 'wb') as file:
        file.write(picture(3000))
    (root / 'cat' / 'Straße 猫.png').write_bytes(picture(3001))
    data = open_data(configure_own(root), 0)
    assert data.account['bad']['rows'] == [['cat/caf\ufffd.png', 'its name is no UTF-8']]
    rows = [where for split in ('train', 'test') for where in stored_in(data, split)]
    assert 'cat/Straße 猫.png' in rows


def test_another_process_may_be_faster(root, configure_own, monkeypatch):
    def overtaken(*arguments):
        found = examine(*arguments)
        monkeypatch.setattr('tljax.data.own.folder.examine', examine)
        open_data(configure_own(root), 0)  # which deletes what both of them kept
        return found

    (root / 'cat' / 'grey.png').write_bytes(encoded_as(Image.new('1', (6, 6), 1)))  # is converted
    examine = examine_lib.examine
    monkeypatch.setattr('tljax.data.own.folder.examine', overtaken)
    data = open_data(configure_own(root), 0)
    assert len(stored_in(data, 'train')) == 25


def test_a_folder_that_cannot_be_written(root, configure_own, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match=r'config\.data\.prepared'):
        open_data(configure_own(root, prepared=str(tmp_path / 'file')), 0)


REALDATA = Path(os.environ.get('TLJAX_REALDATA', Path(__file__).parents[3] / 'shared' / 'data'))


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.exists(), reason='TLJAX_REALDATA is absent')
@pytest.mark.parametrize(
    ('folder', 'classes', 'sizes', 'repeated'),
    [
        ('dogs_cats_breeds/cat', 5, (254, 64, 80), 2),
        ('medical/mri_brain_tumor_4class', 4, (640, 160, 240), 0),
        ('medical/ct_head_hemorrhage', 2, (127, 32, 40), 1),
    ],
)
def test_real_folders(configure_own, folder, classes, sizes, repeated):
    data = open_data(configure_own(REALDATA / folder, image_size=32), 0)
    assert len(data.label_names) == classes
    assert tuple(len(data.split(s)) for s in ('train', 'validation', 'test')) == sizes
    assert data.account['bad']['count'] == repeated
    counts = np.bincount(data.split('test').labels())
    assert counts.max() - counts.min() <= 1


def test_names_of_classes_are_one_line(tmp_path, configure_own):
    fill(tmp_path / 'mine', {'a\nb': 6, 'c\rd ': 6, 'e': 6})
    assert open_data(configure_own(tmp_path / 'mine'), 0).label_names == ('a b', 'c d', 'e')


def test_a_link_to_a_folder_above_is_not_followed(root, configure_own):
    (root / 'cat' / 'up').symlink_to('..')
    (root / 'dog' / 'more').symlink_to(root / 'dog')
    data = open_data(configure_own(root), 0)
    assert data.account['rows'] == 32
    assert data.account['bad']['rows'] == [
        ['cat/up', 'it is a link to a folder that it lies in'],
        ['dog/more', 'it is a link to a folder that it lies in'],
    ]


def test_class_folders_without_a_picture_are_told(root, configure_own):
    (root / 'bird').mkdir()
    (root / 'cow').mkdir()
    (root / 'cow' / '1.heic').touch()
    data = open_data(configure_own(root), 0)
    assert data.label_names == ('cat', 'dog')
    assert 'no image lies in the folders bird, cow.' in data.account['notes']


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('form', ['PNG', 'TIFF'])
def test_pictures_of_16_bits_are_turned_upright(form, orientation):
    pixels = np.arange(80, dtype=np.uint16).reshape(8, 10) * 800
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(buffer, form, exif=exif)
    made = plain_picture(buffer.getvalue())
    upright = np.asarray(ImageOps.exif_transpose(Image.open(buffer)))
    expected = np.rint(upright.astype(np.float32) * (255 / 65535)).astype(np.uint8)
    assert made.shape == (*expected.shape, 1)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(made.encoded))), expected)
