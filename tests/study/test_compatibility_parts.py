"""Each compatibility check alone: licences, labels, input, pixels, texts, sounds."""

import jax
import numpy as np
import pytest

from tljax import config as config_lib
from tljax.pretrained import inputs as declared_inputs
from tljax.pretrained import shelf
from tljax.study.compatibility import inputs, labels, licences, wording
from tljax.study.compatibility.about import About, about
from tljax.study.compatibility.finding import Finding, listed, ordered, worst

IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def config_for(**data):
    config = config_lib.default()
    config.data.update(data)
    return config


def image(height, width, channels):
    return {'image': jax.ShapeDtypeStruct((height, width, channels), np.uint8)}


def told(findings, topic=''):
    return [(f.level, f.topic) for f in findings if topic in ('', f.topic)]


class TestFindings:
    def test_the_worst_come_first_and_otherwise_as_they_were(self):
        found = [
            Finding(level, what, what, '', '')
            for level, what in zip(
                ['note', 'warning', 'disqualified', 'note', 'warning'], 'abcde', strict=True
            )
        ]
        assert [f.what for f in ordered(found)] == list('cbead')
        assert worst(found) == 'disqualified'
        assert worst([]) == ''

    def test_a_level_that_is_none_is_refused(self):
        with pytest.raises(AssertionError):
            Finding('error', 'input', '', '', '')

    def test_text_and_json(self):
        found = Finding('note', 'labels', 'It is so.', '', 'Do it.', ({'a': 1},))
        assert listed([found]) == 'note, labels: It is so. Do it.'
        assert found.to_json()['examples'] == [{'a': 1}]


class TestCards:
    def test_every_card_of_the_shelf_is_understood(self):
        for card in shelf.known():
            found = about(card.to_json())
            assert found.name == card.name
            assert found.licence == card.licence
            assert found.modality == card.modality
            assert 'not known here' not in licences.terms(card.licence), card.licence
            assert 'unknown' not in licences.terms(card.licence), card.licence

    def test_class_names_are_taken_only_where_all_are_listed(self):
        assert about({'classes': 3, 'class_names': 'a, b, c'}).label_names == ('a', 'b', 'c')
        assert about({'classes': 4, 'class_names': 'a, b, c'}).label_names == ()
        assert about({'classes': 0, 'class_names': ''}).label_names == ()

    def test_a_model_of_our_own_tells_what_its_config_had(self):
        config = config_lib.plain(config_for(mean=(0.5,), std=(0.25,), image_size=0))
        card = {
            'config': config,
            'title': 'Ours',
            'data': 'digits:1.0.0',
            'label_names': ['a', 'b'],
            'example': {'image': [8, 8, 1], 'label': []},
            'source': None,
        }
        found = about(card)
        assert found.input['image_size'] == 8  # as stored, not the config's 0
        assert found.input['channels'] == 1
        assert (found.input['mean'], found.input['std']) == ((0.5,), (0.25,))
        assert (found.modality, found.licence, found.label_names) == ('image', '', ('a', 'b'))
        # Through JSON, as model directories keep it, tuples are lists.
        assert about({**card, 'source': {'name': 'x', 'licence': 'CC-BY-NC-4.0'}}).licence == (
            'CC-BY-NC-4.0'
        )

    def test_no_card_says_nothing_and_speaks_against_nothing(self):
        assert about(None) == about({})
        assert not licences.findings(about(None), '', commercial=True)
        assert not inputs.findings(about(None), config_for(), image(8, 8, 1))


@pytest.mark.parametrize(
    ('licence', 'wanted'),
    [
        ('Apache-2.0', []),
        ('MIT (the code and weights of keras-squeezenet)', []),
        ('BSD-3-Clause', []),
        ('CC BY 4.0', []),
        ('CC0-1.0', []),
        ('CC-BY-NC-4.0 (non-commercial; SWAG)', ['non-commercial']),
        ('CC-BY-NC-ND-4.0', ['no-derivatives', 'non-commercial']),
        ('CC BY-SA 4.0', ['share-alike']),
        ('Attribution-ShareAlike', ['share-alike']),
        ('for non commercial use', ['non-commercial']),
        ('GPL-3.0', ['copyleft']),
        ('LGPL-2.1-only', ['copyleft']),
        ('AGPL-3.0', ['copyleft']),
        ('openrail', ['own terms']),
        ('Llama 3 Community License', ['own terms']),
        ('', ['unknown']),
        ('Unknown', ['unknown']),
        ('that of its publisher', ['not known here']),
        ('Prosperity', ['not known here']),
        ('Sandia', ['not known here']),  # neither SA nor ND
    ],
)
def test_terms_of_licences(licence, wanted):
    assert sorted(licences.terms(licence)) == wanted
    assert licences.terms(licence) <= licences.WHY.keys()


