"""Regularisers around a task's loss: one pass of the model, seen by all; on every architecture."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from flax import nnx

from tljax import trees
from tljax.errors import UserError
from tljax.models import batch_stats_of, merge
from tljax.tasks.classification import Classification
from tljax.train.experiment import flat_variables
from tljax.transfer import regularizers
from tljax.transfer.regularizers import hooks, objective

pytestmark = pytest.mark.slow

TASK = Classification(('a', 'b', 'c'))
SOURCE_OUTPUTS = 5
TEXT_AND_SOUND = ('bert', 'gpt2', 'wav2vec2')
ALL = small_models.sampled([(name,) for name in small_models.SMALL], [('convnet',)], every=12)


def outfit_of(name, texts, *, renamed=True, **changes):
    """An architecture with regularisers, and a source that has a head of another size."""
    model = small_models.build(name, **changes)
    source = small_models.build(name, outputs=SOURCE_OUTPUTS, **changes)
    leaves = flat_variables(small_models.scattered(source, 7))
    recipe, example = small_models.SMALL[name]
    config = SimpleNamespace(
        model={**recipe, **changes}, transfer=SimpleNamespace(regularize=texts, rename=())
    )
    shapes = {key: jax.ShapeDtypeStruct(*spec) for key, spec in example.items()}
    shapes['label'] = jax.ShapeDtypeStruct((), np.int32)
    found = regularizers.outfit(config, model, TASK, shapes, leaves, {})
    loaded = {path: leaf for path, leaf in leaves.items() if not path.startswith('head/')}
    start = small_models.scattered(found.model, 3)
    values = {**loaded, **found.loaded}
    variables = {
        kind: trees.map_with_path(lambda path, leaf: jnp.asarray(values.get(path, leaf)), tree)
        for kind, tree in start.items()
    }
    return found, variables, leaves


def loss_of(found, *, train=True):
    graph = found.model.graph(train=train)
    function = regularizers.make(TASK, found.setting)

    def loss(params, stats, batch, key, reference):
        module = merge(graph, params, stats)
        loss, aux = function(module, batch, key, reference)
        return loss, (aux, batch_stats_of(module))

    return loss


def plain_loss(found, *, train=True):
    graph = found.model.graph(train=train)

    def loss(params, stats, batch, key, reference):
        module = merge(graph, params, stats)
        loss, aux = TASK.loss(module, batch, key)
        return loss, (aux, batch_stats_of(module))

    return loss


def reference_of(found, **more):
    return {**jax.tree.map(jnp.asarray, found.reference), **more}


def relation():
    even = np.random.default_rng(0).uniform(0.1, 1, (3, SOURCE_OUTPUTS))
    return jnp.asarray(even / even.sum(1, keepdims=True), jnp.float32)


def assert_close(a, b, **options):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **options), a, b)


# Hooks


def test_hooks_leave_no_trace_even_after_an_error():
    model = small_models.build('convnet')
    module = merge(model.graph(train=False), *model.init(jax.random.key(0)).values())
    before = nnx.graphdef(module)
    kinds = [type(part) for _, part in nnx.iter_modules(module)]

    def broken(call, *args, **kwargs):
        raise RuntimeError('no')

    batch = small_models.batch_of('convnet')
    with pytest.raises(RuntimeError), hooks.hooked(module, {'backbone/hidden': [broken]}):
        module(batch)
    assert [type(part) for _, part in nnx.iter_modules(module)] == kinds
    assert nnx.graphdef(module) == before
    module(batch)


def test_hooks_are_nested_from_the_inside():
    linear = nnx.Linear(2, 3, rngs=nnx.Rngs(params=0))
    x = jnp.ones((1, 2))
    plain = linear(x)
    add = lambda call, x: call(x) + 1.0  # noqa: E731
    double = lambda call, x: 2.0 * call(x)  # noqa: E731
    with hooks.hooked(linear, {'': [add, double]}):
        np.testing.assert_allclose(linear(x), 2 * (plain + 1), rtol=1e-6)
        with hooks.hooked(linear, {'': [add]}):
            np.testing.assert_allclose(linear(x), 2 * (plain + 1) + 1, rtol=1e-6)
        np.testing.assert_allclose(linear(x), 2 * (plain + 1), rtol=1e-6)
    np.testing.assert_array_equal(linear(x), plain)


def test_a_part_that_is_not_there_is_an_error():
    linear = nnx.Linear(2, 3, rngs=nnx.Rngs(params=0))
    with pytest.raises(KeyError, match='deep'), hooks.hooked(linear, {'deep': []}):
        pass


@pytest.mark.parametrize('name', small_models.SMALL)
def test_every_stage_below_the_head_has_a_map(name):
    model = small_models.build(name)
    batch = small_models.batch_of(name)
    shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch.items() if k != 'label'}
    outlets = hooks.stage_outlets(model, shapes)
    outline = model.outline()
    assert len(outlets) == len(outline.backbone)
    for outlet, members in zip(outlets, outline.members, strict=False):
        assert any(path.startswith(f'{outlet}/') for path in members)

    def seen(variables, batch):
        module = merge(model.graph(train=False), *variables.values())
        record = objective.Record(outlets)
        with record.around(module):
            logits = module(batch)
        return record.result(), logits

    shown, logits = jax.eval_shape(seen, model.shapes(), shapes)
    assert shown.logits.shape == logits.shape
    assert all(shown_map.shape[0] == 4 and shown_map.ndim > 1 for shown_map in shown.maps)
    assert shown.features.shape[0] == 4
    assert shown.features.ndim == 2


# Terms

TERMS = (
    'bss(eta={})',
    "delta(alpha={}, attention='none')",
    'lwf(weight={})',
    'co_tuning(weight={})',
)


@pytest.mark.parametrize('name', ALL)
def test_terms_of_no_weight_change_nothing(name):
    found, variables, _ = outfit_of(name, [term.format(0.0) for term in TERMS])
    batch, key = small_models.batch_of(name), jax.random.key(1)
    arguments = variables['params'], variables['batch_stats'], batch, key
    reference = reference_of(found, relation=relation())
    grads = {}
    for label, function in (('with', loss_of(found)), ('without', plain_loss(found))):
        compiled = jax.jit(jax.value_and_grad(function, has_aux=True))
        grads[label] = compiled(*arguments, reference)
    (loss, (aux, stats)), moved = grads['with']
    (plain, (plain_aux, plain_stats)), plain_moved = grads['without']
    np.testing.assert_allclose(loss, plain, rtol=1e-6)
    assert_close({k: aux[k] for k in plain_aux}, plain_aux, rtol=1e-6)
    assert set(aux) - set(plain_aux) == {'bss', 'delta', 'lwf', 'co_tuning'}
    assert_close(stats, plain_stats, rtol=1e-5, atol=1e-6)
    # Gradients that cancel, as under a normalisation, are rounding errors of the largest ones.
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(plain_moved))
    assert_close(moved, plain_moved, rtol=1e-3, atol=1e-5 * max(largest, 1.0))


@pytest.mark.parametrize('name', ALL)
def test_every_term_reaches_the_backbone_of_every_architecture(name):
    found, variables, _ = outfit_of(name, [term.format(0.3) for term in TERMS])
    # Away from the source, where DELTA is flat, and from a head that lets nothing through.
    rng = np.random.default_rng(5)
    params = trees.map_with_path(
        lambda path, leaf: (
            1.05 * leaf
            + (0.01 * rng.normal(size=leaf.shape).astype(np.float32) if path[:5] == 'head/' else 0)
        ),
        variables['params'],
    )
    batch, key = small_models.batch_of(name), jax.random.key(1)
    reference = reference_of(found, relation=relation())

    names = ('bss', 'delta', 'lwf', 'co_tuning', 'loss')

    def values(params):
        stats = variables['batch_stats']
        loss, (aux, _) = loss_of(found)(params, stats, batch, key, reference)
        return jnp.stack([{**aux, 'loss': loss}[name] for name in names])

    @jax.jit
    def gradients(params):
        found, pull = jax.vjp(values, params)
        return found, jax.vmap(pull)(jnp.eye(len(names)))

    numbers, (grads,) = gradients(params)
    assert np.isfinite(numbers).all()
    for index, term in enumerate(names):
        flat = {path: leaf[index] for path, leaf in trees.flatten(grads).items()}
        assert all(np.isfinite(leaf).all() for leaf in flat.values()), term
        backbone = [leaf for path, leaf in flat.items() if path.startswith('backbone/')]
        assert sum(float(jnp.abs(leaf).sum()) for leaf in backbone) > 0, term
        for path in ('head/kernel', 'source_head/kernel'):
            own = path.startswith('source') and term in ('lwf', 'co_tuning')
            concerned = term == 'loss' or own
            assert bool(np.abs(flat[path]).sum() > 0) == concerned, (term, path)


@pytest.mark.parametrize(
    'name', ['vit', *(pytest.param(name, marks=pytest.mark.matrix) for name in TEXT_AND_SOUND)]
)
def test_at_the_source_the_maps_are_equal_and_the_second_head_says_what_the_source_says(name):
    texts = ["delta(attention='none')", 'lwf(temperature=2)']
    found, variables, leaves = outfit_of(name, texts)
    batch, key = small_models.batch_of(name), jax.random.key(1)
    _, (aux, _) = jax.jit(loss_of(found))(
        variables['params'], variables['batch_stats'], batch, key, reference_of(found)
    )
    np.testing.assert_allclose(aux['delta'], 0, atol=1e-9)
    source = small_models.build(name, outputs=SOURCE_OUTPUTS)
    values = {
        kind: trees.map_with_path(lambda path, _: jnp.asarray(leaves[path]), tree)
        for kind, tree in source.shapes().items()
    }
    logits = merge(source.graph(train=False), *values.values())(batch)
    soft = jax.nn.softmax(logits / 2)
    entropy = -(soft * jnp.log(soft)).sum(-1).mean()
    np.testing.assert_allclose(aux['lwf'], entropy, rtol=1e-4)


def test_the_second_head_sees_the_same_dropout_as_the_first():
    found, variables, _ = outfit_of('bert', ['lwf'], dropout=0.5)
    batch, key = small_models.batch_of('bert'), jax.random.key(4)
    module = merge(found.model.graph(train=True), *variables.values())
    record = objective.Record(())
    with record.around(module):
        logits = module(batch, rngs=nnx.Rngs(dropout=key))
    seen = record.kept['features']
    assert float((seen == 0).mean()) > 0.3
    again = objective.second_logits(module, record, batch, key)
    second = module.source_head
    expected = seen @ second.kernel[...] + second.bias[...].reshape(1, -1)
    np.testing.assert_allclose(again, expected, rtol=1e-4, atol=1e-5)
    assert logits.shape != again.shape


# R-Drop


def test_r_drop_takes_two_passes_of_each_example():
    found, variables, _ = outfit_of('convnet', ['r_drop(alpha=3)', 'bss'], dropout=0.5)
    batch, key = small_models.batch_of('convnet'), jax.random.key(2)
    graph = found.model.graph(train=True)
    module = merge(graph, *variables.values())
    double = {name: np.repeat(leaf, 2, axis=0) for name, leaf in batch.items()}
    record = objective.Record(())
    with record.around(module):
        logits = np.asarray(module(double, rngs=nnx.Rngs(dropout=key)), np.float64)
    a, b = logits[::2], logits[1::2]
    assert np.abs(a - b).max() > 0.01
    log_a, log_b = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (a, b))
    both = sum((np.exp(p) * (p - q)).sum(-1).mean() for p, q in ((log_a, log_b), (log_b, log_a)))
    rows = np.arange(len(a))
    losses = [-x[rows, batch['label']].mean() for x in (log_a, log_b)]
    loss, (aux, _) = loss_of(found)(*variables.values(), batch, key, {})
    np.testing.assert_allclose(aux['r_drop'], 3 / 2 * both / 2, rtol=1e-4)
    # The other terms see every example once.
    features = np.asarray(record.kept['features'])[::2]
    least = np.linalg.svd(features, compute_uv=False)[-1]
    np.testing.assert_allclose(aux['bss'], 1e-3 * least**2, rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(loss, np.mean(losses) + aux['r_drop'] + aux['bss'], rtol=1e-4)


# StochNorm


@pytest.mark.parametrize('p', [0.0, 0.5, 1.0])
def test_stoch_norm_takes_each_channel_from_one_of_two_branches(p):
    found, variables, _ = outfit_of('convnet', [f'stoch_norm(p={p})'], dropout=0.0)
    batch, key = small_models.batch_of('convnet', size=6), jax.random.key(2)
    outlet = 'backbone/norms/0'

    def shown(train, changes):
        module = merge(found.model.graph(train=train), *variables.values())
        record = objective.Record((outlet,))
        with record.around(module, changes(module)):
            module(batch, rngs=nnx.Rngs(dropout=key))
        return record.result().maps[0], batch_stats_of(module)

    none = lambda module: {}  # noqa: E731
    by_batch, moved = shown(True, none)
    by_moving, _ = shown(False, none)
    chosen = functools.partial(objective.norm_hooks, found.setting.regularizers, key=key)
    mixed, moved_too = shown(True, lambda module: chosen(module))
    gaps = [np.abs(np.asarray(mixed - other)).max((0, 1, 2)) for other in (by_batch, by_moving)]
    assert np.abs(np.asarray(by_batch - by_moving)).max() > 0.1
    from_batch = gaps[0] < 1e-5
    assert (from_batch | (gaps[1] < 1e-5)).all()
    if p != 0.5:
        assert (from_batch == bool(p)).all()
    first = {'backbone': {'norms': {'0': moved['backbone']['norms']['0']}}}
    assert_close(
        {'backbone': {'norms': {'0': moved_too['backbone']['norms']['0']}}}, first, rtol=1e-5
    )


def test_stoch_norm_draws_each_channel_with_its_probability():
    (regularizer,) = regularizers.parse(['stoch_norm(p=0.25)'])

    def call(x, use_running_average=False):
        return x * (0.0 if use_running_average else 1.0)

    x = jnp.ones((2, 3, 4000))
    drawn = regularizer.norm(call, x, key=jax.random.key(0))
    assert 0.22 < float(drawn.mean()) < 0.28
    assert (np.asarray(drawn) == np.asarray(drawn)[:1, :1]).all()


def test_stoch_norm_leaves_frozen_normalisations_alone():
    found, variables, _ = outfit_of('convnet', ['stoch_norm'])
    graph = found.model.graph(train=True, frozen={'backbone/norms/0'})
    module = merge(graph, *variables.values())
    changed = objective.norm_hooks(found.setting.regularizers, module, jax.random.key(0))
    assert set(changed) == {'backbone/norms/1'}


# Mixing


def test_the_loss_of_mixed_examples_is_the_mixture_of_two_losses():
    logits = np.random.default_rng(0).normal(size=(4, 3))
    first, second, share = np.array([0, 1, 2, 0]), np.array([1, 1, 0, 2]), np.float32(0.3)
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    rows, smoothing = np.arange(4), 0.1

    def smoothed(label):
        return -((1 - smoothing) * log[rows, label] + smoothing * log.mean(-1))

    expected = (share * smoothed(first) + (1 - share) * smoothed(second)).mean()
    task = Classification(('a', 'b', 'c'), smoothing)
    batch = {
        'label': jnp.asarray(first),
        'other_label': jnp.asarray(second),
        'share': jnp.full(4, share),
    }
    loss, aux = task.loss(lambda batch, rngs: jnp.float32(logits), batch, jax.random.key(0))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    guess = logits.argmax(-1)
    hits = share * (guess == first) + (1 - share) * (guess == second)
    np.testing.assert_allclose(aux['accuracy'], hits.mean(), rtol=1e-5)


def test_mixing_reaches_the_model_and_other_terms():
    found, variables, _ = outfit_of('vit', ['mixup(alpha=1.0)', 'co_tuning', 'cutmix'])
    batch = small_models.batch_of('vit', size=8)
    losses = {
        float(loss_of(found)(*variables.values(), batch, jax.random.key(seed), reference)[0])
        for seed in range(4)
        for reference in [reference_of(found, relation=relation())]
    }
    assert len(losses) == 4
    assert np.isfinite(list(losses)).all()


# What makes no sense


@pytest.mark.parametrize(
    ('name', 'text', 'words'),
    [
        ('bert', 'mixup', 'mixup mixes pictures.*tokens'),
        ('wav2vec2', 'cutmix', 'cutmix mixes pictures.*audio'),
        ('vit', 'stoch_norm', 'stoch_norm is about batch normalisation'),
        ('vit', 'r_drop', 'r_drop compares two passes.*config.model.dropout'),
    ],
)
def test_what_makes_no_sense_is_refused(name, text, words):
    with pytest.raises(UserError, match=words) as error:
        outfit_of(name, [text])
    assert 'config.transfer.regularize' in str(error.value)


def test_a_source_without_a_head_has_nothing_to_say():
    model = small_models.build('vit')
    leaves = flat_variables(small_models.scattered(model))
    headless = {path: leaf for path, leaf in leaves.items() if not path.startswith('head/')}
    recipe, example = small_models.SMALL['vit']
    shapes = {key: jax.ShapeDtypeStruct(*spec) for key, spec in example.items()}
    shapes['label'] = jax.ShapeDtypeStruct((), np.int32)
    for text, words in (('lwf', 'no head/kernel'), ('co_tuning', 'no head/kernel')):
        config = SimpleNamespace(
            model=recipe, transfer=SimpleNamespace(regularize=[text], rename=())
        )
        with pytest.raises(UserError, match=words):
            regularizers.outfit(config, model, TASK, shapes, headless, {})
    config.transfer.regularize = ['delta']
    regularizers.outfit(config, model, TASK, shapes, headless, {})  # it asks no head
    del headless['backbone/norm/scale']
    with pytest.raises(UserError, match=r'backbone/norm/scale.*has none'):
        regularizers.outfit(config, model, TASK, shapes, headless, {})


def test_a_renamed_source_is_found():
    model = small_models.build('convnet')
    leaves = {
        path.replace('head', 'classifier'): leaf
        for path, leaf in flat_variables(small_models.scattered(model)).items()
    }
    recipe, example = small_models.SMALL['convnet']
    shapes = {key: jax.ShapeDtypeStruct(*spec) for key, spec in example.items()}
    rename = (('classifier/(.*)', r'head/\1'),)
    config = SimpleNamespace(
        model=recipe, transfer=SimpleNamespace(regularize=['lwf'], rename=rename)
    )
    found = regularizers.outfit(config, model, TASK, shapes, leaves, {})
    np.testing.assert_array_equal(found.loaded['source_head/kernel'], leaves['classifier/kernel'])
