"""Whether a model of ours computes what the original computes, on weights drawn from numpy.

The weights are not stored: they are drawn by path and seed, so a machine without PyTorch can
check the same numbers that the original gave (tests/pretrained/goldens).
"""

import dataclasses
import json
import os
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from tljax import models, trees
from tljax.pretrained import porter
from tljax.pretrained.transforms import TRANSFORMS

GOLDENS = Path(__file__).parents[1] / 'pretrained' / 'goldens'
TOLERANCE = 1e-4  # of the largest value
KEPT = 64  # values of an output that a golden file keeps


@dataclasses.dataclass(frozen=True)
class Case:
    """One architecture at one size, under one naming scheme.

    Attributes:
      name: of the golden file.
      model: of `tljax.models`.
      arguments: of the model, where they differ from its defaults.
      example: entry -> shape without the batch axis: 'image', 'tokens', 'types', 'audio', 'mask'.
      outputs: size of the head.
      scheme: of the model's porter.
      seed: of weights and batch.
      vocabulary: tokens are drawn below it.
    """

    name: str
    model: str
    arguments: dict[str, Any]
    example: dict[str, tuple[int, ...]]
    outputs: int
    scheme: str
    seed: int = 0
    vocabulary: int = 50


def golden_files() -> list[Any]:
    """The golden files as parameters; all but the first of each architecture are slow."""
    import pytest

    seen: set[str] = set()
    params = []
    for path in sorted(GOLDENS.glob('*.json')):
        model = json.loads(path.read_text())['case']['model']
        marks = [pytest.mark.slow] if model in seen else []
        seen.add(model)
        params.append(pytest.param(path, id=path.stem, marks=marks))
    return params


def scheme_of(case: Case) -> porter.Scheme:
    import importlib

    module = importlib.import_module(f'tljax.pretrained.porters.{case.model}')
    (found,) = [scheme for scheme in module.SCHEMES if scheme.name == case.scheme]
    return found


def built(case: Case) -> models.Model:
    kinds = {'image': np.uint8, 'audio': np.float32}
    example = {
        name: jax.ShapeDtypeStruct(tuple(shape), kinds.get(name, np.int32))
        for name, shape in case.example.items()
    }
    return models.build({'name': case.model, **case.arguments}, example, case.outputs)


def rng_of(words: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(words.encode())])


