"""From a file to a model: the module, its card, and what a target must agree with."""

import jax
import numpy as np
import pytest
from parity_support import Case, batch_of, leaves_of, ours, scheme_of

from tljax import models, pretrained
from tljax.errors import UserError
from tljax.models.build import MODELS, factory_of
from tljax.pretrained import porter
from tljax.pretrained.load import INPUT

CASE = Case(
    'x',
    'bert',
    dict(width=32, layers=2, heads=2, hidden=64, vocabulary=50, positions=16, pool='cls'),
    {'tokens': (12,)},
    3,
    'huggingface',
)


@pytest.fixture
def file(tmp_path):
    """BERT under its published names, without a word on the number of heads."""
    arguments = {**models.arguments('bert'), **CASE.arguments}
    np.savez(tmp_path / 'bert.npz', **porter.unport(leaves_of(CASE), scheme_of(CASE), arguments))
    return tmp_path / 'bert.npz'


def test_the_module_computes_what_the_original_computes(file):
    module = pretrained.load(str(file)).module(heads=2)
    got = module({'tokens': batch_of(CASE)['tokens']})
    np.testing.assert_allclose(got, ours(CASE), rtol=1e-5, atol=1e-5)


def test_a_missing_head_is_fresh_and_the_features_are_the_files(file, tmp_path):
    arrays = {k: v for k, v in np.load(file).items() if not k.startswith('classifier')}
    np.savez(tmp_path / 'body.npz', **arrays)
    whole, body = (pretrained.load(str(path)) for path in (file, tmp_path / 'body.npz'))
    assert body.found.outputs == 0
    batch = {'tokens': batch_of(CASE)['tokens']}
    np.testing.assert_array_equal(
        body.module(heads=2).features(batch), whole.module(heads=2).features(batch)
    )


def test_an_unknown_source_gets_a_card_that_says_so(file, caplog):
    with caplog.at_level('WARNING', logger='absl'):
        card = pretrained.load(str(file)).card
    assert 'has no card' in caplog.text
    assert 'Check that config.data.tokenizer is what it was trained with.' in caplog.text
    assert (card.licence, card.training_data) == ('unknown', 'unknown')
    assert (card.architecture, card.scheme, card.classes) == ('bert', 'huggingface', 3)
    assert card.source.startswith(f'{file}#sha256=')


def test_of_each_modality_an_input_is_named():
    parts = {factory_of(name).reads for name in MODELS}
    assert parts == set(INPUT)


@pytest.fixture
def found(file, tmp_path):
    (tmp_path / 'config.json').write_text(
        '{"model_type": "bert", "num_attention_heads": 2, "hidden_act": "relu", '
        '"layer_norm_eps": 1e-5}'
    )
    return pretrained.find(str(file))[0]


def test_what_shapes_do_not_show_must_agree(found):
    config = {**models.arguments('bert'), **found.arguments}
    pretrained.check_arguments(found, config)
    for key, wrong, right in (('heads', 4, '2'), ('activation', 'gelu', "'relu'")):
        with pytest.raises(UserError) as caught:
            pretrained.check_arguments(found, {**config, key: wrong})
        assert f'--config.model.{key}={right}' in str(caught.value)


def test_what_shapes_show_is_told_and_left_to_surgery(found, caplog):
    config = {**models.arguments('bert'), **found.arguments, 'layers': 1}
    with caplog.at_level('WARNING', logger='absl'):
        pretrained.check_arguments(found, config)
    assert 'config.model.layers is 1, the source has 2' in caplog.text


def test_what_the_file_does_not_tell_is_the_configs(file):
    found = pretrained.find(str(file))[0]
    assert 'heads' in found.guessed
    config = {**models.arguments('bert'), **found.arguments, 'heads': 4}
    pretrained.check_arguments(found, config)


def test_reading_needs_no_accelerator_memory(file):
    leaves = pretrained.load(str(file)).leaves
    assert all(type(leaf) is np.ndarray for leaf in leaves.values())
    assert not any(isinstance(leaf, jax.Array) for leaf in leaves.values())


def test_a_recipe_that_leaves_an_argument_out_has_its_default(found):
    with pytest.raises(UserError, match=r'--config\.model\.activation='):
        pretrained.check_arguments(found, {'name': 'bert', 'heads': 2})


def test_a_card_settles_what_the_file_does_not_tell(file, tmp_path, caplog):
    assert 'heads' in pretrained.find(str(file))[0].guessed
    assert 'Guessed: ' in caplog.text
    card = tmp_path / 'own.toml'
    card.write_text('name = "own"\narchitecture = "bert"\n[arguments]\nheads = 4\n')
    found, _ = pretrained.find(str(file), card=str(card))
    assert found.arguments['heads'] == 4
    assert 'heads' not in found.guessed


@pytest.mark.parametrize(
    ('text', 'said'),
    [('architecture = "vit"', 'is that of a vit'), ('[arguments]\nlayers = 3', 'says 3')],
)
def test_another_models_card_is_refused(file, tmp_path, text, said):
    card = tmp_path / 'own.toml'
    card.write_text(f'name = "own"\n{text}\n')
    with pytest.raises(UserError) as caught:
        pretrained.find(str(file), card=str(card))
    assert said in str(caught.value)
