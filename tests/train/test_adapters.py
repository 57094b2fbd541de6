"""What a parameter-efficient run trained: written alone, put over its source, or merged."""

import jax
import numpy as np
import peft_models
import pytest
import small_models

from tljax import trees
from tljax.errors import UserError
from tljax.train import adapters, injected_models
from tljax.transfer import plan

NAME = 'convnet'


def flat(variables):
    return {path: np.asarray(leaf) for path, leaf in injected_models.flat(variables).items()}


def nested(model, leaves):
    return {
        kind: trees.unflatten({path: leaves[path] for path in trees.flatten(tree)})
        for kind, tree in model.shapes().items()
    }


def about(method, leaves, **changes):
    recipe, example = small_models.SMALL[NAME]
    own = peft_models.build(NAME, method)
    return {
        'injected': [['', method]],
        'injected_leaves': list(own.outline().injected),
        'backbone': adapters.fingerprint(leaves),
        'source': 'somewhere',
        'model': dict(recipe),
        'example': {name: list(shape) for name, (shape, _) in example.items()},
        'outputs': 3,
        **changes,
    }


@pytest.fixture
def run(tmp_path):
    """A source, a trained model over it, and the file of what was trained."""
    method = 'dora(rank=2)'
    plain, model = peft_models.build(NAME), peft_models.build(NAME, method)
    source = flat(small_models.scattered(plain))
    trained = flat(small_models.scattered(model, seed=7))
    moved = set(model.outline().injected) | set(model.outline().head)
    trained = {path: leaf if path in moved else source[path] for path, leaf in trained.items()}
    leaves = adapters.trained(trained, source, set(model.outline().injected))
    assert leaves.keys() == moved
    rest = {path: leaf for path, leaf in source.items() if path not in leaves}
    file = tmp_path / 'trained.safetensors'
    adapters.save(file, leaves, about(method, rest))
    return plain, model, source, trained, file


def over(file, model, source, reset=()):
    shapes = injected_models.flat(model.shapes())
    manifest = plan(source, shapes, injected=model.outline().injected, reset=reset)
    kept = {entry.path for entry in manifest.entries if entry.action == 'loaded'}
    loaded = {path: leaf for path, leaf in source.items() if path in kept}
    return adapters.over(adapters.read(str(file)), model, loaded, manifest)


def test_the_same_injected_gives_the_trained_leaves_bit_for_bit(run):
    _, model, source, trained, file = run
    loaded, manifest = over(file, model, source, reset=('head/.*',))
    assert loaded.keys() == trained.keys()
    for path, leaf in trained.items():
        np.testing.assert_array_equal(loaded[path], leaf, err_msg=path)
    notes = {entry.path: (entry.action, entry.note) for entry in manifest.entries if entry.path}
    assert notes['head/kernel'] == ('loaded', 'from trained.safetensors')
    assert notes['backbone/convs/0/lora_a'] == ('loaded', 'from trained.safetensors')
    assert notes['backbone/convs/0/kernel'] == ('loaded', '')


def test_a_plain_model_gets_weights_that_compute_the_same(run):
    plain, model, source, trained, file = run
    loaded, _ = over(file, plain, source)
    batch = small_models.batch_of(NAME)
    y = peft_models.forward(plain, nested(plain, loaded), batch)
    expected = peft_models.forward(model, nested(model, trained), batch)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    before = peft_models.forward(plain, nested(plain, source), batch)
    assert np.abs(y - before).max() > 0.01 * np.abs(before).max()


def test_one_bit_of_the_backbone_is_enough_to_refuse(run):
    plain, model, source, _, file = run
    other = {path: np.array(leaf) for path, leaf in source.items()}
    kernel = other['backbone/hidden/kernel']
    kernel[0, 0] = np.nextafter(kernel[0, 0], np.float32(np.inf))
    for target in (plain, model):
        with pytest.raises(UserError, match='belongs to another backbone') as error:
            over(file, target, other)
    saved = adapters.read(str(file))
    rest = {path: leaf for path, leaf in other.items() if path not in saved.leaves}
    assert saved.about['backbone'] in str(error.value)
    assert adapters.fingerprint(rest) in str(error.value)
    other = {**source, 'head/bias': source['head/bias'] + 1}  # the file has its own head
    over(file, model, other)


def test_statistics_belong_to_the_backbone(run):
    _, model, source, _, file = run
    other = {**source, 'backbone/norms/0/mean': source['backbone/norms/0/mean'] + 1}
    with pytest.raises(UserError, match='belongs to another backbone'):
        over(file, model, other)


def test_a_head_for_other_classes_stays_fresh_where_it_is_reset(run):
    _, _, source, _, file = run
    five = peft_models.build(NAME, 'dora(rank=2)', outputs=5)
    loaded, manifest = over(file, five, source, reset=('head/.*',))
    assert not any(path.startswith('head/') for path in loaded)
    assert 'backbone/convs/1/lora_b' in loaded
    actions = {entry.path: entry.action for entry in manifest.entries if entry.path}
    assert actions['head/kernel'] == 'reset'