def draw(path: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Values that keep activations near one, and let every leaf matter."""
    rng, kind = rng_of(path, seed), path.rpartition('/')[2]
    if kind == 'var':
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    normal = rng.standard_normal(shape).astype(np.float32)
    if kind in ('scale', 'magnitude'):
        return 1 + np.float32(0.1) * normal
    if kind in ('bias', 'mean'):
        return np.float32(0.1) * normal
    if kind == 'kernel':
        return np.float32(1.2 / np.sqrt(np.prod(shape[:-1]))) * normal
    return np.float32(0.5) * normal


def leaves_of(case: Case) -> dict[str, np.ndarray]:
    """Our leaves, parameters and batch statistics together."""
    shapes = built(case).shapes()
    flat = trees.flatten(shapes['params']) | trees.flatten(shapes['batch_stats'])
    return {path: draw(path, leaf.shape, case.seed) for path, leaf in flat.items()}


def batch_of(case: Case, size: int = 2) -> dict[str, np.ndarray]:
    """A random batch; where there is a mask, every second example is padded at its end."""
    made = {}
    for name, shape in case.example.items():
        rng, full = rng_of(f'batch {name}', case.seed), (size, *shape)
        if name == 'tokens':
            made[name] = rng.integers(0, case.vocabulary, full, np.int32)
        elif name == 'types':
            made[name] = rng.integers(0, 2, full, np.int32)
        elif name == 'mask':
            made[name] = np.ones(full, np.int32)
            made[name][1::2, -(-2 * shape[0] // 3) :] = 0
        else:
            made[name] = rng.standard_normal(full).astype(np.float32)
    return made


def module_of(case: Case, leaves: dict[str, np.ndarray]) -> Any:
    """Our module in evaluation mode, holding the leaves."""
    model = built(case)
    trees_of = {
        kind: trees.map_with_path(lambda path, _: leaves[path], tree)
        for kind, tree in model.shapes().items()
    }
    return models.merge(model.graph(train=False), trees_of['params'], trees_of['batch_stats'])


def ours(case: Case, leaves: dict[str, np.ndarray] | None = None) -> np.ndarray:
    """Our logits on the case's batch."""
    leaves = leaves if leaves is not None else leaves_of(case)
    # The leaves are an argument: XLA would compute at length with constants while compiling.
    call = jax.jit(lambda leaves, batch: module_of(case, leaves)(batch))
    return np.asarray(call(leaves, batch_of(case)))


def check(case: Case, original: Any, call: Any) -> None:
    """Checks that the original, holding our leaves under its own names, computes what we do.

    Args:
      case: what to check.
      original: a torch module in evaluation mode.
      call: (module, batch) -> logits; the batch holds torch tensors, images as NCHW.
    """
    import torch

    leaves = leaves_of(case)
    load_into(original, case, leaves)
    batch = {name: torch.from_numpy(value) for name, value in batch_of(case).items()}
    batch = {k: v.permute(0, 3, 1, 2).contiguous() if k == 'image' else v for k, v in batch.items()}
    batch = {k: v.long() if v.dtype == torch.int32 else v for k, v in batch.items()}
    with torch.no_grad():
        expected = call(original, batch).numpy()
    got = ours(case, leaves)
    assert got.shape == expected.shape
    off = error(got, expected)
    if not off <= TOLERANCE:
        raise AssertionError(
            f'{case.name}: differs by {off:.2e} of the largest value.\n'
            + layer_by_layer(case, original, call, batch, leaves)
        )
    check_golden(case, expected, f'torch {torch.__version__}, {type(original).__module__}')


def error(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference as a share of the largest expected value."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def load_into(original: Any, case: Case, leaves: dict[str, np.ndarray]) -> None:
    """Loads our leaves under the original's names; checks that nothing is left on either side."""
    import torch

    scheme = scheme_of(case)
    state = original.state_dict()
    found = porter.match(scheme, {name: tuple(value.shape) for name, value in state.items()})
    assert not found.unread, f'no row for {found.unread}'
    assert not found.faults, found.faults
    assert found.leaves.keys() == leaves.keys(), (
        f'unassigned: {sorted(leaves.keys() - found.leaves.keys())}; '
        f'of no leaf: {sorted(found.leaves.keys() - leaves.keys())}'
    )
    arguments = {**models.arguments(case.model), **case.arguments}
    made = {}
    for name in dict.fromkeys(part.name for part in found.leaves.values()):
        row, numbers = scheme.find(name)
        parts = [leaves[template.fill(numbers)] for template in row.our_templates]
        theirs = TRANSFORMS[row.transform].to_theirs(parts, arguments)
        assert theirs.shape == tuple(state[name].shape), name
        made[name] = torch.from_numpy(np.array(theirs))
    missing = original.load_state_dict(made, strict=False).missing_keys
    assert set(missing) <= found.skipped.keys(), missing
    back = found.read({name: value.numpy() for name, value in original.state_dict().items()})
    for path, leaf in leaves.items():
        np.testing.assert_array_equal(back[path], leaf, err_msg=path)


def check_golden(case: Case, expected: np.ndarray, origin: str) -> None:
    """Compares with the golden file; writes it where TLJAX_WRITE_GOLDENS is set."""
    path = GOLDENS / f'{case.name}.json'
    if os.environ.get('TLJAX_WRITE_GOLDENS'):
        content = {
            'origin': origin,
            'case': dataclasses.asdict(case),
            'shape': list(expected.shape),
            'largest': float(np.abs(expected).max()),
            'values': [float(f'{value:.7g}') for value in sample(expected)],
        }
        path.write_text(json.dumps(content, indent=1) + '\n')
    golden = json.loads(path.read_text())
    assert golden['case'] == json.loads(json.dumps(dataclasses.asdict(case))), 'a stale golden file'
    assert_golden(golden, expected)


def assert_golden(golden: dict[str, Any], got: np.ndarray) -> None:
    """Asserts that an output is the one that the original gave."""
    assert list(got.shape) == golden['shape']
    off = np.abs(sample(got) - np.array(golden['values'])).max() / golden['largest']
    assert off <= TOLERANCE, f'differs from the original by {off:.2e} of the largest value'


def sample(values: np.ndarray) -> np.ndarray:
    """At most KEPT values, spread evenly."""
    flat = values.reshape(-1)
    return flat[np.unique(np.linspace(0, flat.size - 1, min(KEPT, flat.size)).astype(int))]


def layer_by_layer(case: Case, original: Any, call: Any, batch: Any, leaves: Any) -> str:
    """For every module with leaves: how far its output is from the original's, in their order."""
    names = {}
    scheme = scheme_of(case)
    shapes = {name: tuple(value.shape) for name, value in original.state_dict().items()}
    for path, part in porter.match(scheme, shapes).leaves.items():
        if len(part.row.our_templates) == 1:
            names[part.name.rpartition('.')[0]] = path.rpartition('/')[0]
    theirs = their_outputs(original, call, batch, set(names))
    mine = our_outputs(case, leaves)
    lines = []
    for name, output in theirs.items():
        path = names[name]
        if path in mine:
            output = output.transpose(0, 2, 3, 1) if output.ndim == 4 else output
            same = mine[path].shape == output.shape
            off = (
                f'{error(mine[path], output):.1e}' if same else f'{mine[path].shape} {output.shape}'
            )
            lines.append(f'{off:>10}  {path}  ({name})')
    return '\n'.join(lines)


def their_outputs(original: Any, call: Any, batch: Any, wanted: set[str]) -> dict[str, np.ndarray]:
    import torch

    outputs: dict[str, np.ndarray] = {}

    def keep(name):
        def hook(module, inputs, output):
            if isinstance(output, torch.Tensor):
                outputs[name] = output.detach().numpy().copy()

        return hook

    handles = [m.register_forward_hook(keep(n)) for n, m in original.named_modules() if n in wanted]
    with torch.no_grad():
        call(original, batch)
    for handle in handles:
        handle.remove()
    return outputs


def our_outputs(case: Case, leaves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What each of our modules gives, called without compilation."""
    module = module_of(case, leaves)
    outputs: dict[str, np.ndarray] = {}
    paths = {id(child): '/'.join(map(str, keys)) for keys, child in nnx.iter_modules(module)}
    classes = {type(child) for _, child in nnx.iter_modules(module)}
    originals = {cls: cls.__call__ for cls in classes if '__call__' in vars(cls)}

    def recording(function):
        def wrapped(self, *args, **kwargs):
            output = function(self, *args, **kwargs)
            if id(self) in paths:
                outputs[paths[id(self)]] = np.asarray(output)
            return output

        return wrapped

    try:
        for cls, function in originals.items():
            cls.__call__ = recording(function)
        module(batch_of(case))
    finally:
        for cls, function in originals.items():
            cls.__call__ = function
    return outputs
