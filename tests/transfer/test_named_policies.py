"""Policies by name, on every architecture: what each trains, in which phase, at which rate."""

import re

import jax
import numpy as np
import pytest
import small_models
from flax import nnx

from tljax import trees
from tljax.errors import UserError
from tljax.models.build import MODELS, Model
from tljax.transfer import policies
from tljax.transfer.named import POLICIES

STEPS = 100
NO_NORMS = {'alexnet', 'squeezenet'}  # those alone have nothing for norm_only
CALLS = [
    'full',
    'from_scratch',
    'linear_probe',
    'head_then_full',
    'lp_ft(share=0.2)',
    'gradual',
    'layerwise_decay(decay=0.5)',
    'discriminative',
    'surgical',
    "surgical(block='middle')",
    "surgical(block='last', head=False)",
    'bitfit',
    'norm_only',
]


def paths_of(model):
    return list(trees.flatten(model.shapes()['params']))


def laid(call, model, steps=STEPS):
    """Each phase's steps and, path by path, its rate (None is frozen)."""
    phases = policies.phases(call, steps, model.outline())
    return [
        (
            phase.steps,
            {
                path: None if value is None else value['lr']
                for path, value in policies.decide(phase, paths_of(model)).items()
            },
        )
        for phase in phases
    ]


def trained(rates):
    return {path for path, rate in rates.items() if rate is not None}


@pytest.fixture(scope='module')
def models():
    return {name: small_models.build(name) for name in MODELS}


@pytest.mark.parametrize('call', CALLS)
@pytest.mark.parametrize('name', sorted(MODELS))
def test_every_policy_works_on_every_architecture(call, name, models):
    model = models[name]
    if call == 'norm_only' and name in NO_NORMS:
        with pytest.raises(UserError, match='no normalisation layers below its head'):
            laid(call, model)
        return
    phases = laid(call, model)
    assert sum(steps for steps, _ in phases) == STEPS
    head = set(model.outline().head)
    for _, rates in phases:
        assert set(rates) == set(paths_of(model))
        assert bool(head & trained(rates)) == ('head=False' not in call)


def test_every_policy_is_tried():
    tried = {re.split(r'\(', call)[0] for call in CALLS}
    assert tried | {'injected'} == set(POLICIES)


def test_a_probe_trains_the_head_alone(models):
    for model in models.values():
        ((_, rates),) = laid('linear_probe', model)
        assert trained(rates) == set(model.outline().head) == {p for p in rates if p[:5] == 'head/'}


def test_head_then_full(models):
    (first, probe), (second, full) = laid('head_then_full(share=0.3)', models['bert'])
    assert (first, second) == (30, 70)
    assert trained(probe) == set(models['bert'].outline().head)
    assert set(full.values()) == {1.0}
    assert laid('lp_ft', models['bert']) == laid('head_then_full', models['bert'])


def test_gradual_unfreezes_a_stage_more_each_phase_from_the_top(models):
    model = models['cifar_resnet']
    phases = laid('gradual(share=0.8)', model)
    members = model.outline().members
    assert [steps for steps, _ in phases] == [20, 20, 20, 20, 20]
    for number, (_, rates) in enumerate(phases, 1):
        assert trained(rates) == {path for stage in members[-number:] for path in stage}


def test_many_phases_fill_the_steps_whatever_their_number():
    model = small_models.build('gpt2', layers=7)
    for steps in (17, 23, 100):
        phases = laid('gradual', model, steps)
        assert len(phases) == 9
        assert sum(n for n, _ in phases) == steps
        assert phases[-1][0] >= steps // 2 - 1
    with pytest.raises(UserError, match=r'policy gradual\[.*every phase needs one at least'):
        laid('gradual', model, 6)


