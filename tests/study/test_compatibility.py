"""The whole check of a source against a target: sets with planted leaks, and real digits."""

import dataclasses
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scenes import as_jpeg, scenes

from tljax import config as config_lib
from tljax.data import Data, Form, Split, open_data
from tljax.data.decode import fitted
from tljax.pretrained import shelf
from tljax.study import compatibility, results
from tljax.study.compatibility import leakage
from tljax.transfer.manifest import Entry, Manifest

SIDE = 48


@dataclasses.dataclass(frozen=True, eq=False)
class Kept:
    """Records of pictures that are in memory, as a set of TFDS would have them."""

    pictures: list
    labels: np.ndarray
    spec: str
    form: Form
    licence: str = ''

    @property
    def builder(self):
        features = {'image': SimpleNamespace(shape=(None, None, 3))}
        terms = SimpleNamespace(license=self.licence)
        return SimpleNamespace(info=SimpleNamespace(features=features, redistribution_info=terms))

    def __len__(self):
        return len(self.pictures)

    def each(self, rows):
        return ({'image': fitted(self.pictures[row], self.form)} for row in rows)

    def decoded(self, rows):
        return {'image': np.stack([parts['image'] for parts in self.each(rows)])}


def data_of(in_memory=True, size=SIDE, licence='', name='pets:1.0.0', **splits):
    """A set whose splits hold these pictures, labelled 0, 1, 0, 1, ..."""
    form = Form((size, size, 3), 'stretch')
    made = {}
    for split, pictures in splits.items():
        labels = np.arange(len(pictures)) % 2
        records = Kept(pictures, labels.astype(np.int32), split, form, licence)
        rows = np.arange(len(pictures), dtype=np.int32)
        made[split] = Split(split, records, rows, np.arange(2, dtype=np.int32), in_memory)
    example = {
        'image': jax.ShapeDtypeStruct(form.shape, np.uint8),
        'label': jax.ShapeDtypeStruct((), np.int32),
    }
    return Data(('cat', 'dog'), example, form, made, 0, name, '', '')


def config_for(card=None):
    config = config_lib.default()
    config.data.update(image_size=SIDE)
    return config


def leaks(findings):
    return [f for f in findings if f.topic == 'leakage']


@pytest.fixture(scope='module')
def clean():
    return data_of(train=scenes(40), validation=scenes(10, 200), test=scenes(20, 300))


def test_a_clean_target_has_no_findings(clean):
    assert compatibility.check_target(clean) == []


def test_shared_pictures_of_splits_are_told_with_examples():
    train = scenes(40)
    test = [*scenes(17, 300), train[4], as_jpeg(train[8], 40), as_jpeg(train[9], 40)]
    data = data_of(train=train, test=test)
    found = compatibility.check_target(data)
    assert [(f.level, f.topic) for f in found] == [('warning', 'leakage')]
    assert '3 of 20 test pictures (15.0%) are in train too, 1 identical and 2 nearly' in (
        found[0].what
    )
    # Row 17 is a dog in test and a cat in train; so is 18; 19 is a dog in both.
    assert '2 with another label' not in found[0].what
    assert "'test'[17] is 'train'[4]" in found[0].what
    pairs = [(e['right_row'], e['left_row'], e['exact']) for e in found[0].examples]
    assert pairs == [(17, 4, True), (18, 8, False), (19, 9, False)]


def test_other_labels_of_the_same_picture_are_counted():
    train = scenes(10)
    found = compatibility.check_target(data_of(train=train, test=[train[1], train[3], train[5]]))
    assert ', 2 with another label' in found[0].what  # rows 0 and 2 are cats here, dogs there


def test_every_pair_of_splits_is_compared():
    pictures = scenes(6)
    data = data_of(train=pictures[:3], validation=pictures[2:5], test=pictures[4:])
    found = leaks(compatibility.check_target(data))
    pairs = [(f.examples[0]['left'], f.examples[0]['right']) for f in found]
    assert pairs == [('train', 'validation'), ('validation', 'test')]


