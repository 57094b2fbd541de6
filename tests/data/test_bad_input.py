"""What a user may get wrong: one clear message each, that names the key and the remedy."""

import errno
import shutil
import socket
from pathlib import Path

import pytest

from tljax.data import open_data, prepared
from tljax.errors import RunError, UserError


def check_refused(config, *said, error=UserError, seed=0):
    with pytest.raises(error) as caught:
        open_data(config, seed)
    for words in said:
        assert words in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (dict(train='tran'), ["config.data.train='tran'", "Did you mean 'train'?"]),
        (dict(test='train[90%:]'), ['config.data.train', 'config.data.test', 'share 120 examples']),
        (dict(validation='test[:5]'), ['config.data.test', 'config.data.validation', 'share 5']),
        (dict(classes=('5', 'five')), ['config.data.classes', "'five'"]),
        (dict(classes=(10,)), ['config.data.classes', 'Labels run from 0 to 9']),
        (dict(classes=('5', 5)), ['config.data.classes', 'twice']),
        (dict(holdout=5000), ['config.data.holdout', '1197']),
        (dict(mean=(0.5, 0.5)), ['config.data.mean', '2 numbers', '1 channel']),
        (dict(std=(0.0,)), ['config.data.std', 'above 0']),
        (dict(mean=(float('nan'),)), ['config.data.mean', 'finite numbers']),
        (dict(mean=('a',)), ['config.data.mean', 'finite numbers']),
        (dict(channels=2), ['config.data.channels is 2']),
        (dict(channels=4), ['config.data.channels is 4']),
        (dict(image_size=-8), ['config.data.image_size is -8']),
        (dict(image_size=8, resize=7), ['config.data.resize is 7', 'image_size (8)']),
        (dict(resize=-2), ['config.data.resize is -2']),
    ],
)
def test_wrong_values(configure, changes, said):
    check_refused(configure(**changes), *said)


def test_too_few_labels_for_the_shots(configure):
    data = open_data(configure(shots=97), seed=0)
    with pytest.raises(UserError, match=r'config\.data\.shots=97.*0 \(95\)'):
        data.subset(0)


def test_no_validation_says_how_to_get_one(configure):
    data = open_data(configure(holdout=0), seed=0)
    with pytest.raises(UserError, match=r'config\.data\.validation.*data\.holdout'):
        data.split('validation')
    with pytest.raises(UserError, match="Did you mean 'train'"):
        data.split('trian')


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('handwriten_digits', "Did you mean 'handwritten_digits'"),
        ('mnist', "'tfds:mnist'"),
        ('tfds:cifar11', "Did you mean 'cifar10_1'"),
        ('tfds:', 'is not of the form'),
        ('tfds:huggingface:mnist', 'is not of the form'),
        ('tfds:cifar10/nothing', 'BuilderConfig nothing not found'),
        ('tfds:mnist:9.9.9', 'cannot be loaded at version 9.9.9, only: 3.0.1.'),
    ],
)
def test_unknown_sets(configure, name, said):
    check_refused(configure(name), 'config.data.name', said)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError(f'a network was asked for: {args}')

    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    monkeypatch.setattr(socket.socket, 'connect', refuse)


def test_unprepared_set_is_never_downloaded(configure, tmp_path, no_network, capfd):
    message = check_refused(
        configure('tfds:mnist', dir=str(tmp_path)),
        'tfds:mnist is not prepared',
        str(tmp_path / 'mnist' / '3.0.1'),
        '11.6 MB',  # what TFDS has registered: 4 files of together 11,594,722 bytes
        f"tfds.builder('mnist', file_format='array_record', data_dir={str(tmp_path)!r})",
    )
    assert 'TensorFlow' not in message.split('run\n')[0]
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ''


def test_unprepared_set_that_needs_tensorflow(configure, tmp_path, no_network, capfd):
    check_refused(
        configure('tfds:coco/2017', dir=str(tmp_path)), 'not prepared', "'tljax[prepare]'"
    )
    assert capfd.readouterr() == ('', '')  # TFDS would print a banner about TensorFlow


def test_wrong_form_says_how_to_prepare_it_again(configure, pets_dir, tmp_path):
    shutil.copytree(pets_dir, tmp_path, dirs_exist_ok=True)
    info = tmp_path / 'pets' / '1.2.0' / 'dataset_info.json'
    info.write_text(info.read_text().replace('array_record', 'tfrecord'))
    check_refused(
        configure('tfds:pets', dir=str(tmp_path), image_size=4),
        'tfrecord',
        "tfds.builder('pets', file_format='array_record'",
    )


