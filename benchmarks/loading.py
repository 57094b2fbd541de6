"""Loading a checkpoint of 100 MB: each format read by tljax, and by its own library.

The leaves are a ResNet-50's, drawn at random, under torchvision's names. `read` opens a file and
looks at one byte of each page of every tensor; `load` is `tljax.pretrained.load`, which also finds
out what the file holds and makes float32 leaves of our own layout. Files are in the system's cache;
`peak` counts their mapped pages, too.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np

SMALL = dict(depth=50, repeats=3)
FULL = dict(depth=50, repeats=15)
PAGE = 4096
FRESH = {**os.environ, 'JAX_PLATFORMS': 'cpu'}


def drawn(depth: int) -> dict[str, np.ndarray]:
    """A ResNet's tensors under torchvision's names."""
    import jax

    from tljax import models, trees
    from tljax.pretrained import porter
    from tljax.pretrained.porters import resnet

    example = {'image': jax.ShapeDtypeStruct((224, 224, 3), np.uint8)}
    shapes = models.build({'name': 'resnet', 'depth': depth}, example, 1000).shapes()
    leaves = trees.flatten(shapes['params']) | trees.flatten(shapes['batch_stats'])
    rng = np.random.default_rng(0)
    arrays = {path: rng.standard_normal(leaf.shape, 'float32') for path, leaf in leaves.items()}
    made = porter.unport(arrays, resnet.SCHEMES[0], {})
    return {name: np.ascontiguousarray(array) for name, array in made.items()}


def write(folder: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """A file of each format whose library is installed."""
    import safetensors.numpy
    from orbax.checkpoint import v1 as ocp

    safetensors.numpy.save_file(tensors, folder / 'a.safetensors')
    np.savez(folder / 'a.npz', **tensors)
    np.savez_compressed(folder / 'packed.npz', **tensors)
    ocp.save(folder / 'orbax', dict(tensors))
    if has('h5py'):
        import h5py

        with h5py.File(folder / 'a.h5', 'w') as file:
            for name, tensor in tensors.items():
                file[name] = tensor
    if has('torch'):
        import torch

        state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
        torch.save(state, folder / 'zip.pth')
        torch.save(state, folder / 'legacy.pth', _use_new_zipfile_serialization=False)


def has(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


def with_safetensors(path: Path) -> Any:
    from safetensors.numpy import load_file

    return load_file(path)


def with_torch(path: Path) -> Any:
    import torch

    return {name: t.numpy() for name, t in torch.load(path, weights_only=True).items()}


def with_numpy(path: Path) -> Any:
    with np.load(path) as file:
        return dict(file)


def with_h5py(path: Path) -> Any:
    import h5py

    with h5py.File(path) as file:
        return {name: dataset[()] for name, dataset in file.items()}


def with_orbax(path: Path) -> Any:
    from orbax.checkpoint import v1 as ocp

    shapes = ocp.metadata(path).metadata
    return ocp.load(path, {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in shapes.items()})


def read(path: Path) -> Any:
    """What tljax's readers give, before anything is made of it; one tensor at a time."""
    from tljax.pretrained.readers import open_weights

    for tensor in open_weights(path).tensors.values():
        touch(tensor.read())


def load(path: Path) -> Any:
    from tljax import pretrained

    return pretrained.load(str(path)).leaves


def touch(array: np.ndarray) -> int:
    """Looks at one byte of each page, so that it is in memory."""
    return int(array.reshape(-1).view(np.uint8)[::PAGE].sum())


WAYS = (
    ('safetensors', 'a.safetensors', 'load_file', with_safetensors),
    ('PyTorch', 'zip.pth', 'torch.load', with_torch),
    ('PyTorch, legacy', 'legacy.pth', 'torch.load', with_torch),
    ('npz', 'a.npz', 'np.load', with_numpy),
    ('npz, packed', 'packed.npz', 'np.load', with_numpy),
    ('h5', 'a.h5', 'h5py', with_h5py),
    ('Orbax', 'orbax', 'ocp.load', with_orbax),
)


def variants(folder: Path) -> dict[str, Callable[[], Any]]:
    """What is compared, by row; formats that were not written are left out."""
    found = {}
    for form, name, library, function in WAYS:
        path = folder / name
        if path.exists():
            found[f'{form}: {library}'] = partial(touched, function, path)
            found[f'{form}: tljax, read'] = partial(read, path)
            found[f'{form}: tljax, load'] = partial(touched, load, path)
    return found


def touched(function: Callable[[Path], Mapping[str, Any]], path: Path) -> None:
    for array in function(path).values():
        touch(np.asarray(array))


def alone(folder: str, row: str) -> None:
    """Prints how long one way takes here for the first time, and its peak of memory."""
    import jax
    import safetensors.numpy  # noqa: F401
    from orbax.checkpoint import v1 as ocp  # noqa: F401

    from tljax import pretrained  # noqa: F401
    from tljax.process import keep_memory

    keep_memory()  # as launch.py does
    for module in ('torch', 'h5py'):
        if has(module):
            __import__(module)
    jax.block_until_ready(jax.numpy.zeros(2) + 1)
    quiet()
    before = common.memory('VmRSS')
    common.new_peak()
    began = time.perf_counter()
    variants(Path(folder))[row]()
    seconds = time.perf_counter() - began
    print(json.dumps({'seconds': seconds, 'bytes': common.memory('VmHWM') - before}))


def quiet() -> None:
    """Without warnings of sources that have no card, and of Orbax's about itself."""
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger().setLevel(logging.ERROR)
    warnings.simplefilter('ignore')


def first_times(folder: Path, rows: Any, nbytes: int) -> dict[str, dict[str, str]]:
    """Two columns, each cell from a process of its own; empty where there is no /proc."""
    columns: dict[str, dict[str, str]] = {'first time ms': {}, 'peak / model': {}}
    if not Path('/proc/self/clear_refs').exists():
        return columns
    for row in rows:
        command = [sys.executable, __file__, 'alone', str(folder), row]
        done = subprocess.run(command, env=FRESH, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f'{row}: {done.stderr}')
        told = json.loads(done.stdout.splitlines()[-1])
        columns['first time ms'][row] = common.number(1000 * told['seconds'])
        columns['peak / model'][row] = f'{told["bytes"] / nbytes:.2f}'
    return columns


def main() -> None:
    if sys.argv[1:2] == ['alone']:
        alone(*sys.argv[2:])
        return
    chosen = common.settings(__doc__, SMALL, FULL)
    common.header(__doc__)
    quiet()
    tensors = drawn(chosen.depth)
    nbytes = sum(tensor.nbytes for tensor in tensors.values())
    print(f'{len(tensors)} tensors, {nbytes / 1e6:.1f} MB')
    for module in ('torch', 'h5py'):
        if not has(module):
            print(f'{module}: not installed, its files are left out')
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, tensors)
        ways = variants(folder)
        columns = first_times(folder, ways, nbytes)
        times = common.measure(ways, chosen.repeats)
    common.table(f'ResNet-{chosen.depth}, {nbytes / 1e6:.0f} MB', times, columns=columns)


if __name__ == '__main__':
    main()