def test_what_is_streamed_is_read_alike(clean):
    train = scenes(12)
    data = data_of(in_memory=False, train=train, test=[*scenes(4, 300), train[2]])
    assert '1 of 5 test pictures' in compatibility.check_target(data)[0].what


def test_large_splits_are_sampled_and_said_to_be():
    train = scenes(30)
    data = data_of(train=train, test=[p.copy() for p in train])
    found = compatibility.check_target(data, most=20)
    count, rest = found[0].what.split(' of ', 1)
    assert rest.startswith('20 of 30 test pictures')
    assert 'among 20 of its 30' in rest
    assert 0 < int(count) <= 20
    assert found == compatibility.check_target(data, most=20)


def test_without_the_library_identical_pictures_are_found_and_a_note_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, 'imagehash', None)
    train = scenes(8)
    found = compatibility.check_target(data_of(train=train, test=[train[1], as_jpeg(train[2], 50)]))
    assert [(f.level, f.topic) for f in found] == [('warning', 'leakage'), ('note', 'leakage')]
    assert '1 of 2 test pictures' in found[0].what
    assert "pip install 'tljax[duplicates]'" in found[1].what


CARD = {
    'name': 'imaginary',
    'modality': 'image',
    'licence': 'MIT',
    'training_data': 'pictures of pets',
    'input': {'channels': 3, 'image_size': SIDE, 'mean': [], 'std': []},
    'classes': 2,
    'class_names': 'Cats, cow',
}


def test_a_source_that_fits_has_nothing_but_notes(clean):
    source = data_of(train=scenes(40, 500), test=scenes(4, 600))
    found = compatibility.check(config_for(), CARD, clean, source_data=source)
    assert [(f.level, f.topic) for f in found] == [('note', 'labels')]
    assert 'knows 1 of the 2 classes of the target: cat (Cats). New to it: dog.' in found[0].what


@pytest.mark.parametrize(('seen', 'level'), [(1, 'warning'), (2, 'disqualified')])
def test_a_source_that_has_seen_the_test(clean, seen, level):
    """Of 20 test pictures 1 is a twentieth, which is not yet too many."""
    copies = [as_jpeg(p, 60) for p in scenes(seen, 300)]
    source = data_of(train=[*scenes(30, 500), *copies], test=scenes(4, 600))
    found = leaks(compatibility.check(config_for(), CARD, clean, source_data=source))
    assert [f.level for f in found] == [level]
    assert f'{seen} of 20 test pictures' in found[0].what
    assert 'the training set of imaginary' in found[0].what
    assert [e['left_row'] for e in found[0].examples] == list(range(30, 30 + seen))


def test_a_source_that_has_seen_what_is_trained_on_is_noted(clean):
    source = data_of(train=scenes(30), test=scenes(4, 600))
    found = leaks(compatibility.check(config_for(), CARD, clean, source_data=source))
    assert [f.level for f in found] == ['note']


def test_a_source_whose_pictures_are_cut_otherwise_is_compared_as_the_target_is(clean):
    copies = scenes(20, 300)
    source = data_of(size=24, train=[np.array(p) for p in copies], test=scenes(4, 600))
    source = dataclasses.replace(source, form=Form((24, 24, 3), 'crop', 36))
    kept = source.splits['train']
    cropped = dataclasses.replace(kept.records, form=source.form)
    source.splits['train'] = dataclasses.replace(kept, records=cropped)
    found = leaks(compatibility.check(config_for(), CARD, clean, source_data=source))
    assert '20 of 20 test pictures (100.0%)' in found[0].what


def test_a_disqualified_source_is_not_compared_further(clean, monkeypatch):
    def read(*_):
        raise AssertionError('pictures were read')

    monkeypatch.setattr(leakage, 'sample', read)
    card = {**CARD, 'modality': 'text'}
    found = compatibility.check(config_for(), card, clean, source_data=clean)
    assert compatibility.worst(found) == 'disqualified'


def test_a_reused_head_is_seen_in_the_manifest(clean):
    entry = Entry('head/kernel', 'loaded', 'head/kernel', (4, 2), (4, 2), 'float32')
    found = compatibility.check(config_for(), CARD, clean, manifest=Manifest((entry,)))
    assert [(f.level, f.topic) for f in found] == [('warning', 'labels'), ('note', 'labels')]
    fresh = Manifest((Entry('head/kernel', 'reset', '', (4, 2), None, 'float32'),))
    found = compatibility.check(config_for(), CARD, clean, manifest=fresh)
    assert [f.level for f in found] == ['note']