class TestLicences:
    def test_levels_depend_on_the_use(self):
        source = About('a', licence='CC-BY-NC-4.0')
        assert told(licences.findings(source, '', False)) == [('warning', 'licence')]
        assert told(licences.findings(source, '', True)) == [('disqualified', 'licence')]
        assert not licences.findings(About('a', licence='MIT'), '', True)
        assert told(licences.findings(About('a'), '', False)) == [('warning', 'licence')]

    def test_conflicts_go_both_ways_and_none_with_oneself(self):
        assert licences.conflicts('GPL-3.0', 'CC-BY-NC-4.0') == [('copyleft', 'non-commercial')]
        assert licences.conflicts('CC-BY-NC-4.0', 'GPL-3.0') == [('non-commercial', 'copyleft')]
        for same in ('CC-BY-SA-4.0', 'CC-BY-NC-SA-4.0', 'GPL-3.0', 'MIT'):
            assert licences.conflicts(same, same) == []
        assert licences.conflicts('MIT', 'CC-BY-SA-4.0') == []
        found = licences.findings(About('a', licence='CC-BY-SA-4.0'), 'CC-BY-NC-4.0', False)
        assert told(found) == [('warning', 'licence')] * 2
        assert 'CC-BY-NC-4.0' in found[1].what


class TestLabels:
    def test_overlap_counts_each_class_once(self):
        found = labels.overlap(['cat', 'Cats', 'dog'], ['cat', 'dogs', 'cow', 'Cat'])
        assert found.exact == ('cat',)
        assert found.loose == (('dogs', 'dog'), ('Cat', 'cat'))
        assert found.missing == ('cow',)
        assert found.share == 0.75
        assert labels.overlap([], []).share == 0

    @pytest.mark.parametrize(
        ('one', 'other'),
        [
            ('Egyptian_Mau', 'egyptian maus'),
            ('horses', 'horse'),
            ('buses', 'bus'),
            ('boxes', 'box'),
            ('Glasses', 'glass'),
            ('puppies', 'puppy'),
            ('church', 'churches'),
            ('T-shirt', 't shirts'),
        ],
    )
    def test_the_same_but_for_case_plural_and_punctuation(self, one, other):
        assert labels.key(one) == labels.key(other)

    @pytest.mark.parametrize(('one', 'other'), [('cat', 'car'), ('1', '11'), ('news', 'new york')])
    def test_other_words_stay_other(self, one, other):
        assert labels.key(one) != labels.key(other)

    def test_a_reused_head_of_other_classes_is_warned_of(self):
        source = About('a', label_names=('cat', 'dog'), classes=2)
        found = labels.findings(source, ('dog', 'cat'), head_is_reused=True)
        assert told(found) == [('warning', 'labels'), ('note', 'labels')]
        assert "class 0 is 'cat' and that of the data is 'dog'" in found[0].what
        assert told(labels.findings(source, ('dog', 'cat'), False)) == [('note', 'labels')]
        assert told(labels.findings(source, ('Cat', 'dogs'), True)) == [('note', 'labels')]

    def test_classes_that_are_not_listed(self):
        assert 'not listed' in labels.findings(About('a', classes=9), ('x',), True)[0].what
        assert labels.findings(About('a'), ('x',), True) == []


