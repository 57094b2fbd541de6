"""The cut program is the program: for every architecture, wherever the frozen part ends."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_models

from tljax import trees
from tljax.models import batch_stats_of, merge
from tljax.tasks.classification import Classification
from tljax.train import step as step_lib
from tljax.transfer import prefix
from tljax.transfer.prefix import kinds
from tljax.transfer.prefix import program as program_lib

TASK = Classification(('a', 'b', 'c'))
# What is trained, from the head downwards.
CHOICES = {
    'head': 'head/.*',
    'last_block': r'(head|backbone/(stage4|stage3|convs/1|block2|fire9|stage7|hidden|fc2))/.*',
    'biases': '.*/bias|head/.*',
}


def halves(params, pattern):
    import re

    trained = {path: bool(re.fullmatch(pattern, path)) for path in trees.flatten(params)}
    assert any(trained.values())
    return trees.partition(params, trained), trained


def split_loss(name, pattern):
    """A loss in three arguments, values for them, and the model's own loss."""
    model = small_models.build(name)
    variables = small_models.scattered(model)
    (trainable, frozen), trained = halves(variables['params'], pattern)
    decisions = {path: {} if chosen else None for path, chosen in trained.items()}
    stats = variables['batch_stats']
    modules = step_lib.frozen_modules(decisions, stats)
    if name == 'efficientnet_lite':  # its last maps are one pixel: four examples vary too little
        modules = {path.rpartition('/')[0] for path in trees.flatten(stats)}
    still = {path: path.rpartition('/')[0] in modules for path in trees.flatten(stats)}
    fixed_stats, live_stats = trees.partition(stats, still)
    graph = model.graph(train=True, frozen=modules)

    def loss(live, constant, batch):
        trainable, live_stats, key = live
        frozen, fixed_stats = constant
        module = merge(
            graph, trees.combine(trainable, frozen), trees.combine(live_stats, fixed_stats)
        )
        value, aux = TASK.loss(module, batch, key)
        return value, (aux, batch_stats_of(module))

    live = (trainable, live_stats, jax.random.key(0))
    return loss, live, (frozen, fixed_stats), small_models.batch_of(name)


QUICK = ('convnet', 'cifar_resnet', 'bert')
NAMES = [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in small_models.SMALL]
PAIRS = [(name, choice) for name in small_models.SMALL for choice in CHOICES]
CASES = small_models.sampled(PAIRS, [('convnet', choice) for choice in CHOICES], every=25)


@pytest.mark.parametrize(('name', 'choice'), CASES)
def test_value_and_gradient_are_those_of_the_whole_program(name, choice):
    loss, live, constant, batch = split_loss(name, CHOICES[choice])
    parts = prefix.cut(loss, live, constant, batch)
    kept = jax.jit(parts.prefix)(constant, batch)
    folded = jax.jit(parts.fold)(constant)

    def whole(trainable):
        return loss((trainable, *live[1:]), constant, batch)

    def rest(trainable):
        return parts.suffix((trainable, *live[1:]), folded, kept)

    (want, (_, stats)), want_grads = jax.jit(jax.value_and_grad(whole, has_aux=True))(live[0])
    (got, (_, other)), got_grads = jax.jit(jax.value_and_grad(rest, has_aux=True))(live[0])
    # Fifty layers amplify rounding, and the more the lower the cut is.
    loose = choice == 'biases' and name == 'bit'
    assert float(got) == pytest.approx(float(want), rel=1e-2 if loose else 1e-4)
    difference = optax.tree.norm(optax.tree.sub(got_grads, want_grads))
    assert float(difference) < (0.03 if loose else 1e-3) * float(optax.tree.norm(want_grads))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), other, stats)


