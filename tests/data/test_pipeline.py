"""The order of examples, and that memory, stream and several processes give the same."""

import collections
import dataclasses
import threading
import time

import numpy as np
import pytest

from tljax.data import Order, eval_batches, open_data, stream
from tljax.errors import RunError, UserError


@pytest.mark.parametrize(('n', 'batch_size'), [(7, 3), (3, 7), (40, 32), (5, 5), (1, 4)])
def test_every_epoch_is_a_permutation(n, batch_size):
    order = Order(n, batch_size, seed=3)
    batches = [order.batch(step) for step in range(4 * n)]
    assert all(b.shape == (batch_size,) and b.dtype == np.int32 for b in batches)
    epochs = np.concatenate(batches).reshape(-1, n)  # nothing is dropped where an epoch ends
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(n), (len(epochs), 1)))
    if n > 5:
        assert len({epoch.tobytes() for epoch in epochs}) > len(epochs) * 0.9


def test_any_step_alone():
    walked = [Order(10, 4, 0).batch(step) for step in range(50)]
    for step in (49, 0, 17):
        np.testing.assert_array_equal(Order(10, 4, 0).batch(step), walked[step])


def test_seeds_share_no_epoch():
    """An epoch e of seed s must not be an epoch of seed s + 1: a study's seeds are independent."""
    epochs = {(s, e): tuple(Order(12, 12, s).batch(e)) for s in range(20) for e in range(20)}
    assert len(set(epochs.values())) == 400


def test_epochs_are_uniform():
    """Chi-squared of 6 orders of 3 examples over 6,000 epochs: below 20.5 (p = 0.001, 5 df)."""
    order = Order(3, 3, seed=1)
    counts = collections.Counter(tuple(order.batch(step)) for step in range(6000))
    assert len(counts) == 6
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 20.5


def test_the_order_stays_as_it_is():
    """Golden: a run that is continued with a newer version must see the same examples."""
    assert Order(6, 4, 0).batch(1).tolist() == [3, 0, 4, 5]


def test_fingerprint_tells_orders_apart():
    first = Order(10, 4, 0)
    assert first.fingerprint() == Order(10, 4, 0).fingerprint()
    changed = [dict(n=11), dict(batch_size=5), dict(seed=1)]
    prints = {dataclasses.replace(first, **c).fingerprint() for c in changed}
    assert len(prints | {first.fingerprint()}) == 4


@pytest.mark.parametrize('wrong', [dict(n=0), dict(batch_size=0)])
def test_impossible_orders(wrong):
    with pytest.raises(UserError):
        Order(**{'n': 10, 'batch_size': 4, 'seed': 0, **wrong})


@pytest.fixture(scope='module')
def split(data_dir):
    from tljax import config

    section = config.default().data
    section.update(name='handwritten_digits', dir=data_dir, shots=2, classes=('3', '1', '4'))
    data = open_data(section, seed=0)
    return data.split('train'), data.subset(5)


def assert_same(left, right):
    assert left.keys() == right.keys() == {'image', 'label'}
    for name, array in left.items():
        assert array.dtype == right[name].dtype
        np.testing.assert_array_equal(array, right[name])


def gathered(split, subset, order, step):
    return {name: array[subset[order.batch(step)]] for name, array in split.arrays().items()}


@pytest.mark.parametrize('threads', [1, 2])
def test_stream_is_memory(split, threads):
    pool, subset = split
    order = Order(len(subset), 4, seed=1)
    batches = list(stream(pool, subset, order, 0, 9, threads=threads))
    assert len(batches) == 9
    for step, batch in enumerate(batches):
        assert batch['image'].shape == (4, 8, 8, 1)
        assert_same(batch, gathered(pool, subset, order, step))


def test_stream_goes_on_where_it_stopped(split):
    pool, subset = split
    order = Order(len(subset), 4, seed=1)
    whole = list(stream(pool, subset, order, 0, 8))
    rest = list(stream(pool, subset, order, 5, 3))
    for before, after in zip(whole[5:], rest, strict=True):
        assert_same(before, after)


@pytest.mark.parametrize('count', [2, 4])
def test_processes_share_a_batch(split, count):
    pool, subset = split
    order = Order(len(subset), 8, seed=2)
    parts = [list(stream(pool, subset, order, 3, 5, p, count)) for p in range(count)]
    for step in range(5):
        own = [parts[p][step] for p in range(count)]
        assert all(len(part['label']) == 8 // count for part in own)
        together = {name: np.concatenate([part[name] for part in own]) for name in own[0]}
        assert_same(together, gathered(pool, subset, order, 3 + step))


def test_uneven_processes_are_refused(split):
    pool, subset = split
    with pytest.raises(UserError, match=r'config\.train\.batch_size is 5.*multiple of 2'):
        next(stream(pool, subset, Order(len(subset), 5, 0), 0, 1, 0, 2))


def test_indices_must_be_those_of_the_order(split):
    pool, subset = split
    with pytest.raises(ValueError, match='the order runs over'):
        next(stream(pool, subset[1:], Order(len(subset), 4, 0), 0, 1))


def test_a_stream_left_early_leaves_no_threads(split):
    pool, subset = split
    before = threading.active_count()
    batches = stream(pool, subset, Order(len(subset), 4, 0), 0, 10_000)
    next(batches)
    batches.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before


def test_errors_of_reading_come_through(split, monkeypatch):
    pool, subset = split

    class Broken:
        def __getitem__(self, index):
            raise RunError(f'example {index} cannot be read')

    monkeypatch.setattr(type(pool), 'source', lambda self: Broken())
    with pytest.raises(RunError, match='cannot be read'):
        next(stream(pool, subset, Order(len(subset), 4, 0), 0, 3))


@pytest.mark.parametrize(('n', 'batch_size'), [(10, 4), (8, 4), (3, 5), (1, 1)])
def test_eval_batches_see_everything_once(n, batch_size):
    seen = []
    for positions, weight in eval_batches(n, batch_size):
        assert positions.shape == weight.shape == (batch_size,)
        assert (positions.dtype, weight.dtype) == (np.int32, np.float32)
        assert 0 <= positions.min() <= positions.max() < n  # padding too can be gathered
        seen += positions[weight == 1].tolist()
        assert set(weight.tolist()) <= {0, 1}
    assert seen == list(range(n))


def test_no_examples_no_batches():
    assert list(eval_batches(0, 4)) == []