def test_layerwise_decay_is_the_rate_times_decay_to_the_depth(models):
    model = models['vit']  # embeddings, three blocks, head
    ((_, rates),) = laid('layerwise_decay(decay=0.5)', model)
    expected = {
        'head/kernel': 1.0,
        'backbone/norm/scale': 0.5,
        'backbone/block2/mlp/up/kernel': 0.5,
        'backbone/block1/attention/query/bias': 0.25,
        'backbone/block0/norm1/scale': 0.125,
        'backbone/class_token': 0.0625,
        'backbone/position': 0.0625,
        'backbone/patch/kernel': 0.0625,
    }
    assert {path: rates[path] for path in expected} == expected


def test_discriminative_divides_the_stages_among_its_rates(models):
    model = models['resnet']  # stem, four stages, head
    ((_, rates),) = laid('discriminative(rates=(0, 0.25, 0.5))', model)
    by_stage = [{rates[path] for path in stage} for stage in model.outline().members]
    assert by_stage == [{None}, {None}, {None}, {0.25}, {0.25}, {0.5}]
    ((_, rates),) = laid('discriminative(rates=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6))', model)
    by_stage = [{rates[path] for path in stage} for stage in model.outline().members]
    assert by_stage == [{0.1}, {0.2}, {0.3}, {0.4}, {0.5}, {0.6}]


@pytest.mark.parametrize(
    ('call', 'stages'),
    [
        ('surgical', (0, 1)),
        ("surgical(block='middle')", (2,)),
        ("surgical(block='last')", (4,)),
        ('surgical(block=2)', (3,)),
        ("surgical(block='auto')", (0, 1)),  # until gradients say which
    ],
)
def test_surgical_trains_one_block_and_the_head(call, stages, models):
    model = models['resnet']
    members = model.outline().members
    ((_, rates),) = laid(call, model)
    expected = {path for stage in (*stages, 5) for path in members[stage]}
    assert trained(rates) == expected
    ((_, rates),) = laid('surgical(block=1, head=False)', model)
    assert trained(rates) == set(members[2])


def test_bitfit_and_norm_only(models):
    ((_, rates),) = laid('bitfit', models['bert'])
    assert trained(rates) == {p for p in rates if p.endswith('/bias') or p.startswith('head/')}
    ((_, rates),) = laid('norm_only', models['bert'])
    assert trained(rates) == {p for p in rates if 'norm' in p or p.startswith('head/')}


def test_the_block_is_chosen_by_the_largest_gradient():
    assert policies.settled("surgical(block='auto', head=False)", lambda: [0.1, 0.5, 0.2]) == (
        'surgical(block=1, head=False)'
    )

    def never():
        raise AssertionError('not asked for')

    for policy in ('full', "surgical(block='first')", [{'rules': [('.*', {})]}]):
        assert policies.settled(policy, never) == policy


def test_a_tied_head_cannot_be_probed_and_the_rest_works():
    model = small_models.build('gpt2', pool='none', outputs=30)
    for call in ('linear_probe', 'head_then_full'):
        with pytest.raises(UserError, match=r'tied to an embedding. Set config\.model\.tied=False'):
            laid(call, model)
    for call in ('full', 'gradual', 'layerwise_decay', 'surgical', 'bitfit', 'norm_only'):
        assert sum(steps for steps, _ in laid(call, model)) == STEPS
    ((_, rates),) = laid('discriminative(rates=(0.5, 1.0))', model)
    assert set(rates.values()) == {0.5, 1.0}


class Added(nnx.Param):
    pass


class Injected(nnx.Module):
    """Two stages and a head, leaves injected within a stage and outside of all."""

    def __init__(self, rngs):
        self.one = nnx.Linear(2, 2, rngs=rngs)
        self.two = nnx.Linear(2, 2, rngs=rngs)
        self.head = nnx.Linear(2, 2, rngs=rngs)
        self.prompt = Added(jax.numpy.zeros((1, 2)))
        self.two.bias_of = Added(jax.numpy.zeros(2))

    def stages(self):
        return 'one/.*', 'two/.*', 'head/.*'


