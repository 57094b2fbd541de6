"""lax.scan over training steps against a Python loop, step by step.

The digits convnet, with XLA's own convolutions and with tljax's shifted slices, on every backend
there is. Data lies on the device in both; the loop is given each step's indices, the scan all.
"""

import contextlib

import common
import jax
import numpy as np
from jax import lax

from tljax import config as config_lib
from tljax import trees
from tljax.data import normalise
from tljax.models import Model, build
from tljax.models.layers import shifted_slices_conv
from tljax.tasks.classification import Classification
from tljax.train import optimizer
from tljax.train import state as state_lib
from tljax.train import step as step_lib
from tljax.train.state import own_buffers

SMALL = dict(steps=20, batch=32, repeats=5)
FULL = dict(steps=200, batch=32, repeats=9)
CONVOLUTIONS = {'lax': lax.conv_general_dilated, 'slices': shifted_slices_conv}
EXAMPLES = 512
CLASSES = tuple('0123456789')


def with_convolution(model: Model, convolution) -> Model:
    """The convnet, its convolutions computed in another way."""

    def make(rngs):
        module = model.make(rngs)
        for layer in module.backbone.convs:
            layer.conv_general_dilated = convolution
        return module

    return Model(make)


def digits() -> dict[str, np.ndarray]:
    """Arrays of the digits' shapes; what is in them does not change the time."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (EXAMPLES, 8, 8, 1), dtype=np.uint8)
    return {'image': image, 'label': rng.integers(0, 10, EXAMPLES, dtype=np.int32)}


def programs(convolution, chosen, device):
    """Two functions that each take `chosen.steps` steps: the loop and the scan."""
    optim = config_lib.default().optim
    data = digits()
    shapes = {name: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for name, a in data.items()}
    recipe = config_lib.load('configs/digits.py').model
    model = with_convolution(build(recipe, shapes, len(CLASSES)), convolution)
    variables = jax.jit(model.init)(jax.random.key(0))
    decisions = {path: {'lr': 1.0} for path in trees.flatten(variables['params'])}
    tx = optimizer.direction(optim, decisions)
    factor = optimizer.schedule(optim, chosen.steps)
    task = Classification(CLASSES)
    step = common.split_step(model, task, tx, factor, decisions, normalise)
    state = state_lib.create(variables['params'], {}, tx, 1e-3, jax.random.key(1))
    frozen = jax.tree.map(lambda leaf: None, variables['params'])
    indices = np.random.default_rng(1).integers(0, EXAMPLES, (chosen.steps, chosen.batch))
    state, data, indices = jax.device_put((state, data, indices.astype(np.int32)), device)

    def one(state, data, indices):
        return step(state, frozen, step_lib.gather(data, indices))[0]

    def many(state, data, indices):
        return lax.scan(lambda s, row: (one(s, data, row), None), state, indices)[0]

    compiled_one = jax.jit(one, donate_argnums=0)
    compiled_many = jax.jit(many, donate_argnums=0)
    rows = np.asarray(indices)

    def loop():
        now = own_buffers(state)
        for row in rows:
            now = compiled_one(now, data, row)
        return now

    return loop, lambda: compiled_many(own_buffers(state), data, indices)


def backends() -> dict[str, jax.Device]:
    """The default backend's first device, and the CPU if that is another."""
    found = {jax.default_backend(): jax.devices()[0]}
    with contextlib.suppress(RuntimeError):  # where JAX_PLATFORMS leaves the CPU out
        found.setdefault('cpu', jax.devices('cpu')[0])
    return found


def main() -> None:
    chosen = common.settings(__doc__, SMALL, FULL)
    common.header(__doc__)
    for backend, device in backends().items():
        variants = {}
        with jax.default_device(device):
            for name, convolution in CONVOLUTIONS.items():
                loop, scan = programs(convolution, chosen, device)
                variants[f'{name}, loop'] = loop
                variants[f'{name}, scan'] = scan
            times = common.measure(variants, chosen.repeats)
        common.table(f'{backend}: a step of {chosen.batch} examples', times, per=chosen.steps)


if __name__ == '__main__':
    main()
