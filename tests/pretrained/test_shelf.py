"""The shelf: finding a source's card, checking its file, applying what it declares."""

import hashlib
import json

import pytest
from ml_collections import ConfigDict

from tljax import config as config_lib
from tljax.errors import UserError
from tljax.pretrained import inputs, shelf
from tljax.pretrained.shelf import Card

TOML = """
name = "small"
architecture = "resnet"
uris = ["url:https://a.org/x/small-{starts}.pth#sha256={starts}", "hf://org/small", "package:small"]
licence = "MIT"
[input]
image_size = 32
resize = 36
interpolation = "bicubic"
channels = 3
mean = [0.5, 0.4, 0.3]
std = [0.2, 0.2, 0.2]
"""


@pytest.fixture
def shelved(tmp_path, monkeypatch):
    """One card on the shelf, and the file that it describes."""
    starts = hashlib.sha256(b'weights').hexdigest()[:8]
    folder = tmp_path / 'cards'
    folder.mkdir()
    (folder / 'small.toml').write_text(TOML.format(starts=starts))
    monkeypatch.setattr(shelf, 'CARDS', folder)
    shelf.known.cache_clear()
    file = tmp_path / f'small-{starts}.pth'
    file.write_bytes(b'weights')
    yield file
    shelf.known.cache_clear()


def config(uri, **data):
    made = config_lib.default()
    made.source.uri = uri
    made.data.update(data)
    return made


def test_a_card_is_found_by_file_name_hub_package_or_name(shelved):
    for uri in (str(shelved), 'hf://org/small@v1', 'package:small/inside.pth', 'small'):
        assert shelf.find(uri, 'small' if uri == 'small' else '').licence == 'MIT'
    unknown = shelf.find('hf://org/other')
    assert (unknown.name, unknown.licence, unknown.training_data) == 3 * (shelf.UNKNOWN,)


def test_a_card_of_ones_own(shelved, tmp_path):
    path = tmp_path / 'own.toml'
    path.write_text('name = "own"\nlicence = "mine"\n')
    assert shelf.find('anything.pth', str(path)).licence == 'mine'


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('name = "x"\nlicense = "MIT"', "unknown key 'license'. Did you mean 'licence'"),
        ('licence = "MIT"', 'has no name'),
        ('name = ', 'cannot be read'),
    ],
)
def test_wrong_cards(tmp_path, text, said):
    path = tmp_path / 'own.toml'
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        shelf.find('x', str(path))
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_unknown_name_of_a_card(shelved):
    with pytest.raises(UserError, match="no card 'smal'"):
        shelf.find('x', 'smal')


def test_a_file_of_a_known_name_must_be_that_file(shelved):
    card = shelf.find(str(shelved))
    assert shelf.check_digest(card, str(shelved), shelved) == hashlib.sha256(b'weights').hexdigest()
    shelved.write_bytes(b'other')
    with pytest.raises(UserError, match='damaged, or another file'):
        shelf.check_digest(card, str(shelved), shelved)


def test_what_a_card_declares_is_applied_where_the_config_is_silent(shelved):
    plain = inputs.applied(config(str(shelved))).data
    assert (plain.image_size, plain.resize, plain.channels) == (32, 36, 3)
    assert (plain.mean, plain.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    own = config(str(shelved), image_size=64, mean=(0.1,), interpolation='bilinear')
    applied = inputs.applied(own)
    assert (applied.data.image_size, applied.data.resize) == (64, 72)  # the same share is cut
    assert (applied.data.mean, applied.data.std) == ((0.1,), ())  # a pair, or none of it
    told = inputs.differences(applied, shelf.find(str(shelved)))
    assert told == [
        'data.image_size is 64, the card says 32',
        "data.interpolation is 'bilinear', the card says 'bicubic'",
        'data.mean is (0.1,), the card says (0.5, 0.4, 0.3)',
        'data.std is (), the card says (0.2, 0.2, 0.2)',
    ]
    assert own.data.std == ()  # the config that was given stays as it is


def test_nothing_is_applied_without_a_card(shelved):
    for uri in ('', 'hf://org/other'):
        assert inputs.applied(config(uri)).data == config(uri).data


def test_a_model_of_our_own_asks_for_what_it_was_trained_with(tmp_path):
    (tmp_path / 'card.json').write_text('{"config": {"data": {"mean": [0.3], "image_size": 16}}}')
    data = inputs.applied(config(str(tmp_path))).data
    assert (data.mean, data.image_size) == ((0.3,), 16)
    (tmp_path / 'card.json').write_text('{"config": 3}')
    assert inputs.applied(config(str(tmp_path))).data.mean == ()


@pytest.mark.parametrize(
    ('data', 'said'),
    [
        ({'image_size': 'large'}, "data.image_size takes int, not 'large'"),
        ({'image_size': None}, 'data.image_size takes int, not None'),
        ({'mean': 5}, 'data.mean takes tuple, not 5'),
        ({'interpolation': 'evil'}, "data.interpolation is 'evil'"),
    ],
)
def test_a_card_that_asks_for_what_no_config_may_have_is_refused(tmp_path, data, said):
    (tmp_path / 'card.json').write_text(json.dumps({'config': {'data': data}}))
    with pytest.raises(UserError, match=rf'the card of {tmp_path}\.{said}'):
        inputs.applied(config(str(tmp_path)))


def test_a_card_cannot_name_a_recipe_to_be_run(tmp_path):
    evil = tmp_path / 'evil.py'
    evil.write_text('raise SystemExit("it was run")')
    told = {'config': {'data': {'tokenizer': f'config:{evil}'}}}
    (tmp_path / 'card.json').write_text(json.dumps(told))
    assert inputs.applied(config(str(tmp_path))).data.tokenizer == ''


def test_a_card_nested_without_end_asks_for_nothing(tmp_path):
    (tmp_path / 'card.json').write_text('[' * 100_000)
    assert inputs.applied(config(str(tmp_path))).data.mean == ()


def test_a_recipe_as_source_asks_for_what_its_config_says():
    made = inputs.applied(config('config:configs/image/pets.py:smoke_source'))
    assert isinstance(made, ConfigDict)
    assert (made.data.channels, made.data.image_size) == (3, 8)


@pytest.mark.parametrize('tokenizer', ['', 'bpe(300)', 'a/tokenizer.json'])
def test_a_recipe_that_trains_a_tokenizer_on_its_own_texts_is_asked_for_it(tokenizer, tmp_path):
    """Of the target's texts it would be another one, though it has as many tokens."""
    recipe = tmp_path / 'recipe.py'
    recipe.write_text(
        'from tljax import config as base\n'
        'from tljax.models import arguments\n\n'
        "def get_config(arg=''):\n"
        '    config = base.default()\n'
        "    config.data.name = 'corpus'\n"
        "    config.model = arguments('gpt2')\n"
        f'    config.data.tokenizer = {tokenizer!r}\n'
        '    return config\n'
    )
    own = not tokenizer.startswith('a/')
    applied = inputs.applied(config(f'config:{recipe}')).data.tokenizer
    assert applied == (f'config:{recipe}' if own else tokenizer)


def test_the_list_can_be_narrowed(shelved):
    assert 'small: unknown' in shelf.table(architecture='resnet')
    with pytest.raises(UserError, match='Architectures: resnet'):
        shelf.table(architecture='vit')


def test_a_card_says_what_it_does_not_know():
    assert Card('x').to_json()['licence'] == 'unknown'
