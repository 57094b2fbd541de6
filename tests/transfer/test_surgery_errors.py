"""What surgery refuses: texts name every leaf, shape and config key, and a remedy that works."""

import ast
import re

import jax.numpy as jnp
import numpy as np
from surgery_nets import net, refusal, shape

from tljax.transfer import plan


def test_another_shape_names_the_leaf_both_shapes_and_the_way_to_a_new_head():
    assert refusal(net(10), net(5)) == [
        "'head/bias': the source has (10,) float32, the target needs (5,) float32. "
        "Add 'head/.*' to config.transfer.reset to train a new head.",
        "'head/kernel': the source has (8, 10) float32, the target needs (8, 5) float32. "
        "Add 'head/.*' to config.transfer.reset to train a new head.",
    ]


def test_the_remedies_for_another_shape_work():
    plan(net(10), net(5), reset=['head/.*'])
    (problem,) = refusal(net(channels=3), net(channels=1))
    assert problem == (
        "'backbone/conv/kernel': the source has (3, 3, 3, 8) float32, the target needs "
        "(3, 3, 1, 8) float32. To fit it, add ('backbone/conv/kernel', 'channels') to "
        "config.transfer.resize. Or add 'backbone/conv/.*' to config.transfer.reset to start from "
        'fresh initialisation.'
    )
    plan(net(channels=3), net(channels=1), resize=[('backbone/conv/kernel', 'channels')])
    plan(net(channels=3), net(channels=1), reset=['backbone/conv/.*'])


def test_positions_of_another_grid_are_offered_resizing_and_not_the_whole_backbone_reset():
    source = {'vit/pos': shape(1, 16, 4), 'vit/block/kernel': shape(4, 4)}
    target = source | {'vit/pos': shape(1, 36, 4)}
    assert refusal(source, target) == [
        "'vit/pos': the source has (1, 16, 4) float32, the target needs (1, 36, 4) float32. To fit "
        "it, add ('vit/pos', 'position') to config.transfer.resize. Or add 'vit/pos' to "
        'config.transfer.reset to start from fresh initialisation.'
    ]


def test_a_resize_rule_that_cannot_help_says_why():
    source, target = {'pos': shape(1, 15, 4)}, {'pos': shape(1, 36, 4)}
    assert refusal(source, target, resize=[('pos', 'position')]) == [
        "'pos': the source has (1, 15, 4) float32, the target needs (1, 36, 4) float32. "
        "config.transfer.resize cannot fit it as 'position': 15 positions are no square grid, with "
        "or without a class token before it. Add 'pos' to config.transfer.reset to start from "
        'fresh initialisation.'
    ]


def test_whole_numbers_are_not_interpolated():
    source, target = ({'pos': shape(1, n, 4, dtype=np.int32)} for n in (16, 36))
    (problem,) = refusal(source, target, resize=[('pos', 'position')])
    assert "cannot fit it as 'position': int32 is no floating point type." in problem


def test_another_dtype_is_refused_even_where_a_rule_allows_another_shape():
    source = {'pos': shape(1, 16, 4, dtype=jnp.bfloat16), 'x': shape(3, dtype=np.float16)}
    target = {'pos': shape(1, 36, 4), 'x': shape(3)}
    assert refusal(source, target, resize=[('pos', 'position')]) == [
        "'pos': the source has (1, 16, 4) bfloat16, the target needs (1, 36, 4) float32. "
        'Nothing is '
        "converted on the way: save the source as float32. Add 'pos' to config.transfer.reset to "
        'start from fresh initialisation.',
        "'x': the source has (3,) float16, the target needs (3,) float32. Nothing is converted on "
        "the way: save the source as float32. Add 'x' to config.transfer.reset to start from fresh "
        'initialisation.',
    ]


def test_a_renamed_leaf_that_does_not_fit_has_both_its_names():
    source, target = {'fc/kernel': shape(4, 10)}, {'head/kernel': shape(4, 5)}
    assert refusal(source, target, rename=[('fc/(.*)', r'head/\1')]) == [
        "'head/kernel' (source leaf 'fc/kernel'): the source has (4, 10) float32, the target needs "
        "(4, 5) float32. Add 'head/.*' to config.transfer.reset to train a new head."
    ]


