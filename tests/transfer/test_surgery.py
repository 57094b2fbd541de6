"""Surgery: every leaf of the source and of the target accounted for, and carried over."""

import jax
import numpy as np
import pytest
from surgery_nets import array, arrays, net, shape

from tljax import models, trees
from tljax.errors import UserError
from tljax.transfer import Entry, Manifest, apply, plan


def actions(manifest):
    return {e.path or f'({e.source_path})': e.action for e in manifest.entries}


def test_the_same_leaves_are_all_loaded():
    manifest = plan(net(), net())
    assert actions(manifest) == dict.fromkeys(net(), 'loaded')
    assert manifest.reused() == set(net())
    assert manifest.entries[1] == Entry(
        path='backbone/conv/kernel',
        action='loaded',
        source_path='backbone/conv/kernel',
        shape=(3, 3, 3, 8),
        source_shape=(3, 3, 3, 8),
        dtype='float32',
        note='',
        how='',
    )


def test_a_new_head_is_reset_and_the_old_one_counts_as_unused():
    manifest = plan(net(10), net(5), reset=['head/.*'])
    assert actions(manifest) == {
        'backbone/conv/bias': 'loaded',
        'backbone/conv/kernel': 'loaded',
        'backbone/norm/mean': 'loaded',
        'head/bias': 'reset',
        'head/kernel': 'reset',
        '(head/bias)': 'unused',
        '(head/kernel)': 'unused',
    }
    assert manifest.entries[4] == Entry(
        'head/kernel', 'reset', '', (8, 5), None, 'float32', 'fresh initialisation'
    )
    assert manifest.entries[6] == Entry(
        *('', 'unused', 'head/kernel', (8, 10), (8, 10), 'float32'),
        note='source leaf of head/kernel, which is reset',
    )


def test_reset_needs_no_source_leaf_and_no_source_at_all():
    assert plan({}, net(), reset=['.*']).count('reset') == len(net())
    assert plan({}, {}) == Manifest(())


def test_renaming_fills_groups_and_the_first_rule_wins():
    source = net(prefix='stem')
    rules = [('stem/norm/(.*)', r'backbone/norm/\1'), ('(?P<first>stem)/(.*)', r'backbone/\2')]
    manifest = plan(source, net(), rename=rules)
    assert {e.source_path: e.path for e in manifest.entries if e.action == 'renamed'} == {
        'stem/conv/bias': 'backbone/conv/bias',
        'stem/conv/kernel': 'backbone/conv/kernel',
        'stem/norm/mean': 'backbone/norm/mean',
    }
    assert manifest.count('loaded') == 2


def test_a_renaming_must_match_the_whole_path():
    with pytest.raises(UserError, match="the rule 'ead/bias' matches no leaf"):
        plan(net(), net(), rename=[('ead/bias', 'x')])


def test_leaves_can_swap_places():
    leaves = {'a': shape(2), 'b': shape(2)}
    manifest = plan(leaves, leaves, rename=[('a', 'b'), ('b', 'a')])
    assert [(e.path, e.source_path, e.action) for e in manifest.entries] == [
        ('a', 'b', 'renamed'),
        ('b', 'a', 'renamed'),
    ]


def test_a_name_freed_by_renaming_is_not_taken_for_the_leaf_of_that_name():
    source = {'head/kernel': shape(4, 2), 'probe/kernel': shape(4, 2)}
    rename = [('head/(.*)', r'old/\1'), ('probe/(.*)', r'head/\1')]
    manifest = plan(source, {'head/kernel': shape(4, 2)}, rename=rename, unused=['head/.*'])
    assert [(e.path, e.action, e.source_path) for e in manifest.entries] == [
        ('head/kernel', 'renamed', 'probe/kernel'),
        ('', 'unused', 'head/kernel'),
    ]
    assert manifest.reused() == {'head/kernel'}


def test_unused_source_leaves_are_listed():
    source = net() | {'decoder/kernel': shape(8, 8)}
    manifest = plan(source, net(), unused=['decoder/.*'])
    assert manifest.entries[-1] == Entry(
        *('', 'unused', 'decoder/kernel', (8, 8), (8, 8), 'float32'),
        note="allowed by 'decoder/.*'",
    )


def test_unused_takes_nothing_from_a_target_leaf():
    source = net() | {'decoder/kernel': shape(8, 8)}
    assert plan(source, net(), unused=['.*']).reused() == set(net())


def test_unused_decides_between_two_leaves_of_one_path():
    source = {'head/kernel': shape(4, 2), 'ema/head/kernel': shape(4, 2)}
    rules = {'rename': [('ema/(.*)', r'\1')], 'unused': ['head/.*']}
    manifest = plan(source, {'head/kernel': shape(4, 2)}, **rules)
    assert actions(manifest) == {'head/kernel': 'renamed', '(head/kernel)': 'unused'}
    assert manifest.entries[0].source_path == 'ema/head/kernel'


def test_a_resize_rule_adapts_input_channels():
    manifest = plan(net(), net(channels=1), resize=[('.*/kernel', 'channels')])
    assert manifest.entries[1] == Entry(
        path='backbone/conv/kernel',
        action='resized',
        source_path='backbone/conv/kernel',
        shape=(3, 3, 1, 8),
        source_shape=(3, 3, 3, 8),
        dtype='float32',
        note='3 -> 1 input channels',
        how='channels',
    )
    # The rule matches the head's kernel too, which keeps its shape and so is simply loaded.
    assert actions(manifest)['head/kernel'] == 'loaded'


