"""ViT against timm's, torchvision's and transformers' own, under every name of its files."""

import functools

import numpy as np
import pytest
from parity_support import (
    Case,
    batch_of,
    check,
    check_golden,
    error,
    leaves_of,
    ours,
    scheme_of,
)

from tljax.pretrained import porter
from tljax.pretrained.porters import vit
from tljax.transfer import surgery

SIZES = dict(width=32, layers=2, heads=4, hidden=48, patch=8)
SQUARE, WIDE = (32, 32, 3), (16, 40, 3)
# Far from both usual values, so that an epsilon that gets lost shows.
LARGE = 0.1


def case(name, scheme, shape=SQUARE, **changes):
    return Case(f'vit_{name}', 'vit', {**SIZES, **changes}, {'image': shape}, 5, scheme)


CASES = {
    each.name.removeprefix('vit_'): each
    for each in (
        case('timm', 'timm', WIDE),
        case('timm_mean', 'timm', pool='mean', class_token=False),
        case('timm_mean_beside_class', 'timm', pool='mean'),
        case('timm_norm_of_mean', 'timm_fc_norm', pool='mean_norm'),
        case('timm_class_without_position', 'timm', position='learnt_patches'),
        case('timm_gelu_tanh', 'timm', activation='gelu_tanh', epsilon=LARGE),
        case('torchvision', 'torchvision'),
        case('torchvision_representation', 'torchvision', representation=24, heads=8),
        case('huggingface', 'huggingface', epsilon=1e-12),
        case('huggingface_5', 'huggingface_5', WIDE, activation='relu', epsilon=LARGE),
        case('vision_transformer', 'vision_transformer', activation='gelu_tanh'),
        case('big_vision', 'big_vision', activation='gelu_tanh', position='learnt_patches'),
        case(
            'big_vision_mean',
            'big_vision',
            WIDE,
            activation='gelu_tanh',
            pool='mean',
            class_token=False,
        ),
        case(
            'big_vision_sincos2d',
            'big_vision',
            (16, 24, 3),
            activation='gelu_tanh',
            pool='mean',
            class_token=False,
            position='sincos2d',
        ),
    )
}


@pytest.fixture(scope='module')
def timm(torchvision):
    return pytest.importorskip('timm')


@pytest.fixture(scope='module')
def transformers(torchvision):
    return pytest.importorskip('transformers')


def call(module, batch):
    output = module(batch['image'])
    return getattr(output, 'logits', output)


def of_timm(timm, name, **changes):
    """timm's module for a case."""
    import torch

    arguments = CASES[name].arguments
    gelu_tanh = functools.partial(torch.nn.GELU, approximate='tanh')
    return timm.models.vision_transformer.VisionTransformer(
        img_size=CASES[name].example['image'][:2],
        patch_size=8,
        embed_dim=32,
        depth=2,
        num_heads=4,
        mlp_ratio=1.5,
        num_classes=5,
        global_pool='avg' if 'mean' in arguments.get('pool', 'cls') else 'token',
        class_token=arguments.get('class_token', True),
        no_embed_class=arguments.get('position') == 'learnt_patches',
        fc_norm=arguments.get('pool') == 'mean_norm',
        act_layer=gelu_tanh if arguments.get('activation') == 'gelu_tanh' else torch.nn.GELU,
        norm_layer=functools.partial(torch.nn.LayerNorm, eps=arguments.get('epsilon', 1e-6)),
        **changes,
    ).eval()


@pytest.mark.parametrize('name', [name for name in CASES if name.startswith('timm')])
def test_same_function_as_timm(name, timm):
    check(CASES[name], of_timm(timm, name), call)


@pytest.mark.parametrize('name', [name for name in CASES if name.startswith('torchvision')])
def test_same_function_as_torchvision(name, torchvision):
    arguments = CASES[name].arguments
    original = torchvision.models.VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=2,
        num_heads=arguments['heads'],
        hidden_dim=32,
        mlp_dim=48,
        num_classes=5,
        representation_size=arguments.get('representation'),
    ).eval()
    check(CASES[name], original, call)


def config_of(transformers, **changes):
    sizes = dict(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        patch_size=8,
        image_size=32,
        num_labels=5,
    )
    return transformers.ViTConfig(**{**sizes, **changes})


def test_same_function_as_transformers_under_its_names_in_memory(transformers):
    config = config_of(transformers, hidden_act='relu', layer_norm_eps=LARGE, image_size=[16, 40])
    original = transformers.ViTForImageClassification(config).eval()
    check(CASES['huggingface_5'], original, call)


