"""Batches of texts cut to their longest: the order, the arrays, and what a model makes of them."""

import dataclasses

import jax
import numpy as np
import pytest
import small_models
import small_texts

from tljax import config as config_lib
from tljax import mesh as mesh_lib
from tljax import models
from tljax.data import Order, open_data
from tljax.data.buckets import Buckets, halved
from tljax.data.text import tokenizer as tokenizers
from tljax.data.text.form import TextForm
from tljax.errors import UserError
from tljax.train.feed import Feed, shapes_of


@pytest.mark.parametrize(
    ('length', 'count', 'sizes'),
    [
        (128, 0, (128,)),
        (128, 1, (128,)),
        (128, 3, (32, 64, 128)),
        (100, 4, (16, 32, 56, 100)),
        (16, 9, (8, 16)),
        (8, 3, (8,)),
        (5, 3, (5,)),
    ],
)
def test_lengths_are_halved_down_to_eight(length, count, sizes):
    assert halved(length, count) == sizes


def test_an_example_goes_where_it_fits():
    form = TextForm(tokenizers.trained(['the cat'] * 3, 270), 16, lengths=2)
    arrays = form.texts(['', 'a' * 6, 'a' * 7, 'a' * 99])
    assert arrays['mask'].sum(1).tolist() == [2, 8, 9, 16]
    assert form.buckets.of(arrays).tolist() == [0, 0, 1, 1]
    arrays['label'] = np.arange(4)
    cut = form.buckets.cut(arrays, 0)
    assert {name: array.shape for name, array in cut.items()} == {
        'tokens': (4, 8),
        'mask': (4, 8),
        'label': (4,),
    }
    assert form.buckets == Buckets((8, 16), ('tokens', 'mask'))
    assert TextForm(form.tokenizer, 16).buckets is None
    assert TextForm(form.tokenizer, 16, ('text', 'text_b'), 2).buckets.names[2] == 'types'


# The order.


@pytest.mark.parametrize(('n', 'batch_size'), [(40, 8), (43, 8), (7, 3), (3, 7), (400, 4), (1, 4)])
def test_every_epoch_is_still_a_permutation(n, batch_size):
    lengths = np.random.default_rng(0).integers(0, 4, n)
    order = Order(n, batch_size, 3, lengths)
    batches = [order.batch(step) for step in range(4 * n)]
    epochs = np.concatenate(batches).reshape(-1, n)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(n), (len(epochs), 1)))
    if n > 5:
        assert len({epoch.tobytes() for epoch in epochs}) > len(epochs) * 0.9


def test_batches_are_of_about_one_length():
    n, batch_size = 1000, 8
    lengths = np.random.default_rng(1).integers(0, 4, n)
    order, plain = Order(n, batch_size, 0, lengths), Order(n, batch_size, 0)
    mixed = sum(len(set(lengths[order.batch(step)])) > 1 for step in range(250))
    # At most three of 16 batches hold an edge between lengths; and two where epochs meet.
    assert mixed <= 3 * (250 / 16 + 2) + 2
    longest = [np.mean([lengths[o.batch(s)].max() for s in range(250)]) for o in (order, plain)]
    assert longest[0] < 1.8 < 2.6 < longest[1]
    # The lengths of batches come in no order of their own.
    first = [lengths[order.batch(step)].max() for step in range(125)]
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.3


def test_any_step_alone_and_by_the_lengths():
    lengths = np.arange(43) % 3
    walked = [Order(43, 8, 0, lengths).batch(step) for step in range(50)]
    for step in (49, 0, 17):
        np.testing.assert_array_equal(Order(43, 8, 0, lengths).batch(step), walked[step])
    prints = {
        Order(43, 8, 0, given).fingerprint() for given in (None, lengths, lengths[::-1], lengths)
    }
    assert len(prints) == 3


def test_the_order_by_length_stays_as_it_is():
    """Golden: a run that is continued with a newer version must see the same examples."""
    order = Order(6, 2, 0, np.array([0, 1, 0, 1, 0, 1]))
    assert np.concatenate([order.batch(step) for step in range(3)]).tolist() == [4, 2, 0, 1, 5, 3]


# Batches.


@pytest.fixture(scope='module')
def opened(tmp_path_factory):
    """opened(in_memory) -> a split of short and long texts."""
    directory = tmp_path_factory.mktemp('texts')
    small_texts.write(directory)

    def make(in_memory, buckets=2):
        config = small_texts.config_of('classification', directory)
        config.data.update(buckets=buckets, length=40, in_memory=in_memory, shots=0)
        return open_data(config.data, 0).split('train')

    return make


