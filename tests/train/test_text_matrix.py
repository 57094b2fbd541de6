"""Policies, injected leaves, kept features and regularisers on texts, as they are on images."""

import re

import jax
import numpy as np
import pytest
import small_models
import small_texts

from tljax import mesh as mesh_lib
from tljax import trees
from tljax.errors import UserError
from tljax.study.runs import Arm
from tljax.train import experiment as experiment_lib
from tljax.train import gradients
from tljax.train.features import FeatureFeed
from tljax.train.state import own_buffers

TASKS = small_texts.TASKS
HEAD = 'head/.*'
# BERT's layer norm is behind its embeddings, GPT-2's behind its blocks.
FIRST = ('backbone/(token|position|norm|block0)/.*', 'backbone/(token|position|block0)/.*')
LAST = ('backbone/block1/.*', 'backbone/(block1|norm)/.*')
# What has moved by the end, beside the head; two where the tasks' models differ.
POLICIES = {
    'full': '.*',
    'gradual': '.*',
    'layerwise_decay': '.*',
    'discriminative(rates=(0.1, 0.5, 1))': '.*',
    'surgical(block="first")': FIRST,
    'surgical(block="last")': LAST,
    'bitfit': '.*/bias',
    'norm_only': r'.*norm\d?/(scale|bias)',
    'lora(rank=2)': r'.*/(query|value)/lora_[ab]',
    'dora(rank=2)': r'.*/(query|value)/(lora_[ab]|dora_magnitude)',
    'adapter(size=3)': '.*/(attention|mlp)/adapter_.*',
    'ia3': '.*/ia3_(input|output)',
    'prefix(length=3)': '.*/attention/prefix_(key|value)',
    'prompt(length=3)': 'backbone/prompt',
}
# Which phases keep features; in front of both blocks there is nothing worth keeping.
CACHED = [
    (TASKS[0], 'surgical(block="last")', [True]),
    (TASKS[1], 'surgical(block="last")', [True]),
    (TASKS[0], 'surgical(block="last", head=False)', [True]),
    (TASKS[0], 'gradual', [True, True, False, False]),
    (TASKS[1], 'gradual', [True, False, False]),  # its head is no stage
    (TASKS[0], 'lora(rank=2, where="backbone/block1/.*/query")', [True]),
    (TASKS[1], 'lora(rank=2, where="backbone/block1/.*/query")', [True]),
]
# A softmax does not see what is added to all of its inputs, so this may move or not.
UNSEEN = '.*/attention/key/bias'


@pytest.fixture(scope='module', autouse=True)
def quickly():
    with small_texts.quickly():
        yield


@pytest.fixture(scope='module')
def experiment(tmp_path_factory):
    """experiment(task, policy, section__key=value, ...): with a source drawn at random."""
    directory = tmp_path_factory.mktemp('texts')
    small_texts.write(directory)
    drawn = {}

    def make(task, policy='full', model=(), **keys):
        config = small_texts.config_of(task, directory, policy, **keys)
        with config.unlocked():
            config.model.update(dict(model))
        key = task, *sorted(dict(model).items())
        if key not in drawn:
            drawn[key] = small_texts.source_of(config)
        source = None if policy == 'from_scratch' else drawn[key]
        return experiment_lib.build(config, source)

    return make


@pytest.fixture(scope='module')
def walk(experiment):
    """walk(task, policy, ...) -> `walked`, once."""
    done = {}

    def go(*args, **keys):
        name = repr((args, keys))
        if name not in done:
            done[name] = walked(experiment(*args, **keys))
        return done[name]

    return go


def walked(experiment, seed=0):
    """Trains all phases: parameters before and after, what each step showed, and which phases kept
    features."""
    arm = Arm(experiment, 2)
    subset, order = arm.order(seed)
    variables = arm.variables(seed)
    before = params = jax.tree.map(np.array, variables['params'])
    state, shown, kept = None, [], []
    for program, runner in zip(arm.programs, arm.runners, strict=True):
        if state is None:
            state = program.start(variables, experiment.config.optim.lr, jax.random.key(seed))
        else:
            state = program.enter(state, params)
        frozen = program.split(params)[1]
        state = mesh_lib.put_replicated(arm.mesh, own_buffers(state))
        ready = runner.ready(frozen, state.batch_stats, arm.pool.of(subset), arm.validation)
        kept.append(isinstance(ready.feed, FeatureFeed))
        for data, indices in ready.feed.batches(order, program.phase.first, program.phase.end):
            state, metrics = ready.step(state, ready.fixed, data, indices)
            shown.append({name: float(value) for name, value in metrics.items()})
        params = trees.combine(state.trainable, frozen)
    return trees.flatten(before), trees.flatten(params), shown, kept


def check_moved(before, after, pattern):
    """What the expression matches has moved, and the rest is equal bit for bit."""
    assert before.keys() == after.keys()
    assert any(re.fullmatch(pattern, path) for path in before)
    for path, leaf in before.items():
        now = np.asarray(after[path])
        if not re.fullmatch(pattern, path):
            np.testing.assert_array_equal(now, leaf, err_msg=path)
        elif not re.fullmatch(UNSEEN, path):
            assert np.any(now != leaf), path


def check_losses(shown):
    losses = [metrics['loss'] for metrics in shown]
    assert np.isfinite(losses).all()
    assert len(set(losses)) == len(losses)


