"""Surgery's record: JSON there and back, and what people read."""

import json

import numpy as np
import pytest
from surgery_nets import arrays, net, shape

from tljax.errors import UserError
from tljax.transfer import Manifest, apply, plan


def everything():
    """A manifest with every action."""
    source = net(10, 3, 'stem') | {'spare': shape(2)}
    return plan(
        source,
        net(5, 1),
        rename=[('stem/(.*)', r'backbone/\1')],
        reset=['head/.*'],
        resize=[('backbone/conv/kernel', 'channels')],
        unused=['spare'],
    )


def test_a_manifest_survives_json():
    manifest = everything()
    again = Manifest.from_json(json.loads(json.dumps(manifest.to_json())))
    assert again == manifest
    assert hash(again) == hash(manifest)


def test_a_manifest_read_from_json_can_be_carried_out():
    source, target = arrays(net(channels=3), 0), arrays(net(channels=1), 100)
    manifest = plan(source, target, resize=[('backbone/conv/kernel', 'channels')])
    again = Manifest.from_json(json.loads(json.dumps(manifest.to_json())))
    for path, leaf in apply(manifest, source, target).items():
        np.testing.assert_array_equal(apply(again, source, target)[path], leaf)


def test_the_json_has_the_fields_of_an_entry():
    assert everything().to_json()['entries'][1] == {
        'path': 'backbone/conv/kernel',
        'action': 'resized',
        'source_path': 'stem/conv/kernel',
        'shape': [3, 3, 1, 8],
        'source_shape': [3, 3, 3, 8],
        'dtype': 'float32',
        'note': '3 -> 1 input channels',
        'how': 'channels',
    }


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        ({}, "KeyError: 'entries'"),
        ({'entries': [{'path': 'a'}]}, "KeyError: 'action'"),
        ({'entries': [{'action': 'eaten'}]}, "ValueError: action 'eaten' is none of loaded, "),
        ({'entries': [{'action': 'reset', 'shape': 3, 'source_shape': None}]}, 'TypeError: '),
        ([], 'TypeError: '),
    ],
)
def test_what_is_no_manifest_is_refused(data, reason):
    with pytest.raises(UserError, match='This is no manifest of a transfer: ') as caught:
        Manifest.from_json(data)
    assert reason in str(caught.value)


def test_the_table_shows_every_leaf_and_what_is_trained():
    trained = {
        'backbone/conv/bias': 'frozen',
        'backbone/conv/kernel': 'lr 0.0001',
        'head/bias': 'lr 0.1',
        'head/kernel': 'lr 0.1',
    }
    assert everything().table(trained).split('\n') == [
        'leaf                  action   shape         dtype    trained    from',
        'backbone/conv/bias    renamed  (8,)          float32  frozen     stem/conv/bias',
        'backbone/conv/kernel  resized  (3, 3, 1, 8)  float32  lr 0.0001  '
        'stem/conv/kernel (3, 3, 3, 8): 3 -> 1 input channels',
        'backbone/norm/mean    renamed  (8,)          float32  -          stem/norm/mean',
        'head/bias             reset    (5,)          float32  lr 0.1     fresh initialisation',
        'head/kernel           reset    (8, 5)        float32  lr 0.1     fresh initialisation',
        'head/bias             unused   (10,)         float32             '
        'source leaf of head/bias, which is reset',
        'head/kernel           unused   (8, 10)       float32             '
        'source leaf of head/kernel, which is reset',
        "spare                 unused   (2,)          float32             allowed by 'spare'",
    ]


def test_the_table_without_rates_has_no_such_column():
    lines = everything().table().split('\n')
    assert lines[0].split() == ['leaf', 'action', 'shape', 'dtype', 'from']
    assert lines[4].split() == ['head/bias', 'reset', '(5,)', 'float32', 'fresh', 'initialisation']


def test_the_summary_counts_leaves_and_values():
    # Reused: 8 + 3*3*1*8 + 8 = 88 values of 88 + 5 + 8*5 = 133, which is 66.2 %.
    assert everything().summary() == (
        '3 of 5 target leaves (88 of 133 values, 66 %) come from the source; '
        '2 renamed, 1 resized, 2 reset, 3 source leaves unused.'
    )