def test_images_of_several_sizes_need_a_size(configure, pets_dir):
    check_refused(configure('tfds:pets', dir=pets_dir), 'config.data.image_size', 'differ in size')


def test_secret_labels_are_refused_in_every_way_of_reading(configure, pets_dir):
    config = configure('tfds:pets', dir=pets_dir, image_size=4)
    split = open_data(config, 0).split('test')
    for read in (split.labels, split.arrays, lambda: split.source()[0]):
        with pytest.raises(UserError, match=r"'test' of pets/1\.2\.0 have no label"):
            read()


def test_a_class_that_a_split_lacks(configure, pets_dir):
    config = configure(
        'tfds:pets', dir=pets_dir, image_size=4, train='train[:1]', test='extra', classes=('dog',)
    )
    check_refused(config, 'config.data.classes', "'train[:1]'")


def test_features_that_do_not_fit(configure, pets_dir, tmp_path):
    shutil.copytree(pets_dir, tmp_path, dirs_exist_ok=True)
    path = tmp_path / 'pets' / '1.2.0' / 'features.json'
    path.write_text(path.read_text().replace('"label"', '"kind"'))
    check_refused(
        configure('tfds:pets', dir=str(tmp_path), image_size=4),
        "'label' of the kind ClassLabel",
        'kind (ClassLabel)',
    )


def test_unwritable_folder(configure, tmp_path):
    """A file where the folder should be fails for root too, unlike permissions."""
    (tmp_path / 'file').write_text('')
    check_refused(configure(dir=str(tmp_path / 'file')), 'config.data.dir', 'Not a directory')


@pytest.mark.parametrize(
    ('code', 'error', 'said'),
    [
        (errno.EACCES, UserError, 'config.data.dir'),
        (errno.EROFS, UserError, 'config.data.dir'),
        (errno.ENOSPC, RunError, 'No space is left'),
    ],
)
def test_preparing_fails(configure, tmp_path, monkeypatch, code, error, said):
    def fail(builder, tfds):
        raise OSError(code, 'as the system calls it')

    monkeypatch.setattr(prepared, '_prepare', fail)
    check_refused(configure(dir=str(tmp_path)), said, str(tmp_path), error=error)


@pytest.fixture
def copied(data_dir, tmp_path):
    """A prepared set to be damaged."""
    shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
    return tmp_path / 'handwritten_digits' / '1.0.0'


def records(folder):
    return next(folder.glob('*train*'))


@pytest.mark.parametrize('damage', ['cut', 'overwritten', 'gone', 'info'])
def test_damaged_files(configure, copied, damage):
    file = records(copied)
    content = file.read_bytes()
    if damage == 'cut':
        file.write_bytes(content[: len(content) // 2])
    elif damage == 'overwritten':
        file.write_bytes(content[:70_000] + b'x' * 20_000 + content[90_000:])
    elif damage == 'gone':
        file.unlink()
    else:
        (copied / 'dataset_info.json').write_text('{"na')
    where = copied if damage != 'info' else copied.parents[1]
    message = check_refused(configure(dir=str(copied.parents[1])), str(where), error=RunError)
    assert 'delete' in message.lower()


def test_an_interrupted_preparation_is_done_again(configure, copied):
    """Killed while preparing: TFDS leaves a folder 'incomplete.*', and none in its place."""
    copied.rename(copied.parent / 'incomplete.ABC_1.0.0')
    data = open_data(configure(dir=str(copied.parents[1])), 0)
    assert len(data.split('test').arrays()['label']) == 600
    assert Path(copied, 'dataset_info.json').exists()


@pytest.mark.parametrize(
    ('name', 'key'),
    [
        ('folder', 'split'),
        ('arrays', 'split'),
        ('handwritten_digits', 'split'),
        ('corpus', 'group'),
    ],
)
def test_what_would_divide_the_rows_is_not_ignored(configure, tmp_path, name, key):
    config = configure(name, **{key: 'part'})
    config.dir = config.dir if name == 'handwritten_digits' else str(tmp_path)
    check_refused(config, f"config.data.{key} is 'part'", f'config.data.name={name!r}', 'not read')