QUICK = {(TASKS[0], 'lora(rank=2)'), (TASKS[1], 'surgical(block="last")')}
EVERY = [(task, policy) for task in TASKS for policy in POLICIES]


@pytest.mark.parametrize(('task', 'policy'), small_models.sampled(EVERY, QUICK, every=3))
def test_what_a_policy_trains_moves_and_the_rest_stays(walk, task, policy):
    before, after, shown, _ = walk(task, policy, prefix__cache='off')
    assert len(shown) == 6
    check_losses(shown)
    pattern = POLICIES[policy]
    pattern = pattern if isinstance(pattern, str) else pattern[TASKS.index(task)]
    check_moved(before, after, f'{pattern}|{HEAD}')


@pytest.mark.slow
@pytest.mark.parametrize('task', TASKS)
def test_the_block_with_the_largest_gradient_is_trained(experiment, task):
    made = experiment(task, 'surgical(block="auto")')
    ratios = gradients.relative(made)
    assert len(ratios) == 2
    assert made.policy == f'surgical(block={np.argmax(ratios)})'
    assert made.phases == experiment(task, made.policy).phases


@pytest.mark.parametrize('task', TASKS)
def test_from_scratch_nothing_is_loaded_and_all_is_trained(experiment, task):
    scratch, full = (experiment(task, policy) for policy in ('from_scratch', 'full'))
    assert scratch.phases == full.phases
    assert scratch.loaded == {}
    assert full.loaded.keys() == set(full.param_paths())


# A head that is an embedding has nothing to probe with; one of its own has.
OWN_HEAD = {'classification': {}, 'language_modelling': {'tied': False}}


PROBES = [(task, policy) for task in TASKS for policy in ('linear_probe', 'head_then_full')]


@pytest.mark.parametrize(('task', 'policy'), small_models.sampled(PROBES, PROBES[:1], every=1))
def test_probes_are_the_same_behind_kept_features(walk, task, policy):
    shown = {}
    for cache in ('on', 'off'):
        before, after, shown[cache], kept = walk(task, policy, OWN_HEAD[task], prefix__cache=cache)
        assert kept[0] == (cache == 'on')
        check_moved(before, after, HEAD if policy == 'linear_probe' else '.*')
    check_same(*shown.values())


@pytest.mark.slow
@pytest.mark.parametrize(('task', 'policy', 'phases'), CACHED)
def test_losses_are_the_same_behind_kept_features(walk, task, policy, phases):
    _, _, on, kept = walk(task, policy, prefix__cache='on')
    assert kept == phases
    _, _, off, kept = walk(task, policy, prefix__cache='off')
    assert not any(kept)
    check_same(on, off)


def check_same(one, other):
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        for name, value in left.items():
            np.testing.assert_allclose(value, right[name], rtol=3e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize('policy', ['linear_probe', 'head_then_full'])
def test_a_head_that_is_an_embedding_cannot_be_probed(experiment, policy):
    with pytest.raises(UserError, match=r'tied to an embedding. Set config.model.tied=False'):
        experiment('language_modelling', policy)


REGULARIZERS = {
    'classification': ('l2_sp', 'delta', 'bss', 'lwf', 'co_tuning', 'r_drop'),
    'language_modelling': ('l2_sp', "delta(attention='none')", 'bss', 'r_drop'),
}


@pytest.mark.slow
@pytest.mark.parametrize('task', TASKS)
def test_regularisers_add_to_the_loss(walk, task):
    texts = REGULARIZERS[task]
    before, after, shown, _ = walk(
        task,
        model={'dropout': 0.1},
        transfer__regularize=texts,
        transfer__reset=('head/.*',) if task == 'classification' else (),
    )
    check_losses(shown)
    check_moved(before, after, '.*')
    for name in (text.partition('(')[0] for text in texts):
        if name != 'l2_sp':  # a gradient, and no term
            assert shown[-1][name] > 0, name


@pytest.mark.slow
@pytest.mark.parametrize('task', TASKS)
def test_regularisers_are_the_same_behind_kept_features(walk, task):
    shown = {}
    for cache in ('on', 'off'):
        *_, shown[cache], kept = walk(
            task,
            'surgical(block="last")',
            transfer__regularize=("delta(attention='none')", 'bss'),
            prefix__cache=cache,
        )
        assert kept == [cache == 'on']
    check_same(*shown.values())


@pytest.mark.slow
@pytest.mark.parametrize('task', TASKS)
def test_labels_are_smoothed(walk, task):
    _, _, plain, _ = walk(task, 'full', prefix__cache='off')
    _, _, smooth, _ = walk(task, 'full', prefix__cache='off', task__label_smoothing=0.2)
    assert smooth[0]['loss'] != plain[0]['loss']
    (metric,) = smooth[0].keys() & {'accuracy', 'token_accuracy'}
    assert smooth[0][metric] == plain[0][metric]  # the same model, otherwise judged


@pytest.mark.parametrize(
    ('regularize', 'said'),
    [
        ('delta', r"delta measures .*\battention='none'"),
        ('co_tuning', 'co_tuning needs one label an example'),
        ('lwf', 'the source has no head/kernel'),
        ('mixup', 'mixup mixes pictures'),
        ('stoch_norm', 'the model has none'),
        ('r_drop', 'the model has no dropout'),
    ],
)
def test_regularisers_that_make_no_sense_for_the_next_word_say_so(experiment, regularize, said):
    with pytest.raises(UserError, match=said):
        experiment('language_modelling', transfer__regularize=(regularize,))
