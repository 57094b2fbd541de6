"""ResNet-50 at 224x224: the forward pass and a full training step beside PyTorch's.

All start from the same weights, and the first lines say how far their logits differ. tljax's step
is `train.make_train_step`, which also measures norms and skips updates that are not finite; the
optimiser is SGD with momentum everywhere. Evaluation and training mode are as in each library.
"""

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import common
import jax
import numpy as np

from tljax import config as config_lib
from tljax import models, trees
from tljax.models import layers
from tljax.pretrained import porter
from tljax.pretrained.porters import resnet
from tljax.tasks.classification import Classification
from tljax.train import optimizer
from tljax.train import state as state_lib
from tljax.train.state import own_buffers

SMALL = dict(depth=50, size_px=224, batch=4, repeats=3, bfloat16=1)
FULL = dict(depth=50, size_px=224, batch=16, repeats=9, bfloat16=1)
CLASSES, STEPS = 1000, 1000  # STEPS: length of a schedule that is constant here
LR, MOMENTUM = 1e-3, 0.9
TASK = Classification(tuple(map(str, range(CLASSES))))
FIRST = 'PyTorch'


def built(chosen, dtype: str = 'float32') -> models.Model:
    side = chosen.size_px
    example = {'image': jax.ShapeDtypeStruct((side, side, 3), np.uint8)}
    config = {'name': 'resnet', 'depth': chosen.depth, 'dtype': dtype}
    return models.build(config, example, CLASSES)


def batch_of(chosen) -> dict[str, np.ndarray]:
    """Pictures as they are after normalisation, and labels."""
    rng = np.random.default_rng(0)
    shape = (chosen.batch, chosen.size_px, chosen.size_px, 3)
    return {
        'image': rng.standard_normal(shape, 'float32'),
        'label': rng.integers(0, CLASSES, chosen.batch, dtype=np.int32),
    }


def xla_convolutions() -> Any:
    """Models that are built inside leave 1x1 convolutions to XLA, as all others."""
    return mock.patch.object(layers, 'pointwise_conv', jax.lax.conv_general_dilated)


def ours(model: models.Model, variables: Any, batch: Any) -> tuple[Callable, Callable]:
    """The compiled forward pass and training step, as functions of nothing."""
    graph = model.graph(train=False)
    forward = jax.jit(lambda v, b: models.merge(graph, v['params'], v['batch_stats'])(b))
    forward = forward.lower(variables, batch).compile()
    optim = config_lib.default().optim
    optim.update(name='sgd', lr=LR, momentum=MOMENTUM, weight_decay=0.0, schedule='constant')
    decisions: dict[str, Any] = {path: {} for path in trees.flatten(variables['params'])}
    tx = optimizer.direction(optim, decisions)
    factor = optimizer.schedule(optim, STEPS)
    step = common.split_step(model, TASK, tx, factor, decisions)
    trained, frozen = trees.partition(variables['params'], dict.fromkeys(decisions, True))
    stats = variables['batch_stats']
    state = own_buffers(state_lib.create(trained, stats, tx, LR, jax.random.key(1)))
    program = jax.jit(step, donate_argnums=0).lower(state, frozen, batch).compile()

    def train():
        nonlocal state
        state, metrics = program(state, frozen, batch)
        return state, metrics

    return lambda: forward(variables, batch), train


def found_original(depth: int) -> tuple[Any, str] | None:
    """PyTorch's ResNet, and the scheme of its names; None where neither package has one."""
    if package := common.torchvision():
        return getattr(package.models, f'resnet{depth}')(), 'torchvision'
    try:
        from transformers import ResNetConfig, ResNetForImageClassification
    except ImportError:
        return None
    kind, wide = ('bottleneck', 4) if depth >= 50 else ('basic', 1)
    config = ResNetConfig(
        depths=resnet.BLOCKS[depth],
        layer_type=kind,
        hidden_sizes=[64 * wide * 2**stage for stage in range(4)],
        num_labels=CLASSES,
    )
    return ResNetForImageClassification(config), 'huggingface'


