"""wav2vec 2.0 against Hugging Face transformers: both kinds, padded and not, under both names."""

import jax
import numpy as np
import pytest
from parity_support import Case, check

from tljax import models, trees
from tljax.errors import UserError
from tljax.pretrained.attempt import attempts_of
from tljax.pretrained.porters import wav2vec2 as porter

CONVS = dict(conv_widths=(16, 24, 20), conv_kernels=(10, 3, 2), conv_strides=(5, 2, 2))
ARGUMENTS = dict(
    **CONVS, width=32, layers=2, heads=4, hidden=48, position_kernel=8, position_groups=4
)
LARGE = dict(conv_norm='layer', conv_bias=True, norm='pre', position_kernel=7)
PLAIN, PADDED = {'audio': (400,)}, {'audio': (400,), 'mask': (400,)}
THEIRS = dict(
    conv_dim=(16, 24, 20),
    conv_kernel=(10, 3, 2),
    conv_stride=(5, 2, 2),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=4,
    vocab_size=6,
    num_labels=6,
    attn_implementation='eager',
)
THEIR_LARGE = dict(
    feat_extract_norm='layer',
    conv_bias=True,
    do_stable_layer_norm=True,
    num_conv_pos_embeddings=7,
)
CASES = {
    name: Case(name, 'wav2vec2', {**ARGUMENTS, **changes}, example, 6, scheme)
    for name, example, scheme, changes in (
        ('wav2vec2', PLAIN, 'huggingface_torch2', {}),
        ('wav2vec2_padded', PADDED, 'huggingface_torch2', {}),
        ('wav2vec2_torch1', PADDED, 'huggingface', {}),
        ('wav2vec2_large', PLAIN, 'huggingface_torch2', LARGE),
        (
            'wav2vec2_large_padded',
            PADDED,
            'huggingface_torch2',
            {**LARGE, 'activation': 'relu', 'epsilon': 1e-2},
        ),
        ('wav2vec2_layer_post', PADDED, 'huggingface_torch2', {**LARGE, 'norm': 'post'}),
        ('wav2vec2_mean', PADDED, 'huggingface_torch2', dict(pool='mean')),
    )
}


@pytest.fixture(scope='module')
def transformers(torchvision):
    return pytest.importorskip('transformers')


def call(module, batch):
    return module(batch['audio'], batch.get('mask')).logits


@pytest.mark.parametrize(
    ('name', 'changes'),
    [
        ('wav2vec2', {}),
        ('wav2vec2_padded', {}),
        ('wav2vec2_large', THEIR_LARGE),
        (
            'wav2vec2_large_padded',
            {
                **THEIR_LARGE,
                'hidden_act': 'relu',
                'feat_extract_activation': 'relu',
                'layer_norm_eps': 1e-2,
            },
        ),
        ('wav2vec2_layer_post', {**THEIR_LARGE, 'do_stable_layer_norm': False}),
    ],
)
def test_same_function(name, changes, transformers):
    config = transformers.Wav2Vec2Config(**{**THEIRS, **changes})
    check(CASES[name], transformers.Wav2Vec2ForCTC(config).eval(), call)


def test_same_function_under_the_names_before_torch_2(transformers):
    import torch

    original = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**THEIRS)).eval()
    conv = torch.nn.Conv1d(32, 32, 8, padding=4, groups=4)
    with pytest.warns(FutureWarning, match='weight_norm'):
        conv = torch.nn.utils.weight_norm(conv, dim=2)
    original.wav2vec2.encoder.pos_conv_embed.conv = conv
    check(CASES['wav2vec2_torch1'], original, call)


def test_same_function_with_the_mean_of_frames(transformers):
    original = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**THEIRS)).eval()

    def mean(module, batch):
        out = module.wav2vec2(batch['audio'], batch['mask']).last_hidden_state
        real = module._get_feature_vector_attention_mask(out.shape[1], batch['mask'])[:, :, None]
        return module.lm_head((out * real).sum(1) / real.sum(1))

    check(CASES['wav2vec2_mean'], original, mean)


BASE = dict(example={'audio': (16000,)}, arguments=models.arguments('wav2vec2'))
KINDS = [
    ('Wav2Vec2Model', 0, 1),
    ('Wav2Vec2ForCTC', 32, 1),
    ('Wav2Vec2ForPreTraining', 0, 1 + 3 + 4),
    ('Wav2Vec2ForSequenceClassification', 0, 1 + 4),
    ('Wav2Vec2ForAudioFrameClassification', 0, 1 + 2),
]