IN = {'prompt', 'two/bias_of'}
HEAD = {'head/kernel', 'head/bias'}


@pytest.mark.parametrize(
    ('call', 'expected'),
    [
        ('injected', [IN | HEAD]),
        ('linear_probe', [IN | HEAD]),
        ('bitfit', [IN | HEAD | {'one/bias', 'two/bias'}]),
        ('surgical', [IN | HEAD | {'one/bias', 'one/kernel'}]),
        ("surgical(block='last')", [IN | HEAD | {'two/bias', 'two/kernel'}]),
        ('full', [None]),
        ('layerwise_decay', [None]),
        ('head_then_full', [HEAD, None]),
        ('gradual', [HEAD, HEAD | {'two/bias', 'two/kernel', 'two/bias_of'}, None]),
    ],
)
def test_injected_leaves_are_trained_by_every_policy(call, expected):
    model = Model(Injected)
    got = [trained(rates) for _, rates in laid(call, model)]
    assert got == [set(paths_of(model)) if paths is None else paths for paths in expected]


def test_an_injected_leaf_that_is_never_trained_is_a_mistake():
    outline = Model(Injected).outline()
    with pytest.raises(UserError, match="injected leaf 'prompt' is trained in no phase"):
        policies.phases([{'rules': [('(one|two)/.*', {}), ('.*', None)]}], 10, outline)
    assert policies.phases([{'rules': [('prompt|two/.*', {}), ('.*', None)]}], 10, outline)


def test_injected_needs_something_injected(models):
    with pytest.raises(UserError, match='nothing is injected'):
        laid('injected', models['bert'])


@pytest.mark.parametrize(
    ('call', 'said'),
    [
        ('layerwise_decay(decay=0)', 'decay is 0; it takes a number above 0, at most 1'),
        ('layerwise_decay(decay=1.5)', 'decay is 1.5'),
        ("layerwise_decay(decay='x')", "decay is 'x'"),
        ('head_then_full(share=1)', 'share is 1; it takes a number between 0 and 1'),
        ('gradual(share=True)', 'share is True'),
        ('discriminative(rates=())', 'from 2 to 5 numbers'),
        ('discriminative(rates=(1, 1, 1, 1, 1, 1))', 'from 2 to 5 numbers'),
        ('discriminative(rates=0.1)', 'not 0.1'),
        ('discriminative(rates=(-1, 1))', 'rates is -1; it takes numbers, 0 or more'),
        ("surgical(block='top')", "block is 'top'; surgical takes one of"),
        ('surgical(block=3)', 'a number from 0 to 2, as this model has 3 blocks'),
        ('surgical(block=True)', 'block is True'),
        ("surgical(head='no')", "head is 'no'; surgical takes True or False"),
        ('gradul', "no 'gradul'. Did you mean 'gradual'"),
        ('gradual(shares=0.1)', "gradual has no argument 'shares'. Did you mean 'share'"),
    ],
)
def test_wrong_arguments(call, said, models):
    with pytest.raises(UserError) as caught:
        laid(call, models['bert'])
    assert said in str(caught.value)
    assert 'config.transfer.policy' in str(caught.value)


def test_rates_reach_the_optimiser(models):
    """A step of sgd moves a stage by its factor times what the full policy moves it."""
    from tljax import config as config_lib
    from tljax.train import optimizer

    model, section = models['cifar_resnet'], config_lib.default().optim
    section.update(name='sgd', momentum=0.0)
    params = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), model.shapes()['params'])
    (phase,) = policies.phases('layerwise_decay(decay=0.5)', 10, model.outline())
    tx = optimizer.direction(section, policies.decide(phase, paths_of(model)))
    moved, _ = tx.update(params, tx.init(params), params)
    for depth, stage in enumerate(model.outline().members[::-1]):
        for path in stage:
            np.testing.assert_allclose(trees.flatten(moved)[path], 0.5**depth)
