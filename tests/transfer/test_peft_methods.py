"""Adapters, IA3, prefixes and prompts against plain numpy, and on every architecture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from flax import nnx
from peft_models import build, forward, moved, over
from scipy import special

from tljax import trees
from tljax.errors import UserError
from tljax.models.transformer import Attention, Block, Stack
from tljax.transfer import peft
from tljax.transfer.injection import mixed, recast
from tljax.transfer.peft.in_sequences import Prompt

TRANSFORMERS = ('vit', 'bert', 'gpt2', 'wav2vec2')
CONVOLUTIONS = ('convnet', 'cifar_resnet', 'squeezenet', 'efficientnet_lite')
QUICK = {('vit', 'adapter'), ('gpt2', 'ia3'), ('convnet', 'ia3'), ('bert', 'prompt')}


def cases(*pairs):
    return small_models.sampled(pairs, QUICK, every=4)


def given(module, method, names, seed=0):
    """The module with leaves that are not at their start."""
    made = peft.injector([('layer', method)])(nnx.Dict(layer=module), nnx.Rngs(params=1))['layer']
    rng = np.random.default_rng(seed)
    for name in names:
        leaf = getattr(made, name)
        leaf[...] = jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)
    return made


def attention(width=8, heads=2, seed=3):
    return Attention(width, heads, init=nnx.initializers.lecun_normal(), rngs=nnx.Rngs(params=seed))


@pytest.mark.parametrize(
    ('name', 'method'),
    cases(
        *((name, method) for name in TRANSFORMERS for method in ('adapter', 'ia3')),
        *((name, 'ia3') for name in CONVOLUTIONS),
    ),
)
def test_starts_as_the_source(name, method):
    plain, model = build(name), build(name, method)
    batch, source = small_models.batch_of(name), small_models.scattered(plain)
    expected, start = forward(plain, source, batch), over(model, source)
    np.testing.assert_allclose(forward(model, start, batch), expected, rtol=1e-6, atol=1e-6)
    changed = forward(model, moved(model, start), batch)
    assert np.abs(changed - expected).max() > 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize(
    ('name', 'method'), cases(*((name, 'ia3') for name in TRANSFORMERS + CONVOLUTIONS))
)
def test_ia3_merged_computes_the_same(name, method):
    plain, model = build(name), build(name, method)
    batch, source = small_models.batch_of(name), small_models.scattered(plain)
    trained = moved(model, over(model, source))
    merged = peft.merge(model, trained)
    assert trees.flatten(merged['params']).keys() == trees.flatten(source['params']).keys()
    run = forward(model, trained, batch)
    np.testing.assert_allclose(
        forward(plain, merged, batch), run, rtol=0, atol=1e-4 * np.abs(run).max()
    )


@pytest.mark.parametrize(
    ('name', 'method'),
    cases(*((name, method) for name in TRANSFORMERS for method in ('prefix', 'prompt'))),
)
def test_vectors_that_tokens_look_at_change_what_comes_out(name, method):
    plain, model = build(name), build(name, f'{method}(length=3)')
    batch, source = small_models.batch_of(name), small_models.scattered(plain)
    expected, start = forward(plain, source, batch), over(model, source)
    changed = forward(model, moved(model, start), batch)
    assert changed.shape == expected.shape
    assert np.isfinite(changed).all()
    assert np.abs(changed - expected).max() > 1e-4 * np.abs(expected).max()
    with pytest.raises(UserError, match=r'cannot be worked into the weights: .*alone can be'):
        peft.merge(model, start)


def test_a_method_that_cannot_be_merged_says_so():
    model = build('vit', 'adapter')
    with pytest.raises(UserError, match=r'block0/attention/adapter_.* cannot be worked into'):
        peft.merge(model, model.init(jax.random.key(0)))


def test_an_adapter_is_a_bottleneck_around_which_the_input_goes():
    module = attention()
    names = [f'adapter_{n}' for n in ('down', 'down_bias', 'up', 'up_bias')]
    made = given(module, 'adapter(size=3)', names)
    x = np.random.default_rng(1).normal(size=(2, 5, 8)).astype(np.float32)
    h = np.asarray(module(x), np.float64)
    down, down_bias, up, up_bias = (np.asarray(getattr(made, n)[...], np.float64) for n in names)
    inner = h @ down + down_bias
    inner = inner * 0.5 * (1 + special.erf(inner / np.sqrt(2)))
    np.testing.assert_allclose(made(x), h + inner @ up + up_bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('side', ['output', 'input'])
def test_ia3_multiplies_one_side(side):
    module = nnx.Linear(4, 3, bias_init=nnx.initializers.normal(), rngs=nnx.Rngs(params=0))
    made = given(module, f"ia3(side='{side}')", [f'ia3_{side}'])
    factor = np.asarray(getattr(made, f'ia3_{side}')[...])
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    kernel, bias = np.asarray(module.kernel[...]), np.asarray(module.bias[...])
    expected = (x @ kernel + bias) * factor if side == 'output' else (x * factor) @ kernel + bias
    np.testing.assert_allclose(made(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('rows', [1, 5])
def test_a_prefix_is_seen_by_every_token_and_masked_for_none(rows):
    """Against attention written out, one query at a time."""
    module = attention()
    made = given(module, 'prefix(length=2)', ['prefix_key', 'prefix_value'])
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 5, 8)).astype(np.float32)
    mask = rng.random((3, 1, rows, 5)) < 0.6

    def dense(layer, y):
        return y @ np.asarray(layer.kernel[...], np.float64) + np.asarray(layer.bias[...])

    expected = np.zeros((3, 5, 8))
    for b in range(3):
        q, k, v = (dense(layer, x[b]) for layer in (module.query, module.key, module.value))
        k = np.concatenate([np.asarray(made.prefix_key[...]), k])
        v = np.concatenate([np.asarray(made.prefix_value[...]), v])
        for i in range(5):
            seen = [True, True, *mask[b, 0, i if rows > 1 else 0]]
            for head in (slice(0, 4), slice(4, 8)):
                scores = q[i, head] @ k[:, head].T / 2.0
                weights = np.where(seen, np.exp(scores), 0.0)
                expected[b, i, head] = weights @ v[:, head] / weights.sum()
    expected = dense(module.out, expected)
    np.testing.assert_allclose(made(x, jnp.asarray(mask)), expected, rtol=1e-4, atol=1e-5)
    everything = np.ones((3, 1, rows, 5), bool)
    np.testing.assert_allclose(made(x), made(x, jnp.asarray(everything)), rtol=1e-5, atol=1e-6)


class TwoBlocks(Stack):
    def __init__(self, rngs):
        self.layers = 2
        for n in range(2):
            setattr(self, f'block{n}', Block(8, 2, 12, rngs=rngs))


@pytest.mark.parametrize('kind', ['none', 'padding', 'causal'])
def test_a_prompt_stands_in_front_of_the_tokens(kind):
    """As the same blocks see a longer sequence, under a mask written out by hand."""
    plain = TwoBlocks(nnx.Rngs(params=0))
    rng = np.random.default_rng(0)
    prompt, x = rng.normal(size=(3, 8)), rng.normal(size=(2, 4, 8))
    made = recast(plain, mixed(Prompt, TwoBlocks), prompt=jnp.asarray(prompt, jnp.float32))
    longer = np.concatenate([np.broadcast_to(prompt, (2, 3, 8)), x], 1).astype(np.float32)
    padding = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], bool)
    mask, expected_mask = None, None
    if kind != 'none':
        mask = padding[:, None, None, :]
        expected_mask = np.zeros((2, 1, 7, 7), bool)
        for b in range(2):
            for i in range(7):
                for j in range(7):
                    is_seen = j < 3 or padding[b, j - 3]
                    expected_mask[b, 0, i, j] = is_seen and (kind == 'padding' or j <= i)
        if kind == 'causal':
            mask = mask & np.tril(np.ones((1, 1, 4, 4), bool))
    expected = plain.through(jnp.asarray(longer), expected_mask)[:, 3:]
    given_mask = None if mask is None else jnp.asarray(mask)
    y = made.through(jnp.asarray(x, jnp.float32), given_mask)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_a_prompt_of_gpt2_is_text_that_is_not_in_the_vocabulary():
    """As a plain GPT-2 reads three tokens more, whose embeddings are the prompt's vectors."""
    plain, model = build('gpt2'), build('gpt2', 'prompt(length=3)')
    variables = moved(model, over(model, small_models.scattered(plain)))
    flat = dict(trees.flatten(variables['params']))
    prompt = flat.pop('backbone/prompt')
    position = np.asarray(flat['backbone/position/embedding'])
    flat['backbone/position/embedding'] = np.concatenate([np.zeros((3, 16)), position[:9]])
    token = np.array(flat['backbone/token/embedding'])
    token[:3] = prompt
    flat['backbone/token/embedding'] = token
    batch = small_models.batch_of('gpt2')
    batch['tokens'] = np.maximum(batch['tokens'], 3)
    ones = np.ones((4, 3), np.int32)
    longer = {
        'tokens': np.concatenate([ones * np.arange(3, dtype=np.int32), batch['tokens']], 1),
        'mask': np.concatenate([ones, batch['mask']], 1),
    }
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), trees.unflatten(flat))
    expected = forward(plain, {'params': params, 'batch_stats': {}}, longer)
    run = forward(model, variables, {k: batch[k] for k in ('tokens', 'mask')})
    np.testing.assert_allclose(run, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('method', ['prefix(length=3)', 'prompt(length=3)'])
@pytest.mark.parametrize('name', ['bert', 'gpt2'])
def test_padding_stays_unseen(name, method):
    plain, model = build(name), build(name, method)
    variables = moved(model, over(model, small_models.scattered(plain)))
    batch = small_models.batch_of(name)
    padded = {**batch, 'tokens': np.where(batch['mask'] > 0, batch['tokens'], 7)}
    np.testing.assert_array_equal(
        forward(model, variables, batch), forward(model, variables, padded)
    )


@pytest.mark.parametrize(
    ('name', 'pattern', 'method', 'words'),
    [
        ('vit', '', 'adapter(size=0)', 'size is 0; it takes a whole number'),
        ('vit', '', 'adapter(norms=1)', 'norms is 1; it takes True or False'),
        ('vit', '', 'prefix(length=True)', 'length is True; it takes a whole'),
        ('vit', '', "ia3(side='left')", "side is 'left'; it takes one of"),
        ('convnet', '', 'prompt', r"prompt has no place of its own in a ConvNet\. .*'lora'"),
        ('convnet', 'backbone', 'prompt', 'a Backbone.*backbone only|ConvNet'),
        ('vit', 'backbone/block0', 'prefix', 'a Block, .* it takes attention only'),
        ('vit', 'backbone/norm', 'adapter', 'a LayerNorm, .* it takes attention, two-layer'),
        ('vit', '.*/query', "lora(where='.*/key')", 'where is an argument of lora as a policy'),
        ('vit', '.*/mlp', 'adapter(norms=True)', 'norms is an argument of adapter as a policy'),
        ('efficientnet_lite', '.*/depthwise', "ia3(side='input')", 'no grouped convolution'),
    ],
)
def test_mistakes_are_told(name, pattern, method, words):
    with pytest.raises(UserError, match=words):
        build(name, method, pattern)
