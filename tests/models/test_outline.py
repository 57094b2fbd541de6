"""Outlines: every architecture's stages cover it once, in the order in which it computes."""

import jax
import pytest
import small_models
from flax import nnx

from tljax import trees
from tljax.models.build import MODELS, Model
from tljax.models.outline import outline_of

VARIANTS = [
    ('vit', dict(class_token=False, pool='mean', position='learnt_patches')),
    ('vit', dict(position='sincos2d', representation=6)),
    ('bert', dict(pool='mean', types=0)),
    ('gpt2', dict(tied=False, pool='none')),
    ('wav2vec2', dict(norm='pre', conv_norm='layer', conv_bias=True)),
    ('convnet', dict(norm='none')),
    ('cifar_resnet', dict(shortcut='projection')),
]
ALL = [(name, {}) for name in MODELS] + VARIANTS


def paths_of(model):
    return set(trees.flatten(model.shapes()['params']))


@pytest.mark.parametrize(('name', 'changes'), ALL, ids=[f'{n}{i}' for i, (n, _) in enumerate(ALL)])
def test_every_parameter_is_in_one_stage_and_the_head_is_the_last(name, changes):
    model = small_models.build(name, **changes)
    outline = model.outline()
    members = [path for stage in outline.members for path in stage]
    assert len(members) == len(set(members))
    assert set(members) == paths_of(model)
    assert outline.stages[-1] == 'head/.*'
    assert set(outline.head) == {path for path in paths_of(model) if path.startswith('head/')}
    assert len(outline.backbone) == len(outline.stages) - 1 >= 3
    assert not outline.injected


@pytest.mark.parametrize('name', sorted(MODELS))
def test_stages_are_in_the_order_in_which_the_model_computes(name):
    """A gradient of the lowest trained stage's output needs no stage below it.

    Numbers in paths of stages rise, and so does the place at which a stage's parameters are first
    read in the traced program.
    """
    model = small_models.build(name)
    variables = model.shapes()
    batch = small_models.batch_of(name)
    graph = model.graph(train=False)

    def call(params):
        from tljax.models import merge

        return merge(graph, params, variables_of(params))(batch)

    def variables_of(params):
        return jax.tree.map(lambda s: jax.numpy.zeros(s.shape, s.dtype), variables['batch_stats'])

    jaxpr = jax.make_jaxpr(call)(variables['params'])
    names = list(trees.flatten(variables['params']))
    place = {}
    for at, equation in enumerate(jaxpr.jaxpr.eqns):
        for variable in equation.invars:
            if variable in jaxpr.jaxpr.invars:
                place.setdefault(names[jaxpr.jaxpr.invars.index(variable)], at)
    firsts = [min(place[p] for p in m if p in place) for m in model.outline().members]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize(
    ('name', 'count'), [('resnet', 40), ('bit', 98), ('alexnet', 0), ('bert', 14), ('vit', 14)]
)
def test_norms_are_told_by_their_types(name, count):
    outline = small_models.build(name).outline()
    assert len(outline.norms) == count
    assert {path.rpartition('/')[2] for path in outline.norms} <= {'scale', 'bias'}
    assert {path for path in outline.norms if path.endswith('bias')} <= set(outline.biases)


def test_biases_are_all_of_them():
    outline = small_models.build('wav2vec2').outline()
    assert 'backbone/position/bias' in outline.biases
    assert 'backbone/block0/attention/query/bias' in outline.biases
    assert 'head/bias' in outline.biases
    assert all(path.endswith('/bias') for path in outline.biases)


def test_blocks_are_stages_with_the_stem_in_the_first():
    outline = small_models.build('cifar_resnet').outline()
    stages = [f'backbone/stage{n}/.*' for n in (1, 2, 3)]
    assert outline.blocks == (('backbone/stem(_norm)?/.*', stages[0]), (stages[1],), (stages[2],))
    outline = small_models.build('convnet').outline()
    assert [len(block) for block in outline.blocks] == [1, 1, 1]


def test_a_tied_head_is_no_stage():
    model = small_models.build('gpt2', pool='none', outputs=30)
    assert model.outline().head == ()
    assert model.outline().backbone == model.outline().stages
    assert {path for stage in model.outline().members for path in stage} == paths_of(model)


class Plain(nnx.Module):
    def __init__(self, rngs):
        self.body = nnx.Linear(2, 3, rngs=rngs)
        self.head = nnx.Linear(3, 2, rngs=rngs)


def test_a_class_that_declares_nothing_has_a_head_and_a_rest():
    outline = Model(Plain).outline()
    assert outline.members == (('body/bias', 'body/kernel'), ('head/bias', 'head/kernel'))


@pytest.mark.parametrize(
    ('stages', 'said'),
    [
        (('body/.*',), "0 stages match the parameter 'head/bias'"),
        (('.*', 'head/.*'), "2 stages match the parameter 'head/bias'"),
        (('body/.*', 'neck/.*', 'head/.*'), "'neck/.*' matches no parameter"),
        (('head/.*', 'body/.*'), "must end with 'head/.*'"),
        (('.*',), "must end with 'head/.*'"),
    ],
)
def test_wrong_declarations(stages, said):
    wrong = type('Wrong', (Plain,), {'stages': lambda self: stages})
    with pytest.raises(TypeError) as caught:
        outline_of(wrong(nnx.Rngs(params=0)))
    assert said in str(caught.value)


class Added(nnx.Param):
    pass


def test_added_leaves_are_in_no_stage():
    class WithMore(Plain):
        def __init__(self, rngs):
            super().__init__(rngs)
            self.body.lora_a = Added(jax.numpy.zeros((2, 1)))

    outline = Model(WithMore).outline()
    assert outline.injected == ('body/lora_a',)
    assert outline.members[0] == ('body/bias', 'body/kernel')
