"""Modules put in the place of others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models
from flax import nnx

from tljax import models, trees
from tljax.errors import UserError
from tljax.transfer import apply, injection, peft, plan


class Shifted:
    """Adds an injected vector to what a module gives."""

    def __call__(self, x):
        return super().__call__(x) + self.shift[...].reshape(1, 1, -1)


def shifted(module, rngs):
    if not isinstance(module, nnx.Linear):
        raise ValueError('it takes linear layers only')
    kind = injection.mixed(Shifted, type(module))
    return injection.recast(module, kind, shift=jnp.zeros(module.out_features))


def vit(rules=None):
    inject = None
    if rules is not None:
        inject = lambda module, rngs: injection.inject(module, rules, rngs)  # noqa: E731
    recipe, example = small_models.SMALL['vit']
    shapes = {key: jax.ShapeDtypeStruct(shape, dtype) for key, (shape, dtype) in example.items()}
    return models.build(recipe, shapes, 3, inject)


def forward(model, variables, batch):
    graph = model.graph(train=False)
    return models.merge(graph, variables['params'], variables['batch_stats'])(batch)


def test_old_leaves_keep_their_paths_and_their_draws(key):
    plain, model = vit(), vit([('.*/query', shifted)])
    before, after = (trees.flatten(m.init(key)['params']) for m in (plain, model))
    new = {f'backbone/block{n}/attention/query/shift' for n in range(3)}
    assert after.keys() - before.keys() == new
    for path, leaf in before.items():
        np.testing.assert_array_equal(after[path], leaf, err_msg=path)
    outline = model.outline()
    assert set(outline.injected) == new
    assert outline.stages == plain.outline().stages
    assert outline.members == plain.outline().members


def test_a_replaced_module_computes_what_its_class_says(key):
    plain, model = vit(), vit([('backbone/block1/mlp/up', shifted)])
    batch = small_models.batch_of('vit')
    variables = small_models.scattered(model)
    path = 'backbone/block1/mlp/up/'
    flat = trees.flatten(variables['params'])
    shift = flat.pop(path + 'shift')
    flat[path + 'bias'] = flat[path + 'bias'] + shift
    moved = {'params': trees.unflatten(flat), 'batch_stats': {}}
    np.testing.assert_allclose(
        forward(model, variables, batch), forward(plain, moved, batch), atol=1e-6
    )


def test_the_first_rule_that_matches_wins():
    refuse = lambda module, rngs: shifted(None, rngs)  # noqa: E731
    model = vit([('backbone/block0/mlp/up', shifted), ('backbone/block1/.*/up', shifted)])
    assert len(model.outline().injected) == 2
    with pytest.raises(UserError, match=r"'backbone/block0/mlp/up' is never reached: earlier"):
        vit([('.*/mlp/up', shifted), ('backbone/block0/mlp/up', refuse)])


def test_layers_in_a_list_can_be_replaced(key):
    class Stack(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(2)])

    module = injection.inject(Stack(nnx.Rngs(params=0)), [('layers/1', shifted)], nnx.Rngs(0))
    assert [hasattr(layer, 'shift') for layer in module.layers] == [False, True]


def test_a_module_within_a_replaced_one_is_replaced_too():
    def kept(module, rngs):
        return injection.recast(module, type(module), extra=jnp.zeros(2))

    for rules in ([('.*/block0', kept), ('.*/up', shifted)],):
        injected = set(vit(rules).outline().injected)
        assert 'backbone/block0/extra' in injected
        assert 'backbone/block0/mlp/up/shift' in injected


@pytest.mark.parametrize(
    ('pattern', 'words'),
    [
        (
            'backbone/block0/attention/querry',
            r"matches no module.*'backbone/block0/attention/query'",
        ),
        ('attention/query', r"matches a part of \['backbone/block0/attention/query'"),
        ('head/kernel', 'matches no module'),
        ('backbone/(', 'no regular expression'),
        ('backbone/block0/norm1', "'backbone/block0/norm1', a LayerNorm, .*linear layers only"),
    ],
)
def test_rules_that_cannot_be(pattern, words):
    with pytest.raises(UserError, match=words) as error:
        vit([(pattern, shifted)])
    assert str(error.value).startswith('config.transfer.inject: ')


def test_a_leaf_of_that_name_is_refused():
    clash = lambda module, rngs: injection.recast(module, type(module), bias=jnp.zeros(1))  # noqa: E731
    with pytest.raises(UserError, match="it has 'bias' already"):
        vit([('.*/query', clash)])


def test_the_module_that_was_there_is_left_as_it_was():
    old = nnx.Linear(2, 3, rngs=nnx.Rngs(params=0))
    new = shifted(old, None)
    assert not hasattr(old, 'shift')
    assert type(old) is nnx.Linear
    assert new.kernel is old.kernel
    assert isinstance(new, nnx.Linear)
    assert type(new).__name__ == 'ShiftedLinear'


def test_surgery_leaves_injected_leaves_fresh_and_takes_those_that_a_source_has():
    plain = trees.flatten(vit().shapes()['params'])
    model = vit([('.*/query', shifted)])
    shapes, injected = trees.flatten(model.shapes()['params']), model.outline().injected
    manifest = plan(plain, shapes, injected=injected)
    actions = {entry.path: entry.action for entry in manifest.entries}
    assert list(actions) == list(shapes)
    assert {path for path, action in actions.items() if action == 'injected'} == set(injected)
    source = {path: np.ones(leaf.shape, leaf.dtype) for path, leaf in plain.items()}
    fitted = apply(manifest, source, shapes)
    assert fitted[injected[0]] is shapes[injected[0]]
    manifest = plan(shapes, shapes, injected=injected)
    assert {entry.action for entry in manifest.entries} == {'loaded'}
    with pytest.raises(UserError, match=r'transfer\.reset'):
        plan(plain, shapes, injected=injected, reset=('.*/shift',))


@pytest.mark.parametrize(
    'rules', [['lora'], [('.*/query',)], [('.*/query', 3)], [('', 'lora')], 'lora', [{'a': 'lora'}]]
)
def test_rules_of_a_config_are_pairs_of_strings(rules):
    with pytest.raises(UserError, match=r'config\.transfer\.inject: .* is no rule'):
        peft.chosen('full', rules)


def test_a_module_is_replaced_once():
    recipe, example = small_models.SMALL['vit']
    shapes = {k: jax.ShapeDtypeStruct(shape, dtype) for k, (shape, dtype) in example.items()}
    pairs = peft.chosen('lora(rank=2)', [('.*/query', 'lora')])
    with pytest.raises(UserError, match=r'config\.transfer\.policy: .*a LoraLinear, which cannot'):
        models.build(recipe, shapes, 3, peft.injector(pairs))
