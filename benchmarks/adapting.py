"""Adapting ResNet-50: linear probe, last stage and everything, in tljax and in PyTorch.

The same weights (drawn at random, batch statistics estimated on the pictures), pictures (synthetic:
coarse patterns with noise), batches in the same order, optimiser (SGD with momentum) and number of
steps. PyTorch runs in eager mode, twice: a loop as its users write it, and one that trains on
features of the frozen part computed beforehand by hand. tljax is an arm as `compare` runs it.

Each way runs in a process of its own, on the CPU. Its time is that of the training, features that
are computed for it included; compiling, PyTorch's first step, reading and evaluation are shown
beside it. The linear probe comes first: all ways must give the same losses, step by step.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import common
import numpy as np

SMALL = dict(
    depth=50, image_size=96, images=32, epochs=20, full_epochs=1, batch=16, repeats=1,
    channels_last=0, nothing_kept=0,
)  # fmt: skip
FULL = dict(
    depth=50, image_size=224, images=200, epochs=20, full_epochs=20, batch=32, repeats=1,
    channels_last=0, nothing_kept=0,
)  # fmt: skip
CLASSES, LR, MOMENTUM = 10, 1e-3, 0.9
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AIMS = {'linear probe': 15, 'last stage': 4, 'full': 1}
PLAIN, BY_HAND, OURS, BARE = 'PyTorch', 'PyTorch by hand', 'tljax', 'tljax, nothing kept'
SCRIPTS = {PLAIN: 'adapting_torch.py', BY_HAND: 'adapting_torch.py'}
TOLERANCE = 1e-4  # of a linear probe's losses, relative: float32 sums in another order
KINDS = ('params', 'batch_stats')
HERE = Path(__file__).parent
Result = dict[str, Any]


def pictures(chosen: Any) -> tuple[np.ndarray, np.ndarray]:
    """(N, size, size, 3) uint8, patterns of their classes with others and noise; labels."""
    rng = np.random.default_rng(0)
    side, labels = chosen.image_size, rng.integers(0, CLASSES, chosen.images, dtype=np.int32)
    patterns = rng.uniform(0, 255, (CLASSES, 8, 8, 3))
    coarse = 0.3 * patterns[labels] + 0.5 * rng.uniform(0, 255, (chosen.images, 8, 8, 3))
    rows = np.arange(side) * 8 // side
    images = coarse[:, rows][:, :, rows] + rng.uniform(0, 0.2 * 255, (chosen.images, side, side, 3))
    return images.astype(np.uint8), labels


def drawn(chosen: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Leaves of a ResNet, batch statistics those of a batch, as a trained network's would be."""
    import jax

    from tljax import models, trees
    from tljax.data import normalise

    example = {'image': jax.ShapeDtypeStruct(images.shape[1:], np.uint8)}
    model = models.build({'name': 'resnet', 'depth': chosen.depth}, example, CLASSES)

    @jax.jit
    def made(key: jax.Array, image: jax.Array) -> Any:
        variables = model.init(key)
        module = models.merge(model.estimating_graph(), *map(variables.get, KINDS))
        module(normalise({'image': image}, MEAN, STD))
        return variables['params'], models.batch_stats_of(module)

    found = jax.device_get(made(jax.random.key(0), images[: chosen.batch]))
    return {path: leaf for tree in found for path, leaf in trees.flatten(tree).items()}


