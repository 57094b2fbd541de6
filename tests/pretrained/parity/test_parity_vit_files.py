"""ViT's files: every tensor of them is accounted for, and what they tell of the model is heard."""

import json

import numpy as np
import pytest
from parity_support import Case, batch_of, error, leaves_of, ours, scheme_of

from tljax import models
from tljax.pretrained import load, porter
from tljax.pretrained.attempt import attempts_of

SIZES = dict(width=32, layers=2, heads=4, hidden=48, patch=8)
LARGE = 0.1  # far from every usual epsilon


@pytest.fixture(scope='module')
def timm(torchvision):
    return pytest.importorskip('timm')


@pytest.fixture(scope='module')
def transformers(torchvision):
    return pytest.importorskip('transformers')


def found_of(shapes, config):
    return next(a for a in attempts_of('vit', shapes, config, {}) if a.fits)


def shapes_of(original):
    return {name: tuple(value.shape) for name, value in original.state_dict().items()}


LARGE_SIZE = dict(width=1024, layers=24, heads=16, hidden=4096)
HUGE_WIDTH = dict(width=1280, layers=2, heads=16, hidden=5120, patch=14)
BARE = dict(global_pool='avg', class_token=False, fc_norm=False)


@pytest.mark.parametrize(
    ('name', 'changes', 'expected', 'side'),
    [
        ('vit_small_patch16_224', {}, dict(width=384, heads=6, hidden=1536), 224),
        ('vit_base_patch32_384', {}, dict(patch=32), 384),
        ('vit_large_patch16_224', {}, LARGE_SIZE, 224),
        # Two blocks of the others, to save time.
        ('vit_huge_patch14_224', dict(depth=2, num_classes=1000), HUGE_WIDTH, 224),
        ('deit_base_patch16_384', dict(depth=2), dict(layers=2), 384),
        (
            'vit_base_patch16_224',
            dict(depth=2, global_pool='avg'),
            dict(layers=2, pool='mean_norm'),
            224,
        ),
        (
            'vit_base_patch16_224',
            dict(depth=2, **BARE),
            dict(layers=2, pool='mean', class_token=False),
            224,
        ),
    ],
)
def test_every_tensor_of_timms_full_sizes(name, changes, expected, side, timm):
    import torch

    with torch.device('meta'):
        original = timm.create_model(name, **changes)
    found = found_of(shapes_of(original), {})
    assert found.outputs == 1000
    assert found.example['image'].shape == (side, side, 3)
    defaults = {key: value for key, value in models.arguments('vit').items() if key != 'name'}
    assert {**defaults, **found.arguments} == {**defaults, **expected}
    # What the scheme implies is what the original has.
    block = original.blocks[0]
    assert found.arguments['epsilon'] == block.norm1.eps
    assert found.arguments['heads'] == block.attn.num_heads
    assert isinstance(block.mlp.act, torch.nn.GELU)
    assert block.mlp.act.approximate == 'none'
    assert 'epsilon' not in found.guessed
    assert ('activation' in found.guessed) is (original.cls_token is None)


def test_which_gelu_is_told_by_a_class_token_or_the_name_in_the_config(timm):
    import torch

    with torch.device('meta'):
        original = timm.create_model('vit_base_patch32_siglip_gap_256', depth=2)
        usual = timm.create_model('vit_base_patch16_siglip_gap_256', depth=2)
    shapes = shapes_of(original)
    assert shapes.keys() == shapes_of(usual).keys()
    # Nothing tells these two apart, so that it must not be said to be known.
    assert type(original.blocks[0].mlp.act) is not type(usual.blocks[0].mlp.act)
    assert 'activation' in found_of(shapes, {}).guessed
    config = {'architecture': 'vit_base_patch32_siglip_gap_256'}
    assert 'activation' in found_of(shapes, config).guessed
    assert 'activation' not in found_of(shapes, {'architecture': 'vit_base_gap_224'}).guessed


@pytest.mark.parametrize(
    'scheme', ['timm', 'timm_fc_norm', 'torchvision', 'huggingface', 'vision_transformer']
)
def test_a_file_that_lost_its_positions_is_refused(scheme):
    pool = 'mean_norm' if scheme == 'timm_fc_norm' else 'cls'
    case = Case('', 'vit', {**SIZES, 'pool': pool}, {'image': (224, 224, 3)}, 5, scheme)
    file = porter.unport(leaves_of(case), scheme_of(case), case.arguments)
    shapes = {name: array.shape for name, array in file.items()}
    assert found_of(shapes, {'num_attention_heads': 4}).match.scheme.name == scheme
    lost = {name: shape for name, shape in shapes.items() if 'pos' not in name}
    assert len(lost) == len(shapes) - 1
    attempts = list(attempts_of('vit', lost, {'num_attention_heads': 4}, {}))
    assert not any(attempt.fits for attempt in attempts)
    best = max(attempts, key=lambda attempt: attempt.nearness)
    assert best.missing == ('backbone/position',)