class TestInput:
    def card(self, name='torchvision-resnet18'):
        return about(shelf.find('', name).to_json())

    def test_a_config_with_the_cards_input_has_nothing_against_it(self):
        for card in shelf.known():
            if card.modality != 'image':
                continue
            config = config_lib.default()
            config.data.update(declared_inputs.declared(card, config.data))
            size = config.data.image_size
            found = inputs.findings(about(card.to_json()), config, image(size, size, 3))
            assert found == [], card.name

    def test_another_modality_disqualifies(self):
        found = inputs.findings(self.card('gpt2'), config_for(), image(8, 8, 3))
        assert told(found) == [('disqualified', 'input')]
        assert 'text' in found[0].what

    def test_another_number_of_channels_disqualifies_unless_kernels_are_made_to_fit(self):
        source, config = About('a', input={'channels': 3}), config_for()
        assert told(inputs.findings(source, config, image(8, 8, 1)), 'input') == [
            ('disqualified', 'input')
        ]
        config.transfer.resize = (('stem/.*', 'channels'),)
        assert told(inputs.findings(source, config, image(8, 8, 1)), 'input') == [('note', 'input')]

    @pytest.mark.parametrize(('size', 'level'), [(200, 'note'), (112, 'warning'), (448, 'warning')])
    def test_another_size(self, size, level):
        source = About('a', input={'image_size': 224, **IMAGENET})
        found = inputs.findings(source, config_for(**IMAGENET), image(size, size, 3))
        assert told(found) == [(level, 'input')]

    @pytest.mark.parametrize(('stored', 'level'), [(32, 'warning'), (150, 'note'), (500, None)])
    def test_enlarged_pictures(self, stored, level):
        source = About('a', input={'image_size': 224, **IMAGENET})
        config, example = config_for(**IMAGENET), image(224, 224, 3)
        found = inputs.findings(source, config, example, (stored, stored, 3))
        assert told(found) == ([(level, 'input')] if level else [])
        assert inputs.findings(source, config, example, (None, None, 3)) == []

    def test_normalisation_is_told_as_what_it_does(self):
        source = About('a', input=IMAGENET)
        found = inputs.findings(source, config_for(), image(8, 8, 3))
        assert told(found) == [('warning', 'values')]
        black, white = -np.divide(IMAGENET['mean'], IMAGENET['std']), 0
        white = np.divide(1 - np.array(IMAGENET['mean']), IMAGENET['std'])
        assert f'{black.mean():.3g} to {white.mean():.3g}' in found[0].what
        assert '0 to 1,' in found[0].what

    def test_half_a_hundredth_is_no_other_normalisation(self):
        source = About('a', input=IMAGENET)
        near = dict(mean=(0.485, 0.456, 0.4065), std=(0.229, 0.224, 0.2255))
        assert inputs.findings(source, config_for(**near), image(8, 8, 3)) == []
        half = dict(mean=(0.5,), std=(0.25,))
        found = inputs.findings(source, config_for(**half), image(8, 8, 3))
        assert told(found) == [('note', 'values')]
        assert told(
            inputs.findings(source, config_for(mean=(0.5,), std=(0.5,)), image(8, 8, 3))
        ) == [('warning', 'values')]

    def test_unknown_normalisation_is_a_warning(self):
        found = inputs.findings(About('a', input={'channels': 3}), config_for(), image(8, 8, 3))
        assert told(found) == [('warning', 'values')]