def test_a_leaf_can_be_renamed_and_resized():
    source, target = {'pos': shape(1, 17, 4)}, {'vit/pos': shape(1, 26, 4)}
    manifest = plan(source, target, [('pos', 'vit/pos')], resize=[('vit/pos', 'position')])
    (entry,) = manifest.entries
    assert (entry.action, entry.source_path) == ('resized', 'pos')
    assert entry.note == '4x4 -> 5x5 positions, bicubic; class token kept'


def test_the_models_of_this_library_fit_through_their_variables():
    def leaves(outputs, channels):
        example = {'image': jax.ShapeDtypeStruct((8, 8, channels), np.uint8)}
        config = {'name': 'convnet', 'widths': (4,), 'hidden': 6, 'norm': 'batch'}
        model = models.build(config, example, outputs)
        return {p: x for tree in model.shapes().values() for p, x in trees.flatten(tree).items()}

    rules = {'reset': ['head/.*'], 'resize': [('backbone/convs/0/kernel', 'channels')]}
    manifest = plan(leaves(10, 3), leaves(5, 1), **rules)
    assert actions(manifest)['backbone/norms/0/mean'] == 'loaded'
    assert manifest.count('loaded') == 7  # conv bias, norm scale bias mean var, hidden kernel bias
    assert manifest.count('resized') == 1
    assert manifest.count('reset') == 2


def test_apply_gives_each_leaf_what_the_manifest_says():
    source, target = arrays(net(10, 3, 'stem'), 0), arrays(net(5, 1), 100)
    rules = {
        'rename': [('stem/(.*)', r'backbone/\1')],
        'reset': ['head/.*'],
        'resize': [('backbone/conv/kernel', 'channels')],
    }
    result = apply(plan(source, target, **rules), source, target)
    assert list(result) == list(target)
    assert result['backbone/conv/bias'] is source['stem/conv/bias']
    assert result['backbone/norm/mean'] is source['stem/norm/mean']
    assert result['head/kernel'] is target['head/kernel']
    assert result['head/bias'] is target['head/bias']
    np.testing.assert_allclose(
        result['backbone/conv/kernel'],
        source['stem/conv/kernel'].sum(2, keepdims=True),
        rtol=1e-5,
    )
    assert {p: (x.shape, x.dtype) for p, x in result.items()} == {
        p: (x.shape, x.dtype) for p, x in target.items()
    }


def test_apply_swaps_without_reading_what_it_has_written():
    leaves = {'a': array(0, 2), 'b': array(1, 2)}
    result = apply(plan(leaves, leaves, rename=[('a', 'b'), ('b', 'a')]), leaves, leaves)
    assert result['a'] is leaves['b']
    assert result['b'] is leaves['a']


def test_apply_needs_only_the_source_leaves_that_are_read():
    source, target = arrays(net(10), 0), arrays(net(5), 100)
    manifest = plan(source, target, reset=['head/.*'])
    read = {path: leaf for path, leaf in source.items() if path.startswith('backbone')}
    result = apply(manifest, read, target)
    assert result['backbone/conv/bias'] is source['backbone/conv/bias']


def test_apply_hands_shapes_on_for_reset_leaves_and_reused_tells_them_apart():
    source = arrays(net(10), 0)
    manifest = plan(source, net(5), reset=['head/.*'])
    result = apply(manifest, source, net(5))
    assert {p for p, x in result.items() if isinstance(x, np.ndarray)} == manifest.reused()


def test_apply_can_be_traced():
    source, target = arrays(net(channels=3), 0), arrays(net(channels=1), 100)
    manifest = plan(source, target, resize=[('backbone/conv/kernel', 'channels')])
    traced = jax.jit(lambda source: apply(manifest, source, target))(source)
    plain = apply(manifest, source, target)
    for path in target:
        np.testing.assert_allclose(traced[path], plain[path], rtol=1e-6)


def test_apply_refuses_leaves_that_are_not_those_of_the_plan():
    source, target = arrays(net(), 0), arrays(net(), 100)
    manifest = plan(source, target)
    source['backbone/conv/bias'] = array(0, 9)
    source['backbone/norm/mean'] = source['backbone/norm/mean'].astype(np.float16)
    source['head/bias'] = shape(10)
    del source['head/kernel'], target['backbone/conv/kernel']
    target['tail/kernel'] = array(0, 4)
    with pytest.raises(UserError) as caught:
        apply(manifest, source, target)
    assert str(caught.value).split('\n') == [
        'The leaves are not those that the manifest was made for: 6 problems.',
        "- 'tail/kernel': the manifest has no entry for this target leaf, (4,) float32. "
        'Plan again.',
        "- 'backbone/conv/bias': the manifest needs (8,) float32 in the source, and it is (9,) "
        'float32. Plan again.',
        "- 'backbone/conv/kernel': the manifest needs (3, 3, 3, 8) float32 in the "
        'target, and there '
        'is none. Plan again.',
        "- 'backbone/norm/mean': the manifest needs (8,) float32 in the source, and it is (8,) "
        'float16. Plan again.',
        "- 'head/bias': the source holds a shape and no values. Read its arrays before this.",
        "- 'head/kernel': the manifest needs (8, 10) float32 in the source, and there is "
        'none. Plan '
        'again.',
    ]
