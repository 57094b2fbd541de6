"""Somebody else's weights on the command line: listed, inspected, trained from, exported."""

import numpy as np
import pytest
from parity_support import Case, leaves_of, scheme_of

from tljax import pretrained, trees
from tljax.pretrained import porter
from tljax.train.model_dir import load_card, load_model

CASE = Case('x', 'cifar_resnet', {'depth': 8}, {'image': (8, 8, 3)}, 7, 'akamaster')
RECIPE = '--config=configs/image/pets.py:smoke'
CARD = """
name = "made-up"
licence = "CC0"
training_data = "nothing: drawn at random"
[input]
image_size = 8
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """A file as PyTorch's users publish it, but for its format."""
    path = tmp_path_factory.mktemp('weights') / 'resnet8.npz'
    theirs = porter.unport(leaves_of(CASE), scheme_of(CASE), {})
    np.savez(path, **{f'module.{name}': value for name, value in theirs.items()})
    path.with_name('card.toml').write_text(CARD)
    return path


def test_the_shelf_is_listed_and_narrowed(launch):
    said = launch.ok('sources').stdout
    assert 'torchvision-resnet50-v1' in said
    assert 'gpt2' in said
    said = launch.ok('sources', '--task=image', '--architecture=alexnet').stdout
    assert 'acc' in said
    assert 'gpt2' not in said
    assert 'Architectures: ' in launch.refused('sources', '--architecture=alexnett')


@pytest.mark.slow
def test_a_linear_probe_on_foreign_weights(launch, weights, tmp_path):
    workdir = tmp_path / 'run'
    done = launch.ok(
        'train',
        RECIPE,
        f'--config.source.uri={weights}',
        f'--config.source.card={weights.with_name("card.toml")}',
        '--config.transfer.policy=linear_probe',
        f'--workdir={workdir}',
    )
    assert 'akamaster names' in done.stderr
    assert 'licence CC0' in done.stderr
    variables, card = load_model(workdir / 'model')
    flat = trees.flatten(variables['params']) | trees.flatten(variables['batch_stats'])
    source = leaves_of(CASE)
    for path, leaf in flat.items():
        if path.startswith('backbone/'):
            np.testing.assert_array_equal(leaf, source[path], err_msg=path)
    assert card['source']['licence'] == 'CC0'
    assert card['config']['data']['std'] == [0.25, 0.25, 0.25]  # what the card declares
    output = tmp_path / 'out.safetensors'
    launch.ok('export', f'--workdir={workdir}', f'--output={output}', '--scheme=akamaster')
    back = pretrained.load(str(output), 'cifar_resnet').leaves
    for path, leaf in flat.items():
        np.testing.assert_array_equal(back[path], leaf, err_msg=path)


def test_inspect_tells_of_the_source_and_of_what_differs(launch, weights, tmp_path):
    said = launch.ok(
        'inspect',
        RECIPE,
        f'--config.source.uri={weights}',
        f'--config.source.card={weights.with_name("card.toml")}',
        '--config.data.mean=(0.1, 0.2, 0.3)',
        f'--workdir={tmp_path}',
    ).stdout
    assert 'npz, akamaster names' in said
    assert 'data.mean is (0.1, 0.2, 0.3), the card says (0.5, 0.5, 0.5)' in said
    assert 'data.std is (), the card says (0.25, 0.25, 0.25)' in said  # a pair, or none of it
    assert 'trained on nothing: drawn at random' in said


def test_a_source_without_a_card_is_warned_of(launch, weights, tmp_path):
    done = launch.ok('inspect', RECIPE, f'--config.source.uri={weights}', f'--workdir={tmp_path}')
    assert 'has no card' in done.stderr
    assert 'licence unknown' in done.stdout


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ('--config.model.name=convnet', 'config.model'),
        ('--config.model.depth=14', 'depth'),
        ('--config.source.card=made-up', "no card 'made-up'"),
        ('--config.transfer.reset=()', 'head/kernel'),
    ],
)
def test_a_source_that_does_not_fit(launch, weights, tmp_path, change, said):
    words = ('inspect', RECIPE, f'--config.source.uri={weights}', f'--workdir={tmp_path / "run"}')
    assert said in launch.refused(*words, change)


def test_a_damaged_file(launch, weights, tmp_path):
    cut = tmp_path / 'cut.npz'
    cut.write_bytes(weights.read_bytes()[:5000])
    said = launch.refused(
        'train', RECIPE, f'--config.source.uri={cut}', f'--workdir={tmp_path / "run"}'
    )
    assert str(cut) in said
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_an_import_is_exported(launch, weights, tmp_path):
    output = tmp_path / 'out.safetensors'
    said = launch.ok('export', f'--source={weights}', f'--output={output}').stdout
    assert said == f'Exported: {output}\n'
    back = pretrained.load(str(output)).leaves
    for path, leaf in leaves_of(CASE).items():
        np.testing.assert_array_equal(back[path], leaf, err_msg=path)
    assert 'exists already' in launch.refused('export', f'--source={weights}', f'--output={output}')
    assert 'either --workdir=DIR' in launch.refused('export', f'--output={output}')


@pytest.mark.slow
@pytest.mark.parametrize(
    'recipe',
    [
        'pets',
        pytest.param('cars', marks=pytest.mark.matrix),
        pytest.param('flowers', marks=pytest.mark.matrix),
    ],
)
def test_recipes_for_photographs(launch, tmp_path, recipe):
    """The full recipe stops at the data that is not there; its smoke test runs."""
    file, data = f'--config=configs/image/{recipe}.py', f'--config.data.dir={tmp_path}'
    words = ('train', file, data, f'--workdir={tmp_path / "full"}')
    said = launch.refused(*words)
    assert 'is not prepared' in said or 'cannot be downloaded' in said
    if recipe != 'pets':
        launch.ok('train', f'{file}:smoke', f'--workdir={tmp_path / "smoke"}', '--quiet')


@pytest.mark.matrix  # .ci/run gives this command itself, as README has it
def test_the_smoke_test_compares(launch, tmp_path):
    done = launch.ok('compare', RECIPE, f'--workdir={tmp_path}', '--quiet')
    assert (tmp_path / 'report' / 'index.html').exists()
    assert load_card(tmp_path / 'source' / 'model')['title'] == 'Printed digits (synthetic)'
    assert 'UNDECIDED' in done.stdout  # 2 seeds decide nothing