def test_lengths_are_the_same_streamed(opened):
    memory, streamed = opened('on'), opened('off')
    assert not streamed.in_memory
    np.testing.assert_array_equal(memory.fitting, streamed.fitting)
    assert set(memory.fitting) == {0, 1}
    assert opened('on', 0).fitting is None


@pytest.mark.parametrize('in_memory', ['on', 'off'])
def test_batches_are_those_of_full_length_cut(opened, in_memory):
    split, full = opened(in_memory), opened('on', 0)
    subset = np.arange(3, len(split), dtype=np.int32)
    order = Order(len(subset), 8, 1, split.fitting[subset])
    mesh = mesh_lib.data_mesh()
    feed, shapes = Feed(split, mesh, subset), set()
    for step, (data, indices) in enumerate(feed.batches(order, 0, 12)):
        chosen = subset[order.batch(step)]
        size = (24, 40)[split.fitting[chosen].max()]
        shapes.add(shapes_of(data))
        for name, array in full.arrays().items():
            found = np.asarray(data[name])[... if indices is None else np.asarray(indices)]
            wanted = array[chosen]
            if name != 'label':
                assert not wanted[:, size:].any()  # padding
                wanted = wanted[:, :size]
            np.testing.assert_array_equal(found, wanted)
    assert len(shapes) == 2  # so many programs, and no more
    same, indices = feed.at(subset[:4])
    assert np.asarray(same['tokens']).shape[1] == 40  # what keeps features asks for all of it


def variables_and_call(pool):
    model = small_models.build('bert', pool=pool)
    variables, graph = small_models.scattered(model), model.graph(train=False)
    return variables, jax.jit(lambda v, b: models.merge(graph, v['params'], {})(b))


@pytest.mark.parametrize('pool', ['mean', 'cls'])
def test_a_model_sees_no_difference(pool):
    variables, call = variables_and_call(pool)
    batch = small_models.batch_of('bert', 8)
    batch['mask'] = (np.arange(9) < np.arange(1, 9)[:, None] % 6 + 1).astype(np.int32)
    buckets = Buckets((6, 9), ('tokens', 'mask'))
    assert (buckets.of(batch) == 0).all()
    whole = call(variables, {key: batch[key] for key in ('tokens', 'mask')})
    cut = call(variables, buckets.cut({key: batch[key] for key in ('tokens', 'mask')}, 0))
    np.testing.assert_allclose(cut, whole, rtol=1e-5, atol=1e-5)


def test_evaluation_adds_up_to_the_same(opened):
    mesh = mesh_lib.data_mesh()

    @jax.jit
    def evaluate(params, stats, data, indices, weight):
        rows = {name: leaf[indices] for name, leaf in data.items()}
        tokens = (rows['tokens'] * rows['mask']).sum(1)
        return {'tokens': tokens @ weight, 'weight': weight.sum(), 'places': rows['mask'].size}

    cut = Feed(opened('on'), mesh).evaluate(evaluate, None, None)
    whole = Feed(opened('on', 0), mesh)
    full = whole.evaluate(evaluate, None, None)
    whole.at_once = 7  # not a multiple of the devices, nor a divisor of the examples
    parts = whole.evaluate(evaluate, None, None)
    assert cut['tokens'] == full['tokens'] == parts['tokens']
    assert cut['weight'] == full['weight'] == parts['weight'] == len(opened('on'))


# Mistakes.


@pytest.mark.parametrize('task', ['language_modelling', 'images'])
def test_what_has_no_lengths_says_so(tmp_path, configure, task):
    config = configure(buckets=2)
    if task != 'images':
        small_texts.write(tmp_path)
        config = small_texts.config_of(task, tmp_path, data__buckets=2).data
    with pytest.raises(UserError, match=r'config\.data\.buckets is 2.*only texts with labels'):
        open_data(config, 0)
    with pytest.raises(UserError, match=r'data\.buckets is -1; it must be 0 or more'):
        config_lib.resolve({'model': {'name': 'x'}, 'data': {'name': 'x', 'buckets': -1}})


def test_lengths_are_part_of_the_order():
    lengths = np.array([0, 1, 0, 1])
    order = Order(4, 2, 0, lengths)
    assert dataclasses.replace(order, lengths=None).fingerprint() != order.fingerprint()
