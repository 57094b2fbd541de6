"""Each regulariser's formula against a plain computation of its own."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tljax.errors import UserError
from tljax.transfer import regularizers
from tljax.transfer.regularizers import consistency, distillation, features, inputs, l2_sp, setup
from tljax.transfer.regularizers.base import Pass, View

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def softmax(x):
    shifted = np.exp(x - x.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def view(**parts):
    given = dict(model=None, twin=None, source=None, source_logits=None, targets=None, measured={})
    return View(**{**given, **parts})


def one(text):
    (regularizer,) = regularizers.parse([text])
    return regularizer


# L2-SP


def test_l2_sp_is_the_gradient_of_its_penalty():
    loaded = frozenset({'backbone/kernel'})
    start = {'backbone': {'kernel': normal(3, 2)}, 'head': {'bias': normal(4)}}
    now = jax.tree.map(lambda leaf: leaf + normal(*leaf.shape), start)
    grads = jax.tree.map(lambda leaf: normal(*leaf.shape), start)

    def penalty(params):
        pull = jnp.sum((params['backbone']['kernel'] - start['backbone']['kernel']) ** 2)
        return 0.3 / 2 * pull + 0.07 / 2 * jnp.sum(params['head']['bias'] ** 2)

    tx = one('l2_sp(alpha=0.3, beta=0.07)').gradient(loaded)
    state = tx.init(start)
    updates, after = tx.update(grads, state, now)
    expected = jax.tree.map(np.add, grads, jax.grad(penalty)(now))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updates, expected)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    kept = jax.tree.leaves(state)
    assert len(kept) == 1  # nothing is kept of the leaf that goes to 0
    np.testing.assert_array_equal(kept[0], start['backbone']['kernel'])


def test_l2_sp_needs_the_parameters():
    tx = one('l2_sp').gradient(frozenset())
    with pytest.raises(ValueError, match='params'):
        tx.update({'a': np.ones(2)}, tx.init({'a': np.ones(2)}))


def test_a_hole_in_the_tree_stays_one():
    tx = l2_sp.pull_to_start(lambda path: (1.0, 1.0))
    start = {'a': jnp.ones(2), 'b': None}
    updates, _ = tx.update({'a': jnp.zeros(2), 'b': None}, tx.init(start), start)
    assert updates['b'] is None
    np.testing.assert_array_equal(updates['a'], np.zeros(2))


def test_l2_sp_alone_returns_to_the_source():
    tx = optax.chain(one('l2_sp(alpha=1.0)').gradient(frozenset({'w'})), optax.sgd(0.1))
    params = {'w': jnp.array([1.0, -2.0])}
    state = tx.init(params)
    params = {'w': params['w'] + 5}
    for _ in range(100):
        updates, state = tx.update({'w': jnp.zeros(2)}, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params['w'], [1.0, -2.0], atol=1e-3)


# BSS


@pytest.mark.parametrize('shape', [(6, 9), (9, 6), (4, 4)])
@pytest.mark.parametrize('k', [1, 3])
def test_bss_sums_the_smallest_singular_values(shape, k):
    matrix = normal(*shape)
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    term = one(f'bss(eta=0.5, k={k})').term
    found = term(view(model=Pass(None, jnp.asarray(matrix), ())))
    np.testing.assert_allclose(found, 0.5 * np.sum(values[-k:] ** 2), rtol=1e-4)


def test_the_gradient_of_bss_is_that_of_torch():
    torch = pytest.importorskip('torch')
    matrix = normal(5, 8)
    theirs = torch.tensor(matrix, dtype=torch.float64, requires_grad=True)
    torch.linalg.svdvals(theirs)[-2:].square().sum().backward()
    ours = jax.grad(lambda m: features.tail(m, 2))(jnp.asarray(matrix))
    np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('matrix', [np.zeros((4, 6)), np.ones((4, 6)), np.eye(5)])
def test_the_gradient_of_bss_is_finite_where_values_meet(matrix):
    grads = jax.grad(lambda m: features.tail(m, 2))(jnp.asarray(matrix, jnp.float32))
    assert np.isfinite(grads).all()


# DELTA


@pytest.mark.parametrize('weighted', [False, True])
def test_delta_is_the_papers_sum_over_channels(weighted):
    maps = [normal(3, 4, 5, 6), normal(3, 7)]
    theirs = [normal(3, 4, 5, 6), normal(3, 7)]
    attention = [softmax(normal(6)), softmax(normal(7))]
    measured = {'attention': tuple(map(jnp.asarray, attention))} if weighted else {}
    expected = 0.0
    for own, other, weights in zip(maps, theirs, attention, strict=True):
        channels = own.shape[-1]
        flat, flat_other = own.reshape(3, -1, channels), other.reshape(3, -1, channels)
        for example in range(3):
            for channel in range(channels):
                gap = flat[example, :, channel] - flat_other[example, :, channel]
                weight = weights[channel] if weighted else 1 / channels
                expected += channels * weight * np.sum(gap**2) / len(gap) / 2 / 3
    text = 'delta(alpha=0.2)' if weighted else "delta(alpha=0.2, attention='none')"
    passes = [Pass(None, None, tuple(map(jnp.asarray, side))) for side in (maps, theirs)]
    found = one(text).term(view(model=passes[0], source=passes[1], measured=measured))
    np.testing.assert_allclose(found, 0.2 * expected, rtol=1e-5)


def test_delta_draws_new_leaves_to_zero_and_loaded_ones_nowhere():
    params = {'backbone': {'kernel': normal(2, 3)}, 'head': {'bias': normal(4)}}
    tx = one('delta(beta=0.5)').gradient(frozenset({'backbone/kernel'}))
    zeros = jax.tree.map(np.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    np.testing.assert_array_equal(updates['backbone']['kernel'], np.zeros((2, 3)))
    np.testing.assert_allclose(updates['head']['bias'], 0.5 * params['head']['bias'], rtol=1e-6)


# LwF and Co-Tuning


def test_lwf_is_the_cross_entropy_of_softened_probabilities():
    ours, source = normal(4, 5), normal(4, 5)
    # Equations 3 and 4 of the paper, as they stand.
    old, new = softmax(source) ** (1 / 3), softmax(ours) ** (1 / 3)
    old, new = old / old.sum(-1, keepdims=True), new / new.sum(-1, keepdims=True)
    expected = -(old * np.log(new)).sum(-1).mean()
    term = one('lwf(temperature=3, weight=0.7)').term
    found = term(view(source=Pass(jnp.asarray(source), None, ()), source_logits=jnp.asarray(ours)))
    np.testing.assert_allclose(found, 0.7 * expected, rtol=1e-5)


def test_lwf_is_least_at_the_source():
    source = jnp.asarray(normal(4, 5))
    grads = jax.grad(lambda x: distillation.distillation(x, source, 2.0))(source)
    np.testing.assert_allclose(grads, np.zeros((4, 5)), atol=1e-7)
    to_source = jax.grad(lambda x: distillation.distillation(source + 1, x, 2.0))(source)
    np.testing.assert_array_equal(to_source, np.zeros((4, 5)))


def test_co_tuning_takes_the_row_of_the_class():
    logits, labels = normal(4, 6), np.array([0, 2, 1, 2])
    relation = softmax(normal(3, 6))
    expected = np.mean(
        [-np.sum(relation[y] * np.log(softmax(row))) for y, row in zip(labels, logits, strict=True)]
    )
    found = one('co_tuning(weight=2)').term(
        view(
            source_logits=jnp.asarray(logits),
            targets=jax.nn.one_hot(labels, 3),
            measured={'relation': jnp.asarray(relation)},
        )
    )
    np.testing.assert_allclose(found, 2 * expected, rtol=1e-5)


# R-Drop


def test_r_drop_is_the_papers_equation_halved():
    torch = pytest.importorskip('torch')
    a, b = normal(4, 5), normal(4, 5)
    log_a, log_b = (torch.log_softmax(torch.tensor(x), -1) for x in (a, b))
    both = [
        torch.nn.functional.kl_div(p, q, reduction='batchmean', log_target=True)
        for p, q in ((log_a, log_b), (log_b, log_a))
    ]
    term = one('r_drop(alpha=3)').term
    found = term(view(model=Pass(jnp.asarray(a), None, ()), twin=jnp.asarray(b)))
    np.testing.assert_allclose(found, 3 / 2 * float(sum(both)) / 2, rtol=1e-5)
    assert float(consistency.symmetric_divergence(jnp.asarray(a), jnp.asarray(a))) == 0.0


# mixup and CutMix


def pictures(size=6, height=8, width=5):
    return {
        'image': jnp.asarray(normal(size, height, width, 3)),
        'label': jnp.arange(size, dtype=jnp.int32),
    }


def test_mixup_mixes_pictures_and_labels_alike():
    batch, order = pictures(), np.array([3, 0, 5, 1, 2, 4])
    found = inputs.mixed(batch, jnp.asarray(order), jnp.full((8, 5), 0.3))
    image = np.asarray(batch['image'])
    np.testing.assert_allclose(found['image'], 0.3 * image + 0.7 * image[order], rtol=1e-5)
    np.testing.assert_array_equal(found['other_label'], order)
    np.testing.assert_allclose(found['share'], np.full(6, 0.3), rtol=1e-6)


def test_mixup_draws_its_share_from_a_beta_distribution():
    mix = one('mixup(alpha=0.4)').mix
    kept = jax.jit(jax.vmap(lambda key: mix(key, 2, 3)))(jax.random.split(jax.random.key(0), 4000))
    shares = np.asarray(kept)
    assert (shares == shares[:, :1, :1]).all()
    assert abs(shares.mean() - 0.5) < 0.03
    variance = 0.4**2 / ((0.8**2) * 1.8)
    assert abs(shares[:, 0, 0].var() - variance) < 0.01


def test_cutmix_pastes_a_rectangle_whose_area_is_the_share():
    mix = one('cutmix').mix
    draw = jax.jit(lambda key: inputs.by_one_of([mix], batch, key))
    batch = pictures(6, 9, 7)
    image, seen = np.asarray(batch['image']), set()
    for seed in range(40):
        found = draw(jax.random.key(seed))
        order = np.asarray(found['other_label'])
        new = np.asarray(found['image'])
        rows = [i for i in range(6) if order[i] != i]
        pasted = (new[rows] != image[rows]).all(-1).any(0)
        kept, theirs = np.asarray(found['share']), image[order]
        np.testing.assert_array_equal(new, np.where(pasted[None, :, :, None], theirs, image))
        np.testing.assert_allclose(kept, np.full(6, 1 - pasted.mean()), atol=1e-6)
        tall, wide = pasted.any(1), pasted.any(0)
        assert (pasted == tall[:, None] & wide[None, :]).all()
        for line in (tall, wide):
            assert (np.diff(np.flatnonzero(line)) == 1).all()
        seen.add(float(kept[0]))
    assert len(seen) > 10


def test_the_sides_of_the_rectangle_are_the_root_of_the_share():
    boxes = [
        np.asarray(inputs.box(jax.random.key(seed), jnp.float32(0.5), 20, 12)) for seed in range(60)
    ]
    tall = [box.any(1).sum() for box in boxes]
    wide = [box.any(0).sum() for box in boxes]
    assert max(tall) == 10  # sides are whole where the rectangle lies inside
    assert max(wide) == 6
    assert min(tall) < 10  # and cut off at the edge


def test_several_ways_to_mix_take_turns():
    ways = [lambda key, h, w, value=value: jnp.full((h, w), value) for value in (0.25, 0.75)]
    batch = pictures(2, 2, 2)
    draw = jax.vmap(lambda key: inputs.by_one_of(ways, batch, key)['share'][0])
    shares = np.asarray(draw(jax.random.split(jax.random.key(0), 400)))
    assert set(shares.tolist()) == {0.25, 0.75}
    assert 0.4 < (shares == 0.25).mean() < 0.6


# Arguments


@pytest.mark.parametrize('text', setup.REGULARIZERS)
def test_every_name_stands_for_its_defaults(text):
    assert one(text).name == text
    function = setup.REGULARIZERS[text]
    parameters = inspect.signature(function).parameters.values()
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters)


@pytest.mark.parametrize(
    ('texts', 'words'),
    [
        (['l2_sp(alpha=-1)'], 'alpha is -1; it must be a number, 0 or more'),
        (['l2_sp(alpha=True)'], 'alpha is True'),
        (["l2_sp(alpha='x')"], "alpha is 'x'"),
        (['mixup(alpha=0)'], 'above 0'),
        (['bss(k=0)'], 'whole number, 1 or more'),
        (['bss(k=1.5)'], 'whole number'),
        (['stoch_norm(p=1.5)'], '0 or more and 1 or less'),
        (['lwf(temperature=0)'], 'above 0'),
        (['lwf(weight=1e999)'], 'weight is inf'),
        (["delta(attention='all')"], "attention is 'all'; it takes one of"),
        (['r_drop(beta=1)'], "no argument 'beta'"),
        (['mixap'], "no 'mixap'.*mixup"),
        (['bss', 'bss(k=2)'], 'bss is there twice'),
        ('bss', 'is a list'),
        ([3], 'is not written as a name'),
    ],
)
def test_mistakes_are_told(texts, words):
    with pytest.raises(UserError, match=words) as error:
        regularizers.parse(texts)
    assert 'config.transfer.regularize' in str(error.value)
