"""Tables of names: templates, matching, layouts, and the way back."""

import numpy as np
import pytest

from tljax.errors import UserError
from tljax.pretrained import porter
from tljax.pretrained.porter import Row, Scheme, Template, batch_norm_rows, linear_rows
from tljax.pretrained.transforms import TRANSFORMS

SCHEME = Scheme(
    'theirs',
    'made_up',
    rows=(
        Row('layers.{n}.qkv', tuple(f'backbone/block{{n+1}}/{k}' for k in 'qkv'), 'split_linear'),
        Row('layers.{n}.weight', 'backbone/block{n+1}/kernel', 'conv'),
        *batch_norm_rows('bn', 'backbone/norm'),
        *linear_rows('classifier', 'head'),
    ),
    skipped=((r'.*\.position_ids', 'counts up'),),
    backbone_prefix='net.',
)


def theirs(prefix=''):
    rng = np.random.default_rng(0)
    shapes = {
        f'{prefix}layers.0.weight': (4, 3, 2, 2),
        f'{prefix}layers.10.qkv': (6, 2),
        **{f'{prefix}bn.{k}': (4,) for k in ('weight', 'bias', 'running_mean', 'running_var')},
        'classifier.weight': (5, 4),
        'classifier.bias': (5,),
    }
    return {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}


def shapes_of(tensors):
    return {name: value.shape for name, value in tensors.items()}


@pytest.mark.parametrize('prefix', ['', 'net.', 'module.net.'])
def test_names_are_read_with_and_without_prefixes(prefix):
    tensors = theirs(prefix)
    match = porter.match(SCHEME, shapes_of(tensors))
    assert (match.unread, match.faults, match.skipped) == ([], [], {})
    leaves = match.read(tensors)
    assert leaves['backbone/block1/kernel'].shape == (2, 2, 3, 4)
    np.testing.assert_array_equal(
        leaves['backbone/block11/k'], tensors[f'{prefix}layers.10.qkv'][2:4].T
    )
    assert match.shapes(shapes_of(tensors)) == shapes_of(leaves)
    assert {path for path in leaves if 'norm' in path} == {
        f'backbone/norm/{kind}' for kind in ('scale', 'bias', 'mean', 'var')
    }


def test_export_is_the_inverse_bit_for_bit():
    tensors = theirs('net.')  # with a head the backbone carries its prefix
    leaves = porter.match(SCHEME, shapes_of(tensors)).read(tensors)
    back = porter.unport(leaves, SCHEME, {})
    assert back.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)
    headless = {path: leaf for path, leaf in leaves.items() if path.startswith('backbone/')}
    assert 'layers.0.weight' in porter.unport(headless, SCHEME, {})


def test_what_no_row_knows_is_told():
    shapes = {'layers.0.weight': (4, 3, 2), 'bn.position_ids': (3,), 'ema.decay': ()}
    match = porter.match(SCHEME, shapes)
    assert match.unread == ['ema.decay']
    assert match.skipped == {'bn.position_ids': 'counts up'}
    (fault,) = match.faults
    assert 'layers.0.weight' in fault
    assert 'rank 4' in fault


def test_two_tensors_for_one_leaf_are_told():
    match = porter.match(SCHEME, {'bn.weight': (4,), 'module.bn.weight': (4,)})
    assert match.faults == ['module.bn.weight and bn.weight are both backbone/norm/scale']


def test_a_stack_that_cannot_be_split_is_told():
    (fault,) = porter.match(SCHEME, {'layers.0.qkv': (7, 2)}).faults
    assert 'no multiple of 3' in fault


def test_a_leaf_without_a_name_is_refused():
    with pytest.raises(UserError, match='has no name for 1 leaves, such as backbone/other'):
        porter.unport({'backbone/other': np.zeros(2)}, SCHEME, {})


@pytest.mark.parametrize(
    ('template', 'name', 'numbers'),
    [
        ('a{n}.{m+1}', 'a12.3', {'n': 12, 'm': 2}),
        ('a{n}.{n}', 'a1.1', {'n': 1}),
        ('a{n}.{n}', 'a1.2', None),
        ('a.b{n}', 'a-b1', None),
        ('a{n}', 'a', None),
        ('a{n}', 'a1x', None),
    ],
)
def test_templates(template, name, numbers):
    assert Template(template).match(name) == numbers
    if numbers:
        assert Template(template).fill(numbers) == name


SHAPES = {
    'same': (3, 2),
    'linear': (5, 4),
    'conv': (5, 4, 3, 2),
    'conv1d': (5, 4, 3),
    'conv_linear': (5, 4, 1, 1),
    'hwio_linear': (1, 1, 4, 5),
    'per_channel': (1, 1, 1, 4),
    'conv_bgr': (2, 2, 3, 4),
    'split_linear': (6, 2),
    'split_columns': (2, 6),
    'split_vector': (6,),
    'heads_in': (6, 3, 2),
    'heads_out': (3, 2, 6),
    'heads_bias': (3, 2),
}


@pytest.mark.parametrize('name', TRANSFORMS)
def test_every_layout_is_a_permutation_with_an_inverse(name):
    transform, shape = TRANSFORMS[name], SHAPES[name]
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    parts = transform.to_ours(array)
    assert len(parts) == transform.parts
    assert sorted(np.concatenate([part.ravel() for part in parts])) == sorted(array.ravel())
    np.testing.assert_array_equal(transform.to_theirs(parts, {'heads': 3}), array)


def test_layouts_by_hand():
    conv = np.arange(2 * 3 * 1 * 1).reshape(2, 3, 1, 1)  # two outputs, three inputs
    assert TRANSFORMS['conv'].to_ours(conv)[0][0, 0].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert TRANSFORMS['conv_linear'].to_ours(conv)[0].tolist() == [[0, 3], [1, 4], [2, 5]]
    bgr = np.arange(3).reshape(1, 1, 3, 1)
    assert TRANSFORMS['conv_bgr'].to_ours(bgr)[0].ravel().tolist() == [2, 1, 0]
    with pytest.raises(ValueError, match='1x1'):
        TRANSFORMS['conv_linear'].to_ours(np.zeros((2, 3, 3, 3)))
