"""A model in outline: its stages from bottom to top, its norms, its biases, its head."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any

from flax import nnx

HEAD = 'head/.*'
# Where a class declares nothing: what comes before the head, and the head.
UNDECLARED = (r'(?!head/).*', HEAD)
NORMS = (nnx.BatchNorm, nnx.LayerNorm, nnx.GroupNorm, nnx.InstanceNorm, nnx.RMSNorm)


@dataclasses.dataclass(frozen=True)
class Outline:
    """What a policy needs to know of an architecture, and all that it does.

    Attributes:
      stages: expressions over parameter paths, bottom to top, each parameter matched by exactly
        one; the head's is the last, where the head has parameters.
      members: the parameters of each stage.
      head: those of the head; none where it is tied to an embedding.
      norms: those of normalisation modules.
      biases: those named 'bias', the norms' among them.
      injected: those that were added to the architecture (`tljax.transfer.injection`); they are
        in none of the above.
      stem_stages: how many stages at the bottom only prepare the input: embeddings, a first
        convolution.
    """

    stages: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]
    head: tuple[str, ...]
    norms: tuple[str, ...]
    biases: tuple[str, ...]
    injected: tuple[str, ...]
    stem_stages: int

    @property
    def backbone(self) -> tuple[str, ...]:
        """The stages below the head."""
        return self.stages[:-1] if self.head else self.stages

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        """The stages below the head, the stem's together with the first behind it."""
        backbone = self.backbone
        first = min(self.stem_stages + 1, len(backbone))
        return (backbone[:first], *((stage,) for stage in backbone[first:]))


def outline_of(module: nnx.Module) -> Outline:
    """The outline of a module, which may be an abstract one.

    Args:
      module: its class declares `stages(self)`; without, there are two, the head and the rest.

    Raises:
      TypeError: the class declares stages that leave a parameter out, or match one twice, or
        match none; or leaves its head out.

    >>> from tljax.models.convnet import ConvNet
    >>> import jax
    >>> example = {'image': jax.ShapeDtypeStruct((8, 8, 1), 'uint8')}
    >>> outline = outline_of(ConvNet(example, 10, widths=(4,), rngs=nnx.Rngs(params=0)))
    >>> outline.stages
    ('backbone/(convs|norms)/0/.*', 'backbone/hidden/.*', 'head/.*')
    """
    leaves = dict(_leaves(module))
    paths = sorted(path for path, leaf in leaves.items() if type(leaf) is nnx.Param)
    declared: Any = getattr(module, 'stages', None)
    stages = tuple(declared()) if callable(declared) else _undeclared(paths)
    members = _members(stages, paths, type(module).__name__)
    head = tuple(path for path in paths if re.fullmatch(HEAD, path))
    if head and members[-1] != head:
        raise TypeError(f'{type(module).__name__}.stages() must end with {HEAD!r}')
    norms = _norm_modules(module)
    return Outline(
        stages=stages,
        members=members,
        head=head,
        norms=tuple(path for path in paths if path.rpartition('/')[0] in norms),
        biases=tuple(path for path in paths if path.rpartition('/')[2] == 'bias'),
        injected=tuple(sorted(leaves.keys() - set(paths))),
        stem_stages=getattr(module, 'stem_stages', 0),
    )


def named(prefix: str, names: Iterable[str]) -> str:
    """The expression for parameters, and modules of parameters, with these names.

    >>> named('backbone', ['token', 'norm'])
    'backbone/(token|norm)(/.*)?'
    """
    return f'{prefix}/({"|".join(names)})(/.*)?'


def transformer_stages(
    embeddings: Sequence[str], layers: int, top: Sequence[str] = (), *, head: bool = True
) -> tuple[str, ...]:
    """The stages of a backbone of blocks `block0` ...: what is below, each block, and the head.

    Args:
      embeddings: names in the backbone of what comes before the blocks.
      layers: number of blocks.
      top: names of what comes behind them, which belongs to the last block's stage.
      head: whether the head has parameters.

    >>> transformer_stages(['token', 'position'], 2, ['norm'])[1:]
    ('backbone/(block0)(/.*)?', 'backbone/(block1|norm)(/.*)?', 'head/.*')
    """
    parts = [list(embeddings), *([f'block{n}'] for n in range(layers))]
    parts[-1] += top
    return (*(named('backbone', part) for part in parts), *((HEAD,) if head else ()))


def _leaves(module: nnx.Module) -> Iterable[tuple[str, nnx.Variable]]:
    """Each parameter's path and the variable that holds it."""
    for keys, leaf in nnx.to_flat_state(nnx.state(module, nnx.Param)):
        yield '/'.join(map(str, keys)), leaf


def _norm_modules(module: nnx.Module) -> set[str]:
    """Paths of the modules that normalise, told by their types."""
    return {
        '/'.join(map(str, keys))
        for keys, child in nnx.iter_modules(module)
        if isinstance(child, NORMS)
    }


def _undeclared(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(stage for stage in UNDECLARED if any(re.fullmatch(stage, p) for p in paths))


def _members(stages: Sequence[str], paths: Sequence[str], name: str) -> tuple[tuple[str, ...], ...]:
    """The parameters of each stage.

    Raises:
      TypeError: a parameter is in no stage or in two, or a stage is empty.
    """
    found = [tuple(p for p in paths if re.fullmatch(stage, p)) for stage in stages]
    for path in paths:
        count = sum(path in members for members in found)
        if count != 1:
            raise TypeError(f'{name}.stages(): {count} stages match the parameter {path!r}')
    for stage, members in zip(stages, found, strict=True):
        if not members:
            raise TypeError(f'{name}.stages(): the stage {stage!r} matches no parameter')
    return tuple(found)