def test_licences_of_the_source_and_of_the_data():
    data = data_of(licence='CC-BY-NC-4.0', train=scenes(4), test=scenes(4, 300))
    card = {**CARD, 'licence': 'GPL-3.0'}
    found = compatibility.check(config_for(), card, data)
    assert [f.level for f in found if f.topic == 'licence'] == ['warning', 'warning']
    found = compatibility.check(config_for(), card, data, commercial=True)
    assert [f.level for f in found if f.topic == 'licence'] == ['disqualified', 'warning']


@pytest.mark.parametrize(
    ('trained_on', 'name', 'told'),
    [
        ('ImageNet-1k (ILSVRC 2012)', 'stanford_dogs:0.2.0', True),
        ('Food-101 and others', 'food101:2.0.0', True),
        ('ImageNet-1k (ILSVRC 2012)', 'imagenette/full-size-v2:1.0.0', True),
        ('ImageNet-1k (ILSVRC 2012)', 'imagenet2012:5.1.0', True),
        ('CIFAR-10, 50,000 pictures in 10 classes', 'cifar10:3.0.2', True),
        ('CIFAR-10, 50,000 pictures in 10 classes', 'cifar100:3.0.2', False),
        ('ImageNet-1k (ILSVRC 2012)', 'oxford_iiit_pet:3.2.0', False),
        ('ImageNet-1k (ILSVRC 2012)', 'net:1.0.0', False),
        ('ImageNet-21k, then ImageNet-1k', 'imagenet_resized/8x8:0.1.0', True),
        ('a million pictures', 'pictures_of_pets:1.0.0', False),
        ('ImageNet-1k', 'imagenet_v2:3.0.0', False),  # new pictures, which is its point
        ('unknown', 'unknown_set:1.0.0', False),
    ],
)
def test_a_set_that_the_source_was_trained_on_by_name(trained_on, name, told):
    about = compatibility.about.About('a', training_data=trained_on)
    assert [f.level for f in leakage.by_name(about, name)] == ['warning'] * told
    ours = dataclasses.replace(about, own=True)  # its splits are known
    assert [f.level for f in leakage.by_name(ours, name)] == ['note'] * told


def test_real_digits_and_cards_of_the_shelf(small_config):
    config = small_config()
    data = open_data(config.data, config.seed)
    assert compatibility.check_target(data) == []
    card = shelf.find('', 'cifar-resnet20').to_json()
    found = compatibility.check(config, card, data)
    assert [(f.level, f.topic) for f in found][:2] == [
        ('disqualified', 'input'),  # one channel
        ('warning', 'input'),  # 8x8
    ]
    assert compatibility.worst(compatibility.check(config, None, data)) == ''


def test_pictures_of_a_streamed_split_are_never_held_together(small_config, monkeypatch):
    config = small_config().data
    config.in_memory = 'off'
    split = open_data(config, 0).split('train')
    monkeypatch.setattr(type(split.records), 'decoded', None)
    found = leakage.sample(split, split.records.form, 20, near=False)
    assert len(found.prints) == 20


@pytest.mark.parametrize(
    ('action', 'names', 'told'),
    [('loaded', ['dog', 'cat'], 1), ('loaded', ['Cats', 'dog'], 0), ('reset', ['dog', 'cat'], 0)],
)
def test_compare_warns_of_a_reused_head_with_other_classes(clean, action, names, told):
    card = {'config': {}, 'label_names': names, 'title': 'Pets'}
    entry = Entry('head/kernel', action, 'head/kernel', (8, 2), (8, 2), 'float32')
    manifest = Manifest((entry,))
    experiment = SimpleNamespace(card=card, data=clean, manifest=manifest)
    found = results.mixed_labels(experiment)
    assert len(found) == told
    assert all("class 0 is 'dog' and that of the data is 'cat'" in text for text in found)
