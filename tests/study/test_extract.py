"""A source's features and what its own head says, against the model called as it is."""

import jax
import numpy as np
import pytest

from tljax import models
from tljax.study import extract as extract_lib
from tljax.study.runs import Arm, RunSpec
from tljax.train import experiment as experiment_lib
from tljax.train.experiment import Source

pytestmark = pytest.mark.usefixtures('one_device')
MODELS = {
    'convnet': {},
    'squeezenet': {'image_size': 47},  # its head is applied to every place of a map
}


def config_and_source(small_config, name, classes=7):
    changes = {'model': models.arguments(name), 'data': {'channels': 3, **MODELS[name]}}
    config = small_config(**{k: v for k, v in changes.items() if k != 'model'})
    with config.unlocked():
        config.model = changes['model']
    example = experiment_lib.build(config, None).data.example
    model = models.build(config.model, example, classes)
    variables = jax.device_get(jax.jit(model.init)(jax.random.key(5)))
    leaves = {p: np.asarray(leaf) for p, leaf in experiment_lib.flat_variables(variables).items()}
    config.transfer.reset = ('head/.*',)
    return config, Source(leaves, {'name': 'test'}), model, variables


@pytest.mark.parametrize('name', ['convnet', pytest.param('squeezenet', marks=pytest.mark.slow)])
def test_features_and_probabilities_are_those_of_the_model(small_config, name):
    config, source, model, variables = config_and_source(small_config, name)
    found = extract_lib.extract(config, source)
    experiment = experiment_lib.build(config, source)
    split = experiment.data.split('validation')
    batch = experiment.prepare({'image': split.arrays()['image']})
    module = models.merge(model.graph(train=False), *variables.values())
    np.testing.assert_allclose(
        found.validation.features_NxD, module.features(batch), rtol=1e-3, atol=1e-4
    )
    expected = jax.nn.softmax(module(batch))
    np.testing.assert_allclose(found.validation.probabilities_NxS, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found.validation.labels_N, split.labels())
    assert len(found.train.features_NxD) == 40  # four labels a class
    assert found.train.probabilities_NxS.shape == (40, 7)


def test_probabilities_do_not_need_kept_features(small_config):
    """Where the kept features are not what the source's head reads, the whole model is run."""
    config, source, *_ = config_and_source(small_config, 'convnet')
    experiment = experiment_lib.build(extract_lib.probing(config), source)
    arm = Arm(experiment, 2)
    classifier = extract_lib.Classifier.of(experiment, source)
    wrong = [np.zeros((len(arm.validation.subset), 3), np.float32)]
    found = extract_lib.extract(config, source).validation.probabilities_NxS
    np.testing.assert_allclose(classifier.probabilities(arm.validation, wrong), found, atol=1e-5)


def test_a_source_without_a_head_has_no_probabilities(small_config):
    config, source, *_ = config_and_source(small_config, 'convnet')
    leaves = {path: leaf for path, leaf in source.leaves.items() if not path.startswith('head/')}
    assert extract_lib.extract(config, Source(leaves, {})).train.probabilities_NxS is None


def test_features_on_disk_are_found_by_training(small_config, tmp_path):
    """rank and a linear probe of the same config share what they keep."""
    config, source, *_ = config_and_source(small_config, 'convnet')
    config.prefix.dir = str(tmp_path)
    extract_lib.extract(config, source)
    kept = {path.name for path in tmp_path.iterdir()}
    assert len(kept) == 2  # of training and of validation examples
    probing = extract_lib.probing(config)
    probing.train.steps = 50  # another run of it
    arm = Arm(experiment_lib.build(probing, source), 2)
    arm.run(RunSpec(config.seed, 0.01, trial=True), lambda _: None)
    assert {path.name for path in tmp_path.iterdir()} == kept