@pytest.mark.parametrize('name', NAMES)
def test_features_are_functions_of_one_example_alone(name):
    loss, live, constant, batch = split_loss(name, CHOICES['head'])
    parts = prefix.cut(loss, live, constant, batch)
    other = small_models.batch_of(name, seed=1)
    mixed = {key: np.concatenate([batch[key][2:3], other[key][1:]]) for key in batch}
    run = jax.jit(parts.prefix)
    for one, many in zip(run(constant, batch), run(constant, mixed), strict=True):
        np.testing.assert_allclose(one[2], many[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', NAMES)
def test_a_linear_probe_keeps_one_vector_and_the_label(name):
    loss, live, constant, batch = split_loss(name, CHOICES['head'])
    parts = prefix.cut(loss, live, constant, batch)
    width = live[0]['head']['kernel'].shape[-2]
    if name == 'squeezenet':  # its head is a convolution, in front of the mean over pixels
        width *= 4
    sizes = sorted((leaf.size, str(leaf.dtype)) for leaf in parts.features)
    assert sizes == [(1, 'int32'), (width, 'float32')]
    assert parts.prefix_flops > 20 * parts.suffix_flops
    assert parts.ended_by == ()


def test_what_the_suffix_needs_of_the_constants_is_folded():
    def loss(w, constant, batch):
        kernel = (constant['a'] @ constant['b']) * 2.0
        return (batch['x'] * w) @ kernel

    x = np.ones((4, 3), np.float32)
    constant = {'a': np.ones((3, 5), np.float32), 'b': np.ones((5, 2), np.float32)}
    parts = prefix.cut(loss, np.float32(2), constant, {'x': x})
    (folded,) = parts.fold(constant)
    assert folded.shape == (3, 2)
    assert [leaf.shape for leaf in parts.features] == [(3,)]
    got = parts.suffix(np.float32(2), (folded,), parts.prefix(constant, {'x': x}))
    np.testing.assert_allclose(got, loss(np.float32(2), constant, {'x': x}))


W = np.arange(6, dtype=np.float32).reshape(3, 2) / 6


@pytest.mark.parametrize(
    'mixing',
    [
        lambda x: x - x.mean(0, keepdims=True),
        lambda x: x[::-1],
        lambda x: jnp.roll(x, 1, 0),
        lambda x: jnp.cumsum(x, 0),
        lambda x: jnp.sort(x, 0),
        lambda x: x @ x.T @ x,
        lambda x: x * jnp.arange(4.0)[:, None],
        lambda x: x[jnp.array([1, 0, 3, 2])],
        lambda x: x.reshape(2, 2, 3).sum(1).repeat(2, 0),
        lambda x: jnp.concatenate([x[2:], x[:2]]),
        lambda x: jnp.stack(jnp.unstack(x)[::-1]),
        lambda x: jax.lax.scan(lambda c, row: (c + row, c), jnp.zeros(3), x)[1],
        lambda x: jnp.pad(x, ((1, 0), (0, 0)))[:-1],
        lambda x: jax.nn.relu(x - x.max(0, keepdims=True)),
        lambda x: jnp.where(jnp.arange(4)[:, None] > 1, x, 0.0),
        lambda x: jnp.linalg.inv(x[:3]) @ x.T[:, :1] + x[:, :1].sum(),
    ],
)
def test_what_mixes_examples_is_never_kept(mixing):
    """The kept features must give the whole's value with any companions, not just their own."""

    def loss(w, constant, batch):
        return jnp.sum(mixing(jnp.tanh(batch['x'] @ constant)) ** 2, keepdims=True) * w

    rng = np.random.default_rng(0)
    batches = [{'x': rng.normal(size=(4, 5)).astype(np.float32)} for _ in range(2)]
    constant = rng.normal(size=(5, 3)).astype(np.float32)
    w = np.float32(3)
    parts = prefix.cut(loss, w, constant, batches[0])
    kept = [parts.prefix(constant, batch) for batch in batches]
    swapped = tuple(jnp.concatenate([b[3:], a[:3]]) for a, b in zip(*kept, strict=True))
    batch = {'x': np.concatenate([batches[1]['x'][3:], batches[0]['x'][:3]])}
    got = parts.suffix(w, parts.fold(constant), swapped)
    np.testing.assert_allclose(got, loss(w, constant, batch), rtol=2e-4)
    assert parts.ended_by
    assert 'mixes examples' in parts.ended_by[0]


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_columns_taken_apart_and_put_together_stay_rows(axis):
    def loss(w, constant, batch):
        columns = jnp.unstack(batch['x'] * constant, axis=1)
        return (jnp.stack(columns[::-1], axis=axis) * w).sum()

    x = {'x': np.ones((4, 3, 2), np.float32)}
    parts = prefix.cut(loss, np.float32(2), np.float32(1), x)
    assert parts.ended_by == ()
    assert sum(leaf.size for leaf in parts.features) == 6


def test_dropout_in_front_ends_the_prefix_and_says_so():
    def loss(live, constant, batch):
        w, key = live
        keep = jax.random.bernoulli(key, 0.5, batch['x'].shape)
        return ((batch['x'] * keep) @ constant @ w).sum()

    x = {'x': np.ones((4, 3), np.float32)}
    live = (np.ones((3, 1), np.float32), jax.random.key(0))
    parts = prefix.cut(loss, live, np.eye(3, dtype=np.float32), x, (kinds.TRAINED, kinds.RANDOM))
    assert parts.prefix_flops == 0
    assert parts.ended_by == (kinds.RANDOM,)
    assert [leaf.shape for leaf in parts.features] == [(3,)]


def test_kinks_keep_their_own_derivative():
    """relu's derivative at 0 is 0; that of the maximum inside it would be 1/2."""

    def loss(w, constant, batch):
        return jax.nn.relu(batch['x'] * constant * w).sum()

    x = {'x': np.ones((4, 2), np.float32)}
    parts = prefix.cut(loss, np.float32(0), np.float32(1), x)
    kept = parts.prefix(np.float32(1), x)
    grad = jax.grad(parts.suffix)(np.float32(0), parts.fold(np.float32(1)), kept)
    assert float(grad) == 0.0


@pytest.mark.slow
def test_features_may_be_kept_in_half_precision():
    loss, live, constant, batch = split_loss('resnet', CHOICES['head'])
    parts = prefix.cut(loss, live, constant, batch)
    kept = parts.prefix(constant, batch)
    half = [x.astype(jnp.bfloat16) if x.dtype == jnp.float32 else x for x in kept]
    folded = parts.fold(constant)
    whole = float(parts.suffix(live, folded, kept)[0])
    assert float(parts.suffix(live, folded, half)[0]) == pytest.approx(whole, rel=0.02)


def test_the_fingerprint_tells_programs_apart():
    x = {'x': np.ones((4, 3), np.float32)}
    w = np.ones((3, 3), np.float32)

    def with_(activation):
        return prefix.cut(lambda live, c, b: (activation(b['x'] @ c) @ c * live).sum(), 1.0, w, x)

    assert with_(jnp.tanh).fingerprint() == with_(jnp.tanh).fingerprint()
    assert with_(jnp.tanh).fingerprint() != with_(jnp.sin).fingerprint()

    def closing_over(array):
        return with_(lambda x: x * array)

    one, two = np.full((1, 3), 1.5, np.float32), np.full((1, 3), 2.5, np.float32)
    assert closing_over(one).fingerprint() == closing_over(one.copy()).fingerprint()
    assert closing_over(one).fingerprint() != closing_over(two).fingerprint()


def test_flops_are_counted_inside_calls_too():
    def run(x, kernel):
        return jax.jit(lambda x: x @ kernel)(x).sum()

    eqns = program_lib.trace(run, np.ones((4, 3)), np.ones((3, 2))).jaxpr.eqns
    assert program_lib.flops(eqns) == 2 * 4 * 3 * 2