def originals(depth: int) -> str:
    """What tljax is compared with, in words."""
    if found_original(depth) is None:
        return 'torch with torchvision or transformers: not installed, so nothing to compare with'
    import torch

    scheme = found_original(depth)[1]
    return f'torch {torch.__version__}, {torch.get_num_threads()} threads, the ResNet of {scheme}'


def theirs(variables: Any, batch: Any, depth: int, last: bool = False, half: bool = False):
    """PyTorch's forward pass and training step, in its eager mode, with our weights.

    Args:
      last: whether channels are the last axis in memory, which PyTorch recommends for speed.
      half: whether it computes in bfloat16, where PyTorch finds that good (autocast).
    """
    import torch

    net, scheme = found_original(depth)
    load_ours(net, scheme, variables)
    form = torch.channels_last if last else torch.contiguous_format
    net = net.to(memory_format=form)
    image = torch.from_numpy(batch['image'].transpose(0, 3, 1, 2)).contiguous(memory_format=form)
    label = torch.from_numpy(batch['label'].astype(np.int64))
    sgd = torch.optim.SGD(net.parameters(), LR, MOMENTUM)

    def logits():
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            found = net(image)
        return getattr(found, 'logits', found).float()

    def forward():
        net.eval()
        with torch.inference_mode():
            return logits().numpy()

    def train():
        net.train()
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(logits(), label).backward()
        sgd.step()

    return forward, train


def load_ours(net: Any, scheme: str, variables: Any) -> None:
    """Our weights into PyTorch's network, all of them."""
    import torch

    leaves = trees.flatten(variables['params']) | trees.flatten(variables['batch_stats'])
    (names,) = [found for found in resnet.SCHEMES if found.name == scheme]
    state = porter.unport(jax.device_get(leaves), names, {})
    lost = net.load_state_dict({n: torch.tensor(a) for n, a in state.items()}, strict=False)
    untold = [n for n in lost.missing_keys if not n.endswith('num_batches_tracked')]
    assert not [*untold, *lost.unexpected_keys], lost


def ways(chosen) -> dict[str, tuple[Callable, Callable]]:
    """By row, a forward pass and a training step, compiled."""
    batch, found = batch_of(chosen), {}
    variables = jax.jit(built(chosen).init)(jax.random.key(0))

    if found_original(chosen.depth):
        found[FIRST] = theirs(variables, batch, chosen.depth)
        found[f'{FIRST}, channels last'] = theirs(variables, batch, chosen.depth, last=True)
        if chosen.bfloat16:
            found[f'{FIRST}, channels last, bfloat16'] = theirs(
                variables, batch, chosen.depth, last=True, half=True
            )
    rows = {'tljax': ('float32', False), "tljax, XLA's 1x1": ('float32', True)}
    if chosen.bfloat16:
        rows['tljax, bfloat16'] = ('bfloat16', False)
    for name, (dtype, plain) in rows.items():
        with xla_convolutions() if plain else contextlib.nullcontext():
            found[name] = ours(built(chosen, dtype), variables, jax.device_put(batch))
        print(f'{name}: compiled', flush=True)
    return found


def compare(found: dict[str, tuple[Callable, Callable]]) -> None:
    """Prints how far the rows' logits are from the first one's."""
    first, *rest = found
    expected = np.asarray(found[first][0]())
    for name in rest:
        far = np.abs(np.asarray(found[name][0]()) - expected).max() / np.abs(expected).max()
        print(f'{name}: logits within {far:.1e} of the largest of {first}')


def main() -> None:
    chosen = common.settings(__doc__, SMALL, FULL)
    common.header(__doc__)
    print(originals(chosen.depth), flush=True)
    found = ways(chosen)
    compare(found)
    title = f'ResNet-{chosen.depth}, {chosen.size_px} pixels, batch {chosen.batch}'
    for index, what in enumerate(('forward', 'training step')):
        times = common.measure({n: pair[index] for n, pair in found.items()}, chosen.repeats)
        rate = {n: common.number(chosen.batch / np.median(t)) for n, t in times.items()}
        common.table(f'{title}: {what}', times, columns={'pictures/s': rate})


if __name__ == '__main__':
    main()