def test_a_leaf_of_another_name_is_missing_here_unread_there_and_the_rename_is_offered():
    source, target = {'fc/kernel': shape(4, 10)}, {'head/kernel': shape(4, 10)}
    missing, unread = refusal(source, target)
    assert missing == (
        "'head/kernel': the target needs (4, 10) float32, and no source leaf has this path. If it "
        "is 'fc/kernel' there, add ('fc/kernel', 'head/kernel') to config.transfer.rename. Or add "
        "'head/.*' to config.transfer.reset to train a new head."
    )
    assert unread == (
        "'fc/kernel': the source has (4, 10) float32, and no target leaf reads it. If it is "
        "'head/kernel' there, add ('fc/kernel', 'head/kernel') to config.transfer.rename. Or add "
        "'fc/.*' to config.transfer.unused to do without it."
    )
    plan(source, target, rename=[('fc/kernel', 'head/kernel')])
    plan(source, target, reset=['head/.*'], unused=['fc/.*'])


def test_the_offered_rename_works_for_names_with_dots_and_dashes():
    source = {'model.layers-0.weight': shape(2)}
    target = {'layers/0/kernel': shape(2)}
    offer = re.search(
        r"add (\('.*?', '.*?'\)) to config\.transfer\.rename", refusal(source, target)[0]
    )
    rule = ast.literal_eval(offer[1])
    assert rule == (r'model\.layers-0\.weight', 'layers/0/kernel')
    assert plan(source, target, rename=[rule]).count('renamed') == 1


def test_a_missing_leaf_without_a_twin_lists_the_nearest_with_their_shapes():
    source = net() | {'hed/kernel': shape(8, 7)}
    target = net() | {'head2/kernel': shape(8, 2), 'backbone/extra/scale': shape()}
    missing_head, missing_scale, unread = refusal(source, target)
    assert missing_head == (
        "'head2/kernel': the target needs (8, 2) float32, and no source leaf has this "
        'path. Nearest '
        "unread source leaves: 'hed/kernel' (8, 7) float32. Add 'head2/.*' to "
        'config.transfer.reset to start from fresh initialisation.'
    )
    assert missing_scale.startswith("'backbone/extra/scale': the target needs () float32, and")
    assert unread == (
        "'hed/kernel': the source has (8, 7) float32, and no target leaf reads it. Target leaves "
        "without a source: 'head2/kernel' (8, 2) float32, 'backbone/extra/scale' () float32. Add "
        "'hed/.*' to config.transfer.unused to do without it."
    )


def test_a_missing_leaf_where_all_else_is_read_lists_near_source_leaves():
    target = net() | {'backbone/conv2/kernel': shape(3, 3, 8, 8)}
    (problem,) = refusal(net(), target)
    assert "Nearest source leaves: 'backbone/conv/kernel' (3, 3, 3, 8) float32, " in problem


def test_an_unread_leaf_where_nothing_is_missing_can_only_stay_unread():
    assert refusal(net() | {'extra/kernel': shape(2)}, net()) == [
        "'extra/kernel': the source has (2,) float32, and no target leaf reads it. Add 'extra/.*' "
        'to config.transfer.unused to do without it.'
    ]


def test_a_leaf_renamed_into_nowhere_says_so():
    missing, unread = refusal(net(), net(), rename=[('head/bias', 'head/offset')])
    assert missing.startswith("'head/bias': the target needs (10,) float32, and no source leaf")
    assert unread.startswith(
        "'head/bias': the source has (10,) float32, and no target leaf reads it. "
        "config.transfer.rename makes it 'head/offset'."
    )


def test_two_leaves_of_one_path_are_refused_by_name():
    source = {'a/kernel': shape(2), 'b/kernel': shape(2), 'kernel': shape(2)}
    target = {'kernel': shape(2)}
    assert refusal(source, target, rename=[('[ab]/(.*)', r'\1')]) == [
        "config.transfer.rename: the source leaves 'a/kernel', 'b/kernel', 'kernel' all get the "
        "path 'kernel'. Rename one only, or add all but one to config.transfer.unused."
    ]
    plan(source, target, rename=[('[ab]/(.*)', r'\1')], unused=['[ab]/kernel'])


def test_unused_that_leaves_none_of_two_leaves_of_one_path_is_refused():
    source = {'a/kernel': shape(2), 'kernel': shape(2)}
    rules = {'rename': [('a/(.*)', r'\1')], 'unused': ['.*kernel']}
    (problem,) = refusal(source, {'kernel': shape(2)}, **rules)
    assert problem.startswith("config.transfer.rename: the source leaves 'a/kernel', 'kernel' all")