def test_every_tensor_of_torchvisions_full_size(torchvision):
    import torch

    with torch.device('meta'):
        original = torchvision.models.vit_b_16()
    shapes = shapes_of(original)
    # In files they are called as they were before torchvision 0.13.
    published = {
        key.replace('mlp.0.', 'mlp.linear_1.').replace('mlp.3.', 'mlp.linear_2.'): shape
        for key, shape in shapes.items()
    }
    assert published.keys() != shapes.keys()
    defaults = {key: value for key, value in models.arguments('vit').items() if key != 'name'}
    for names in (shapes, published):
        found = found_of(names, {})
        assert (found.match.scheme.name, found.outputs) == ('torchvision', 1000)
        assert {**defaults, **found.arguments} == defaults
    layer = original.encoder.layers.encoder_layer_0
    assert found.arguments['epsilon'] == layer.ln_1.eps
    assert found.arguments['heads'] == layer.num_heads


@pytest.mark.parametrize(
    ('kind', 'outputs', 'skipped'),
    [
        ('ViTForImageClassification', 2, 0),
        ('ViTModel', 0, 2),  # the pooler
        ('ViTForMaskedImageModeling', 0, 3),  # the decoder, and what hides a patch
    ],
)
def test_every_tensor_of_transformers_full_size(kind, outputs, skipped, transformers):
    import torch

    config = transformers.ViTConfig()
    with torch.device('meta'):
        original = getattr(transformers, kind)(config)
    found = found_of(shapes_of(original), config.to_dict())
    assert (found.match.scheme.name, found.outputs) == ('huggingface_5', outputs)
    assert len(found.match.skipped) == skipped
    defaults = {key: value for key, value in models.arguments('vit').items() if key != 'name'}
    assert {**defaults, **found.arguments} == {**defaults, 'epsilon': 1e-12}
    assert not found.guessed


def test_a_file_that_transformers_saved(transformers, tmp_path):
    import torch

    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=8,
        intermediate_size=48,
        patch_size=8,
        image_size=32,
        layer_norm_eps=LARGE,
    )
    original = transformers.ViTForImageClassification(config).eval()
    original.save_pretrained(tmp_path)
    pretrained = load(str(tmp_path))
    found = pretrained.found
    assert (found.scheme, found.arguments['heads']) == ('huggingface', 8)
    assert (found.arguments['epsilon'], found.guessed) == (LARGE, ())
    case = Case('', 'vit', found.arguments, {'image': (32, 32, 3)}, found.outputs, found.scheme)
    picture = torch.from_numpy(batch_of(case)['image']).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = original(picture).logits.numpy()
    assert error(ours(case, pretrained.leaves), expected) < 1e-4


@pytest.mark.parametrize(
    ('scheme', 'shape', 'changes'),
    [
        ('vision_transformer', (32, 32, 3), {}),
        ('big_vision', (32, 32, 3), dict(position='learnt_patches')),
        ('big_vision', (16, 40, 3), dict(pool='mean', class_token=False)),
        ('big_vision', (224, 224, 1), dict(pool='mean', class_token=False, position='sincos2d')),
        ('big_vision', (16, 16, 3), dict(representation=20)),
    ],
)
def test_the_authors_files_tell_their_heads_and_which_gelu(scheme, shape, changes, tmp_path):
    arguments = {**SIZES, 'activation': 'gelu_tanh', **changes}
    case = Case('', 'vit', arguments, {'image': shape}, 5, scheme)
    leaves = leaves_of(case)
    file = porter.unport(leaves, scheme_of(case), case.arguments)
    names = ('opt/state/param_states/cls/grad_ema', 'chrono/accum_train_time', 'extra/note')
    state = {key: np.zeros(3, np.float32) for key in names}
    targets = {f'opt/target/{key}': array for key, array in file.items()}
    np.savez(tmp_path / 'file.npz', **targets, **state)
    pretrained = load(str(tmp_path / 'file.npz'))
    found = pretrained.found
    assert found.scheme == scheme
    assert list(found.skipped) == list(state)
    assert found.example['image'].shape[2] == shape[2]
    # A width of 32 would be one head, if it had to be guessed.
    expected = {**models.arguments('vit'), **case.arguments}
    assert {**models.arguments('vit'), **found.arguments} == expected
    assert not {'heads', 'activation', 'epsilon'} & set(found.guessed)
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(pretrained.leaves[path], leaf, err_msg=path)
    back = porter.unport(pretrained.leaves, scheme_of(case), found.arguments)
    assert back.keys() == file.keys()
    for key, array in file.items():
        np.testing.assert_array_equal(back[key], array, err_msg=key)


def test_networks_that_are_no_such_vit_are_refused(timm, transformers):
    import torch

    def troubles(original, config):
        attempts = list(attempts_of('vit', shapes_of(original), config, {}))
        assert not any(attempt.fits for attempt in attempts)
        best = max(attempts, key=lambda attempt: attempt.nearness)
        return json.dumps([best.match.unread, best.missing, best.trouble])

    with torch.device('meta'):
        plain, registers, scaled, without_bias = (
            timm.create_model('vit_base_patch16_224', depth=2, **changes)
            for changes in ({}, dict(reg_tokens=4), dict(init_values=1e-5), dict(qkv_bias=False))
        )
        deit = transformers.DeiTModel(transformers.DeiTConfig(num_hidden_layers=1))
    assert 'reg_token' in troubles(registers, {})
    assert 'ls1.gamma' in troubles(scaled, {})
    assert 'attention/query/bias' in troubles(without_bias, {})
    assert 'global_pool' in troubles(plain, {'global_pool': 'map'})
    assert 'quick_gelu' in troubles(plain, {'hidden_act': 'quick_gelu'})
    assert 'distillation_token' in troubles(deit, {})