def write(folder: Path, chosen: Any) -> None:
    """What all ways read: pictures, weights under both's names, orders of examples, the job."""
    from tljax.data import Order
    from tljax.pretrained import porter
    from tljax.pretrained.porters import resnet

    images, labels = pictures(chosen)
    leaves = drawn(chosen, images)
    (scheme,) = [found for found in resnet.SCHEMES if found.name == 'torchvision']
    np.save(folder / 'image.npy', images)
    np.save(folder / 'label.npy', labels)
    np.savez(folder / 'tljax.npz', **leaves)
    np.savez(folder / 'torch.npz', **porter.unport(leaves, scheme, {}))
    order, steps = Order(chosen.images, chosen.batch, 0), {}
    for adaptation in AIMS:
        epochs = epochs_of(adaptation, chosen)
        steps[adaptation] = max(chosen.images * epochs // chosen.batch, 1)
        rows = [order.batch(step) for step in range(steps[adaptation])]
        np.save(folder / f'{adaptation}.npy', np.stack(rows))
    job = dict(classes=CLASSES, lr=LR, momentum=MOMENTUM, mean=MEAN, std=STD, steps=steps)
    (folder / 'job.json').write_text(json.dumps(vars(chosen) | job))


def epochs_of(adaptation: str, chosen: Any) -> int:
    return chosen.full_epochs if adaptation == 'full' else chosen.epochs


def ways_of(adaptation: str, chosen: Any) -> list[str]:
    """What is compared, the first being what the others are compared with."""
    frozen = adaptation != 'full'
    torch = common.torchvision() is not None
    wanted = {PLAIN: torch, BY_HAND: torch and frozen, OURS: True}
    wanted[BARE] = frozen and bool(chosen.nothing_kept)
    return [way for way, it_is in wanted.items() if it_is]


def run(folder: Path, adaptation: str, way: str) -> Result | None:
    """One way in a process of its own; None if it failed."""
    script = HERE / SCRIPTS.get(way, 'adapting_tljax.py')
    name = {PLAIN: 'plain', BY_HAND: 'by hand'}.get(way, way)
    command = [sys.executable, str(script), str(folder), adaptation, name]
    paths = [str(HERE.parent), *filter(None, [os.environ.get('PYTHONPATH')])]
    env = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': os.pathsep.join(paths)}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(f'  {way}: FAILED with exit status {done.returncode}', flush=True)
        return None
    result = json.loads(done.stdout.splitlines()[-1])
    print('  ' + told(way, result), flush=True)
    return result


def told(way: str, result: Result) -> str:
    """A result in one line."""
    parts = [f'{way}: training {seconds(result["seconds"])}']
    if result['features']:
        parts.append(f'of it features {result["features"] / result["seconds"]:.0%}')
    compiling = result.get('compiling')
    apart = f' (compiling {seconds(compiling)})' if compiling else ''
    parts.append(f'apart from that {seconds(result["before"])}{apart}')
    return ', '.join(parts) + f'; loss {result["losses"][0]:.4f} to {result["losses"][-1]:.4f}'


def seconds(value: float) -> str:
    return f'{common.number(value)} s'


def farthest(losses: Sequence[float], expected: Sequence[float]) -> float:
    """The largest difference of a step's loss, relative to the expected one."""
    a, b = np.array(losses), np.array(expected)
    return float((np.abs(a - b) / np.abs(b)).max()) if np.isfinite(a).all() else float('inf')


def check(adaptation: str, results: Mapping[str, Result]) -> bool:
    """Prints how far losses are from the first way's; whether those of a linear probe agree."""
    first, *rest = results
    agree = True
    for way in rest:
        losses, expected = results[way]['losses'], results[first]['losses']
        far, begin = farthest(losses, expected), farthest(losses[:1], expected[:1])
        words = f'  losses of {way}, {len(losses)} steps: within {far:.1e} of those of {first}'
        words += f' (the first: {begin:.1e})'
        if adaptation == 'linear probe':
            good = len(losses) == len(expected) and far < TOLERANCE
            agree &= good
            words += ': the same' if good else ': NOT THE SAME, the times below compare nothing'
        print(words, flush=True)
    return agree


def report(adaptation: str, rounds: Sequence[Mapping[str, Result]], chosen: Any) -> None:
    """The table of times, what is beside them, and memory."""
    aim, others = AIMS[adaptation], chosen.epochs
    epochs = epochs_of(adaptation, chosen)
    ways = [way for way in rounds[0] if all(way in results for results in rounds)]
    times = {way: [results[way]['seconds'] for results in rounds] for way in ways}
    last = {way: rounds[-1][way] for way in ways}
    first = ways[0]
    ratios = {way: [a / b for a, b in zip(times[first], times[way], strict=True)] for way in ways}
    columns: dict[str, dict[str, str]] = {
        'times faster': {w: common.number(float(np.median(r))) for w, r in ratios.items()},
        'features': {w: f'{r["features"] / r["seconds"]:.0%}' for w, r in last.items()},
        'steps': {w: f'{r["steps"] / r["seconds"]:.0%}' for w, r in last.items()},
    }
    fewer = f' (fewer than the {others} of the others)' if epochs < others else ''
    common.table(f'{adaptation}, epochs: {epochs}{fewer}', times, columns=columns)
    if OURS in ratios and first == PLAIN:
        faster = common.number(float(np.median(ratios[OURS])))
        print(f'  tljax is {faster} times as fast as the plain loop; the aim is {aim}')
    print('  Beside the training; resident memory in MB:')
    for way, result in last.items():
        kept, compiling = result['memory'], result.get('compiling', 0.0)
        apart = f'compiling {seconds(compiling)}, ' if compiling else ''
        print(
            f'  {way}: {apart}all else {seconds(result["before"] - compiling)}; memory before '
            f'{mega(kept["base"])}, peak {mega(kept["peak"])}, of the steps {mega(kept["steps"])}'
        )
        print(f'    {result["said"]}')
        for name, sizes in result.get('buffers', {}).items():
            parts = ', '.join(f'{k} {mega(v)}' for k, v in sizes.items())
            print(f"    XLA's buffers, {name}: {parts}")
    print(flush=True)


def mega(nbytes: float) -> str:
    return common.number(nbytes / 1e6)


def main() -> None:
    chosen = common.settings(__doc__, SMALL, FULL)
    os.environ['JAX_PLATFORMS'] = 'cpu'
    common.header(__doc__)
    if package := common.torchvision():
        print(f'torch {version("torch")}, torchvision {package.__version__}')
    else:
        print('torch with torchvision: not installed, so nothing to compare with')
    print(
        f'ResNet-{chosen.depth}, {chosen.images} synthetic pictures of {chosen.image_size} pixels, '
        f'batch {chosen.batch}, {chosen.epochs} epochs; full fine-tuning {chosen.full_epochs}',
        flush=True,
    )
    agree = True
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), chosen)
        for adaptation in AIMS:
            print(adaptation, flush=True)
            rounds = []
            for _ in range(chosen.repeats):
                found = {w: run(Path(name), adaptation, w) for w in ways_of(adaptation, chosen)}
                rounds.append({way: result for way, result in found.items() if result})
                if not rounds[0]:
                    break
                agree &= len(rounds[-1]) == len(found) and check(adaptation, rounds[-1])
            if rounds[0]:
                report(adaptation, rounds, chosen)
    if not agree:
        sys.exit('A way failed, or its losses are not those of the others: see above.')


if __name__ == '__main__':
    main()