@pytest.mark.parametrize('large', [False, True])
@pytest.mark.parametrize('old', [False, True])
@pytest.mark.parametrize(('kind', 'outputs', 'skipped'), KINDS)
def test_every_tensor_of_a_full_size_file_is_accounted_for(
    kind, outputs, skipped, old, large, transformers
):
    config, shapes = full_size(transformers, kind, large)
    if old:
        names = {'original0': 'weight_g', 'original1': 'weight_v'}
        for new, name in names.items():
            shapes = {k.replace(f'parametrizations.weight.{new}', name): shapes[k] for k in shapes}
    found = next(a for a in attempts_of('wav2vec2', shapes, config.to_dict(), {}) if a.fits)
    assert found.match.scheme.name == ('huggingface' if old else 'huggingface_torch2')
    assert (found.outputs, len(found.match.skipped)) == (outputs, skipped)
    assert not found.guessed
    assert {**models.arguments('wav2vec2'), **found.arguments} == expected_arguments(large)


@pytest.mark.parametrize('large', [False, True])
def test_without_a_config_the_published_models_are_guessed_right(large, transformers):
    _, shapes = full_size(transformers, 'Wav2Vec2ForCTC', large)
    found = next(a for a in attempts_of('wav2vec2', shapes, {}, {}) if a.fits)
    assert {**models.arguments('wav2vec2'), **found.arguments} == expected_arguments(large)
    assert set(found.guessed) == {'heads', 'conv_strides', 'activation', 'epsilon', 'norm'}


def full_size(transformers, kind, large):
    """A config, and names and shapes of a file: of the base model, or of XLSR-53."""
    import torch

    changes = dict(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        feat_extract_norm='layer',
        conv_bias=True,
        do_stable_layer_norm=True,
    )
    config = transformers.Wav2Vec2Config(**(changes if large else {}))
    with torch.device('meta'):
        original = getattr(transformers, kind)(config)
    return config, {name: tuple(value.shape) for name, value in original.state_dict().items()}


def expected_arguments(large):
    changes = dict(width=1024, layers=24, heads=16, hidden=4096)
    changes |= dict(conv_norm='layer', conv_bias=True, norm='pre')
    return {**models.arguments('wav2vec2'), **(changes if large else {})}


@pytest.mark.parametrize('changes', [dict(add_adapter=True), dict(adapter_attn_dim=16)])
def test_adapters_are_not_overlooked(changes, transformers):
    config = transformers.Wav2Vec2Config(**{**THEIRS, **THEIR_LARGE, **changes})
    original = transformers.Wav2Vec2ForCTC(config)
    shapes = {name: tuple(value.shape) for name, value in original.state_dict().items()}
    attempts = list(attempts_of('wav2vec2', shapes, config.to_dict(), {}))
    assert not any(attempt.fits for attempt in attempts)
    assert any('adapter' in name for name in attempts[1].match.unread)


def test_the_config_beside_a_file_decides_what_shapes_do_not_tell(transformers):
    config = transformers.Wav2Vec2Config(
        **{**THEIRS, 'hidden_act': 'gelu_new', 'feat_extract_activation': 'gelu_new'},
        layer_norm_eps=1e-3,
        do_stable_layer_norm=True,
    )
    original = transformers.Wav2Vec2ForCTC(config)
    shapes = {name: tuple(value.shape) for name, value in original.state_dict().items()}
    found = next(a for a in attempts_of('wav2vec2', shapes, config.to_dict(), {}) if a.fits)
    expected = {**ARGUMENTS, 'norm': 'pre', 'epsilon': 1e-3, 'activation': 'gelu_tanh'}
    assert {key: found.arguments[key] for key in expected} == expected


def test_two_activations_are_refused():
    shapes = {'backbone/position/direction': (8, 8, 32)}
    with pytest.raises(UserError, match="feat_extract_activation is 'relu' and hidden_act 'gelu'"):
        porter.arguments(shapes, {'hidden_act': 'gelu', 'feat_extract_activation': 'relu'})


@pytest.mark.parametrize(('large', 'count'), [(False, 94_371_712), (True, 315_438_720)])
def test_parameters_are_as_many_as_theirs_but_one_vector(large, count, transformers):
    # Theirs have besides the vector that stands for masked frames in training.
    import torch

    config, _ = full_size(transformers, 'Wav2Vec2Model', large)
    with torch.device('meta'):
        original = transformers.Wav2Vec2Model(config)
    theirs = sum(value.numel() for value in original.parameters())
    example = {'audio': jax.ShapeDtypeStruct((16000,), np.float32)}
    model = models.build({'name': 'wav2vec2', **expected_arguments(large)}, example, 2)
    ours = trees.flatten(model.shapes()['params'])
    backbone = sum(leaf.size for path, leaf in ours.items() if path.startswith('backbone/'))
    assert (theirs, theirs - backbone) == (count, 1024 if large else 768)
