"""A source of texts whose tokenizer is not known: its token numbers would mean something else."""

import csv
import json

import numpy as np
import pytest
from parity_support import Case, leaves_of, scheme_of

from tljax import cli
from tljax import config as config_lib
from tljax.data.text import choosing
from tljax.data.text import tokenizer as tokenizers
from tljax.errors import UserError
from tljax.pretrained import inputs, porter
from tljax.train import sources

SIZES = dict(width=8, layers=1, heads=2, hidden=12, vocabulary=300, positions=16, pool='first')
EXAMPLE = {'tokens': (6,), 'mask': (6,), 'types': (6,)}
CASE = Case('x', 'bert', SIZES, EXAMPLE, 2, 'huggingface')
TOLD = {'model_type': 'bert', 'num_attention_heads': 2, 'max_position_embeddings': 16}
RECIPE = """
from tljax import config as base

def get_config(arg=''):
    config = base.default()
    config.model = {model}
    config.data.update(name='table', dir={dir!r}, text='body', label='kind', prepared={prepared!r})
    config.source.uri = {uri!r}
    config.rank.sources = ({uri!r},)
    config.transfer.reset = ('head/.*',)
    return config
"""


@pytest.fixture
def weights(tmp_path):
    """A folder with a small BERT as PyTorch's users publish it, and no tokenizer."""
    folder = tmp_path / 'weights'
    folder.mkdir()
    np.savez(folder / 'model.npz', **porter.unport(leaves_of(CASE), scheme_of(CASE), {}))
    (folder / 'config.json').write_text(json.dumps(TOLD))
    return folder / 'model.npz'


@pytest.fixture
def recipe(tmp_path):
    """recipe(uri='', model=...) -> path of a recipe on a table of texts."""
    table = [('body', 'kind'), *(20 * [('win a lamp', 'spam'), ('the notes', 'ham')])]
    with (tmp_path / 'mail.csv').open('w', newline='') as file:
        csv.writer(file).writerows(table)

    def write(name='recipe', uri='', model="{'name': 'source'}"):
        path = tmp_path / f'{name}.py'
        text = RECIPE.format(
            model=model,
            dir=str(tmp_path / 'mail.csv'),
            prepared=str(tmp_path / 'prepared'),
            uri=str(uri),
        )
        path.write_text(text)
        return path

    return write


def config_of(path, uri, **data):
    config = config_lib.load(str(path))
    config.source.uri = str(uri)
    config.data.update(data)
    return config


def applied(config):
    return inputs.applied(sources.with_model(config, quiet=True)).data.tokenizer


def test_what_is_not_known_is_told_with_where_it_was_looked_for(weights, recipe):
    with pytest.raises(UserError) as caught:
        applied(config_of(recipe(), weights))
    assert str(caught.value) == (
        f"config.data.tokenizer is empty, and that of the source '{weights}' is not known: "
        f'{weights.parent} has no tokenizer.json, vocab.txt or vocab.json. Put it there, or name '
        "it in config.data.tokenizer. 'bpe(4096)' there, with 'backbone/token/.*' in "
        'config.transfer.reset, learns new tokens on purpose.'
    )


def test_what_is_named_or_lies_beside_the_weights_is_taken(weights, recipe):
    assert applied(config_of(recipe(), weights, tokenizer='bpe(300)')) == 'bpe(300)'
    beside = weights.parent / 'tokenizer.json'
    beside.write_text(tokenizers.trained(['the notes'], 300).text)
    assert applied(config_of(recipe(), weights)) == str(beside)


def test_from_scratch_texts_have_a_tokenizer_of_their_own(weights, recipe):
    model = "{'name': 'bert', 'width': 8}"
    assert applied(config_of(recipe(model=model), '')) == ''
    config = config_of(recipe(model=model), weights)
    with config.unlocked():
        config.transfer.policy = 'from_scratch'
    assert applied(config) == ''


def test_words_on_a_card_are_no_tokenizer(weights, recipe, tmp_path):
    card = tmp_path / 'card.toml'
    card.write_text('name = "x"\nmodality = "text"\n[input]\ntokenizer = "WordPiece"\nlength = 9\n')
    config = config_of(recipe(), weights)
    config.source.card = str(card)
    with pytest.raises(UserError, match='is not known'):
        applied(config)
    config.data.tokenizer = 'bpe(300)'
    assert inputs.applied(config).data.length == 9
    assert not inputs.differences(inputs.applied(config), inputs.shelf.find('x', str(card)))


def test_a_recipe_without_one_has_that_of_its_own_texts(recipe):
    source = recipe('source', model="{'name': 'bert', 'width': 8}")
    uri = f'config:{source}'
    assert applied(config_of(recipe(), uri)) == uri


def test_a_recipe_with_its_own_sources_cannot_lend_it(recipe, weights):
    other = recipe('other', uri=weights)
    with pytest.raises(UserError, match=f"has that of its own source, '{weights}'"):
        choosing.tokenizer_of(config_of(recipe(), '', tokenizer=f'config:{other}').data, None)


def test_a_recipe_of_pictures_has_none():
    config = config_lib.load('configs/digits.py')
    assert applied(config) == ''


def test_a_model_of_our_own_must_have_its_tokenizer(recipe, tmp_path):
    model = tmp_path / 'model'
    model.mkdir()
    own = recipe(model="{'name': 'bert', 'width': 8}")
    told = {'model': {'name': 'bert', 'width': 8}, 'config': {'data': {'tokenizer': 'bpe(300)'}}}
    (model / 'card.json').write_text(json.dumps(told))
    # That it was trained on the source's own texts does not say what it was.
    with pytest.raises(UserError, match=f'{model} has no tokenizer.json'):
        applied(config_of(own, model))
    (model / 'tokenizer.json').write_text(tokenizers.trained(['the notes'], 300).text)
    assert applied(config_of(own, model)) == str(model / 'tokenizer.json')


@pytest.mark.filterwarnings('ignore::DeprecationWarning')  # of what reads a recipe
@pytest.mark.parametrize('command', ['inspect', 'rank', 'train'])
def test_commands_say_it_in_one_line(command, weights, recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, 'set_up_jax', lambda: None)
    monkeypatch.setattr(cli, 'set_up_logging', lambda: None)
    words = [f'--config={recipe(uri=weights)}', f'--workdir={tmp_path / "run"}', '--quiet']
    status = cli.main(['launch.py', command, *words])
    told = capsys.readouterr().err
    assert status == 2
    assert told.startswith('tljax: config.data.tokenizer is empty, and that of the source ')
    assert str(weights.parent) in told
    assert told.count('\n') == 1
    assert not (tmp_path / 'run').exists()
