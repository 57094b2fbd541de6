"""BiT against timm's and transformers' own, and its authors' files against timm's reader."""

import dataclasses

import numpy as np
import pytest
from parity_support import Case, batch_of, built, check, error, leaves_of, ours, scheme_of

from tljax import trees
from tljax.pretrained import porter
from tljax.pretrained.porters import bit

PICTURE = {'image': (45, 34, 3)}
CASES = tuple(
    Case(f'bit_{scheme}', 'bit', {'depth': 50}, PICTURE, 7, scheme)
    for scheme in ('timm', 'huggingface')
)
SIZES = ((50, 1), (50, 3), (101, 1), (152, 2))


def original(scheme, outputs=1000, depth=50, factor=1):
    if scheme == 'timm':
        timm = pytest.importorskip('timm')
        return timm.create_model(f'resnetv2_{depth}x{factor}_bit', num_classes=outputs)
    transformers = pytest.importorskip('transformers')
    config = transformers.BitConfig(
        depths=list(bit.BLOCKS[depth]),
        # Not by width_factor, which transformers forgets at the last norm.
        hidden_sizes=[256 * factor, 512 * factor, 1024 * factor, 2048 * factor],
        embedding_size=64 * factor,
        num_labels=outputs,
    )
    return transformers.BitForImageClassification(config)


def call(module, batch):
    output = module(batch['image'])
    return getattr(output, 'logits', output)


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_same_function(case, torchvision):
    check(case, original(case.scheme, 7).eval(), call)


def ported(case, shapes):
    """Our shapes of a file's, having checked that all are ported to all that the model has."""
    match = porter.match(scheme_of(case), shapes)
    found = match.shapes(shapes)
    expected = trees.flatten(built(case).shapes()['params'])
    assert found == {path: leaf.shape for path, leaf in expected.items()}
    assert not match.unread
    assert not match.skipped
    assert not match.faults
    return found


@pytest.mark.parametrize('scheme', ['timm', 'huggingface'])
@pytest.mark.parametrize(('depth', 'factor'), SIZES)
def test_every_name_and_shape_of_the_full_size(scheme, depth, factor, torchvision):
    torch = pytest.importorskip('torch')
    with torch.device('meta'):
        state = original(scheme, 21843, depth, factor).state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    arguments = {'depth': depth, 'width_factor': factor}
    case = Case('full', 'bit', arguments, {'image': (224, 224, 3)}, 21843, scheme)
    assert bit.arguments(ported(case, shapes), {}) == {
        **arguments,
        'outputs': 21843,
        'example': {'image': (224, 224, 3)},
    }


def test_a_file_in_its_authors_names_is_read_as_timm_reads_it(tmp_path, torchvision):
    torch = pytest.importorskip('torch')
    case = dataclasses.replace(CASES[0], scheme='big_transfer')
    leaves = leaves_of(case)
    file = porter.unport(leaves, scheme_of(case), {})
    assert 'resnet/block3/unit06/b/standardized_conv2d/kernel' in file
    np.savez(tmp_path / 'BiT-M-R50x1.npz', **file)
    module = original('timm', 7).eval()
    module.load_pretrained(str(tmp_path / 'BiT-M-R50x1.npz'))
    picture = torch.from_numpy(batch_of(case)['image']).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = module(picture).numpy()
    assert error(ours(case, leaves), expected) < 1e-4


@pytest.mark.parametrize('scheme', ['big_transfer', 'big_vision'])
def test_authors_names_there_and_back(scheme):
    case = Case('', 'bit', {'depth': 101}, PICTURE, 3, scheme)  # 23 units, so two digits
    expected = trees.flatten(built(case).shapes()['params'])
    leaves = {path: np.zeros(leaf.shape, np.float32) for path, leaf in expected.items()}
    file = porter.unport(leaves, scheme_of(case), {})
    found = ported(case, {name: array.shape for name, array in file.items()})
    assert bit.arguments(found, {})['depth'] == 101


def test_names_that_the_authors_files_have():
    # As big_vision's own reader of both kinds of files names them (models/bit_paper.py).
    def path_of(scheme, name):
        row, numbers = next(s for s in bit.SCHEMES if s.name == scheme).find(name)
        return row.our_templates[0].fill(numbers)

    old, new = 'big_transfer', 'big_vision'
    stage = 'backbone/stage3'
    for scheme, name, path in (
        (old, 'resnet/root_block/standardized_conv2d/kernel', 'backbone/stem/kernel'),
        (old, 'resnet/block3/unit01/a/group_norm/gamma', f'{stage}/block0/norm1/scale'),
        (old, 'resnet/block3/unit11/c/standardized_conv2d/kernel', f'{stage}/block10/conv3/kernel'),
        (
            old,
            'resnet/block3/unit02/b/standardized_conv2d_7/kernel',
            f'{stage}/block1/conv2/kernel',
        ),
        (
            old,
            'resnet/block3/unit01/a/proj/standardized_conv2d/kernel',
            f'{stage}/block0/downsample/kernel',
        ),
        (old, 'resnet/group_norm/beta', 'backbone/norm/bias'),
        (old, 'resnet/head/conv2d/kernel', 'head/kernel'),
        (new, 'params/root_block/conv_root/kernel', 'backbone/stem/kernel'),
        (new, 'block3/unit10/gn3/bias', f'{stage}/block9/norm3/bias'),
        (new, 'block3/unit01/conv_proj/kernel', f'{stage}/block0/downsample/kernel'),
        (new, 'norm-pre-head/scale', 'backbone/norm/scale'),
        (new, 'head/bias', 'head/bias'),
    ):
        assert path_of(scheme, name) == path


def test_configs_of_other_networks_are_refused():
    transformers = pytest.importorskip('transformers')
    case = CASES[0]
    shapes = {p: leaf.shape for p, leaf in trees.flatten(built(case).shapes()['params']).items()}
    config = transformers.BitConfig().to_dict()
    assert bit.arguments(shapes, config)['depth'] == 50
    for change in ({'layer_type': 'bottleneck'}, {'global_padding': 'SAME'}, {'num_groups': 16}):
        with pytest.raises(ValueError, match=next(iter(change))):
            bit.arguments(shapes, {**config, **change})