def test_same_function_as_transformers_under_its_names_in_files(transformers, tmp_path):
    import torch
    from safetensors.numpy import save_file

    case = CASES['huggingface']
    leaves = leaves_of(case)
    file = porter.unport(leaves, scheme_of(case), case.arguments)
    contiguous = {name: np.ascontiguousarray(array) for name, array in file.items()}
    save_file(contiguous, tmp_path / 'model.safetensors', metadata={'format': 'pt'})
    config_of(transformers).save_pretrained(tmp_path)
    original, report = transformers.ViTForImageClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values()), report
    picture = torch.from_numpy(batch_of(case)['image']).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = original.eval()(picture).logits.numpy()
    assert error(ours(case, leaves), expected) < 1e-4
    check_golden(case, expected, f'torch {torch.__version__}, {type(original).__module__}')


@pytest.mark.parametrize(
    ('name', 'prefix'),
    [
        ('vision_transformer', ''),
        ('big_vision', ''),
        ('big_vision', 'opt/target/'),
        ('big_vision_mean', 'params/'),
    ],
)
def test_same_function_as_timm_makes_of_the_authors_files(name, prefix, timm, tmp_path):
    import torch

    case = CASES[name]
    leaves = leaves_of(case)
    file = porter.unport(leaves, scheme_of(case), case.arguments)
    np.savez(tmp_path / 'file.npz', **{prefix + key: array for key, array in file.items()})
    original = of_timm(timm, name)
    original.load_pretrained(str(tmp_path / 'file.npz'))
    picture = torch.from_numpy(batch_of(case)['image']).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = original(picture).numpy()
    assert error(ours(case, leaves), expected) < 1e-4
    check_golden(case, expected, f'torch {torch.__version__}, {type(original).__module__}')


def test_same_function_with_fixed_positions(timm):
    import torch

    case = CASES['big_vision_sincos2d']
    leaves = leaves_of(case)
    original = of_timm(timm, 'big_vision_sincos2d')
    scheme = next(s for s in vit.SCHEMES if s.name == 'timm')
    file = porter.unport(leaves, scheme, case.arguments)
    # By the formula of the paper's code, one number at a time.
    position = np.zeros((1, 6, 32))
    for row in range(2):
        for column in range(3):
            for k in range(8):
                slow = 10000 ** (k / 7)
                values = (np.sin(column / slow), np.cos(column / slow))
                values += (np.sin(row / slow), np.cos(row / slow))
                position[0, 3 * row + column, k::8] = values
    file['pos_embed'] = position.astype(np.float32)
    tensors = {key: torch.from_numpy(np.ascontiguousarray(v)) for key, v in file.items()}
    original.load_state_dict(tensors)
    picture = torch.from_numpy(batch_of(case)['image']).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = original(picture).numpy()
    assert error(ours(case, leaves), expected) < 1e-4
    check_golden(case, expected, f'torch {torch.__version__}, {type(original).__module__}')


@pytest.mark.parametrize(('name', 'prefix'), [('timm', 1), ('timm_mean', 0)])
@pytest.mark.parametrize(('old', 'new'), [(14, 24), (14, 16), (14, 7), (24, 14), (7, 14)])
def test_positions_are_resized_as_timm_resizes_them(old, new, name, prefix, timm):
    import torch

    # As timm does for files, and on set_input_size: bicubic, antialiased. Others differ:
    # transformers' interpolate_pos_encoding takes another cubic and no antialiasing, big_vision
    # is bilinear from corner to corner.
    class_token = bool(prefix)
    pool = 'cls' if prefix else 'mean'
    cases = [
        case('', 'timm', (8 * side, 8 * side, 3), pool=pool, class_token=class_token)
        for side in (old, new)
    ]
    source = leaves_of(cases[0])
    expected = timm.layers.resample_abs_pos_embed(
        torch.from_numpy(source['backbone/position']), [new, new], num_prefix_tokens=prefix
    )
    target = {path: np.zeros_like(leaf) for path, leaf in leaves_of(cases[1]).items()}
    plan = surgery.plan(source, target, resize=[('backbone/position', 'position')])
    leaves = {k: np.asarray(v) for k, v in surgery.apply(plan, source, target).items()}
    np.testing.assert_allclose(leaves['backbone/position'], expected, atol=2e-5)
    # And so the whole network computes the same.
    original = of_timm(timm, name)
    original.set_input_size((8 * old, 8 * old))
    file = porter.unport(source, scheme_of(cases[0]), SIZES)
    tensors = {key: torch.from_numpy(np.ascontiguousarray(v)) for key, v in file.items()}
    original.load_state_dict(tensors)
    original.set_input_size((8 * new, 8 * new))
    picture = torch.from_numpy(batch_of(cases[1])['image']).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = original(picture).numpy()
    assert error(ours(cases[1], leaves), logits) < 1e-4
