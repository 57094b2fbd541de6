"""One prepared data directory and one small experiment for the tests of studies."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from tljax import config as config_lib
from tljax import mesh as mesh_lib
from tljax import trees
from tljax.models import arguments
from tljax.train import experiment as experiment_lib


@pytest.fixture
def one_device(monkeypatch):
    """On one device: four that share two cores have time to wait for one another for ever."""
    mesh = jax.make_mesh((1,), ('data',), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    monkeypatch.setattr(mesh_lib, 'data_mesh', lambda: mesh)


@pytest.fixture(scope='session')
def small_config(tmp_path_factory):
    """A few steps on handwritten digits, batch normalisation and dropout on."""

    def make(**sections):
        config = config_lib.default()
        config.model = arguments('convnet', widths=(4,), hidden=8, norm='batch', dropout=0.3)
        config.data.update(name='handwritten_digits', shots=4, dir=str(directory))
        config.train.update(steps=12, batch_size=8)
        # Not adam: its first steps are signs of gradients, which rounding can turn around.
        config.optim.update(name='sgd', clip=1.0, weight_decay=0.01)
        config.study.update(eval_points=6)
        for name, changes in sections.items():
            config[name].update(changes)
        return config_lib.resolve(config)

    directory = tmp_path_factory.mktemp('study') / 'tfds'
    return make


@pytest.fixture(scope='session')
def small_source(small_config):
    """A source of the same architecture: drawn at random, which serves as well for these tests."""
    model = experiment_lib.build(small_config(), None).model
    variables = jax.device_get(model.init(jax.random.key(99)))
    leaves = trees.flatten(variables['params']) | trees.flatten(variables['batch_stats'])
    return experiment_lib.Source({p: np.asarray(leaf) for p, leaf in leaves.items()}, {})