class TestPixels:
    def test_the_wrong_way_round(self):
        rng = np.random.default_rng(0)
        dark = rng.integers(0, 60, (20, 8, 8, 1), np.uint8)
        source = About('a', input={'channels': 1})
        found = inputs.pixel_findings(source, 255 - dark, dark)
        assert told(found) == [('warning', 'values')]
        assert 'lighter' in found[0].what
        assert inputs.pixel_findings(source, dark, dark[::-1]) == []
        # Without the source's pictures or mean there is nothing to compare with.
        assert inputs.pixel_findings(source, dark) == []
        found = inputs.pixel_findings(About('a', input={'mean': (0.5,)}), dark)
        assert told(found) == [('warning', 'values')]
        assert 'darker' in found[0].what

    def test_grey_pictures_for_a_source_of_colours(self):
        rng = np.random.default_rng(0)
        grey = np.repeat(rng.integers(0, 256, (9, 8, 8, 1), np.uint8), 3, -1)
        colour = rng.integers(0, 256, (9, 8, 8, 3), np.uint8)
        source = About('a', input={'channels': 3})
        assert told(inputs.pixel_findings(source, grey)) == [('note', 'values')]
        assert inputs.pixel_findings(source, colour) == []
        assert told(inputs.pixel_findings(source, grey, colour)) == [('note', 'values')]
        assert inputs.pixel_findings(source, grey, grey[::-1]) == []

    def test_values_that_nothing_can_be_learnt_from(self):
        rng = np.random.default_rng(0)
        pictures = rng.integers(0, 256, (9, 8, 8, 1), np.uint8)
        assert inputs.value_findings(pictures) == []
        pictures[2] = 7
        found = inputs.value_findings(pictures)
        assert told(found) == [('warning', 'values')]
        assert found[0].what.startswith('1 of 9')
        found = inputs.value_findings(pictures // 16)
        assert '0 to 15 of 255' in found[0].what
        assert inputs.value_findings(pictures[:0]) == []

    def test_numbers_that_are_none_disqualify(self):
        values = np.zeros((4, 8), np.float32)
        assert inputs.value_findings(values) == []
        values[1, 3] = np.nan
        values[2, 0] = np.inf
        found = inputs.value_findings(values)
        assert told(found) == [('disqualified', 'values')]
        assert found[0].what.startswith('2 of 4')
        assert told(inputs.value_findings(np.zeros((4, 8)))) == [('note', 'dtype')]
        assert told(inputs.value_findings(np.zeros((4, 8), np.int16))) == [('warning', 'dtype')]

    def test_dtypes_of_leaves(self):
        def leaves(*dtypes):
            return {d: jax.ShapeDtypeStruct((2,), d) for d in dtypes}

        assert inputs.dtype_findings(About('a'), leaves('float32')) == []
        assert inputs.dtype_findings(About('a'), {}) == []
        found = inputs.dtype_findings(About('a'), leaves('float32', 'bfloat16', 'float16', 'int8'))
        assert told(found) == [('warning', 'dtype'), ('note', 'dtype')]
        assert 'int8' in found[0].what
        assert 'bfloat16, float16' in found[1].what


class TestTexts:
    @staticmethod
    def encode(text):
        """A letter is a token; all but a to m are unknown, 0."""
        return [ord(c) - 96 if 'a' <= c <= 'm' else 0 for c in text.replace(' ', '')]

    def test_coverage_counts(self):
        found = wording.coverage(self.encode, 0, ['abc xyz', 'ab', 'xyz lmz'], positions=5)
        assert found == wording.Coverage(14, 5, 7, 2, 3, ('xyz', 'lmz'))
        assert found.unknown_rate == 0.5
        none = wording.coverage(self.encode, 0, [])
        assert none == wording.Coverage(0, 0, 0, 0, 0, ())
        assert none.unknown_rate == 0
        # A vocabulary of bytes knows everything.
        assert wording.coverage(self.encode, None, ['xyz']).unknown == 0

    def test_findings(self):
        source = About('a')
        found = wording.text_findings(source, wording.Coverage(1000, 800, 2, 0, 10, ('x', 'y')))
        assert told(found) == [('note', 'text')]
        assert '0.2%' in found[0].what
        assert 'x, y' in found[0].what
        found = wording.text_findings(source, wording.Coverage(1000, 800, 100, 1, 10, ('x',)))
        assert told(found) == [('warning', 'text'), ('warning', 'text')]
        found = wording.text_findings(source, wording.Coverage(1000, 100, 0, 0, 10, ()))
        assert 'tokens for a word' in found[0].what
        assert wording.text_findings(source, wording.Coverage(1000, 800, 0, 0, 10, ())) == []


class TestSounds:
    @pytest.mark.parametrize(('rate', 'word'), [(48_000, 'slower'), (8_000, 'faster')])
    def test_another_sampling_rate_disqualifies(self, rate, word):
        source = about(shelf.find('', 'wav2vec2-base').to_json())
        found = wording.sound_findings(source, rate)
        assert told(found) == [('disqualified', 'sound')]
        assert word in found[0].why
        assert ('Above 4000 Hz' in found[0].do) == (rate == 8000)

    def test_the_same_rate_or_none_known_is_fine(self):
        assert wording.sound_findings(About('a', input={'sampling_rate': 16_000}), 16_000) == []
        assert wording.sound_findings(About('a'), 8_000) == []