def test_another_injection_is_told_what_to_write(run):
    _, _, source, _, file = run
    for method in ('dora(rank=3)', 'lora(rank=2)'):
        with pytest.raises(UserError, match=r"config.transfer.policy='dora\(rank=2\)'"):
            over(file, peft_models.build(NAME, method), source)


def test_leaves_of_the_same_shape_that_mean_something_else_are_not_taken(run):
    # No shape of them shows what alpha is, or whether there is a magnitude beside LoRA's.
    _, _, source, _, file = run
    with pytest.raises(UserError, match=r"another way.*policy='dora\(rank=2\)'"):
        over(file, peft_models.build(NAME, 'dora(rank=2, alpha=4)'), source)
    lora, dora = (peft_models.build(NAME, f'{method}(rank=2)') for method in ('lora', 'dora'))
    assert injected_models.same_injected(dora, dora)
    assert injected_models.same_injected(lora, peft_models.build(NAME, 'lora(alpha=16, rank=2)'))
    assert not injected_models.same_injected(lora, dora)
    assert not injected_models.same_injected(lora, peft_models.build(NAME))


def test_what_cannot_be_merged_has_to_be_injected(tmp_path):
    recipe, example = small_models.SMALL['vit']
    plain, model = peft_models.build('vit'), peft_models.build('vit', 'prompt(length=2)')
    source = flat(small_models.scattered(plain))
    leaves = {'backbone/prompt': np.ones((2, 16), np.float32)}
    told = about('lora', source) | {
        'injected': [['', 'prompt(length=2)']],
        'injected_leaves': ['backbone/prompt'],
        'model': recipe,
        'example': {name: list(shape) for name, (shape, _) in example.items()},
    }
    adapters.save(tmp_path / 'a.safetensors', leaves, told)
    with pytest.raises(UserError, match=r"Inject the same here: .*'prompt\(length=2\)'"):
        over(tmp_path / 'a.safetensors', plain, source)
    loaded, _ = over(tmp_path / 'a.safetensors', model, source)
    np.testing.assert_array_equal(loaded['backbone/prompt'], leaves['backbone/prompt'])


ODD = {
    'injected': [5, ['lora'], [['', 5]], [[5, 'lora']]],
    'injected_leaves': [5],
    'backbone': [5],
    'model': [['convnet']],
    'example': [5, {'image': 5}],
    'outputs': ['many', None],
}


@pytest.mark.parametrize(('key', 'value'), [(k, v) for k, values in ODD.items() for v in values])
def test_a_file_that_tells_in_another_form_is_refused(tmp_path, key, value):
    said = {'injected': [['', 'lora']], 'injected_leaves': [], 'backbone': 'x'}
    said |= {'model': {}, 'example': {}, 'outputs': 3}
    file = tmp_path / 'odd.safetensors'
    leaves = {'head/bias': np.ones(2, np.float32)}
    adapters.save(file, leaves, said)
    assert adapters.read(str(file)).about == said
    adapters.save(file, leaves, {**said, key: value})
    with pytest.raises(UserError, match=r'is no file of `launch\.py export'):
        adapters.read(str(file))


def test_a_file_of_a_larger_model_than_there_is_is_refused():
    leaves = {'head/bias': np.ones(3, np.float32)}
    saved = adapters.Saved('small.safetensors', leaves, about('lora(rank=2)', {}))
    with pytest.raises(UserError, match=r"belongs to a model with the leaf 'backbone/.*Export it"):
        adapters.merged(saved, {})


def test_other_files_are_refused(run, tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(UserError, match=r'config\.source\.peft: there is no file'):
        adapters.read(str(tmp_path / 'none.safetensors'))
    save_file({'a': np.ones(2)}, tmp_path / 'plain.safetensors')
    with pytest.raises(UserError, match=r'no file of `launch\.py export --format=peft`'):
        adapters.read(str(tmp_path / 'plain.safetensors'))


@pytest.mark.parametrize('as_shapes', [False, True])
def test_a_model_as_a_source_is_merged_where_the_target_injects_otherwise(run, as_shapes):
    plain, model, _, trained, _ = run
    recipe, example = small_models.SMALL[NAME]
    card = {
        'config': {'source': {'uri': 'x'}, 'transfer': {'policy': 'dora(rank=2)', 'inject': []}},
        'model': dict(recipe),
        'example': {name: list(shape) for name, (shape, _) in example.items()},
        'label_names': ['a', 'b', 'c'],
    }
    given = trained
    if as_shapes:
        given = {p: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for p, leaf in trained.items()}
    assert injected_models.source_leaves(given, card, model) == given
    others = ('dora(rank=3)', 'ia3', 'dora(rank=2, alpha=4)')
    for target in (plain, *(peft_models.build(NAME, other) for other in others)):
        leaves = injected_models.source_leaves(given, card, target)
        assert leaves.keys() == injected_models.flat(plain.shapes()).keys()
    card['config']['source']['uri'] = ''
    assert injected_models.source_leaves({'a': 1}, card, plain) == {'a': 1}
