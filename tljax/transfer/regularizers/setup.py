"""From `config.transfer.regularize` to what a step, and what the source, must give for it."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tljax import calls, models, trees
from tljax.errors import UserError
from tljax.models import Model
from tljax.models.build import streams
from tljax.transfer import surgery
from tljax.transfer.injection import Injected
from tljax.transfer.regularizers.base import KEY, Regularizer
from tljax.transfer.regularizers.consistency import r_drop
from tljax.transfer.regularizers.distillation import co_tuning, lwf
from tljax.transfer.regularizers.features import bss, delta
from tljax.transfer.regularizers.hooks import stage_outlets
from tljax.transfer.regularizers.inputs import cutmix, mixup
from tljax.transfer.regularizers.l2_sp import l2_sp
from tljax.transfer.regularizers.norms import stoch_norm
from tljax.transfer.regularizers.objective import SECOND, Setting, source_pass

REGULARIZERS: dict[str, Callable[..., Regularizer]] = {
    function.__name__: function
    for function in (l2_sp, delta, bss, lwf, co_tuning, stoch_norm, r_drop, mixup, cutmix)
}
Leaves = Mapping[str, Any]


class SourceHead(Injected):
    """A parameter of the second head: no part of the architecture, and in none of its stages."""


@dataclasses.dataclass(frozen=True)
class Outfit:
    """What an experiment gets for its regularisers.

    Attributes:
      model: with the source's head as its second head, where one is needed.
      setting: for the objective.
      loaded: leaves of the second head, from the source.
      reference: `{'variables': {'params', 'batch_stats'}}` of the source itself, or {}.
    """

    model: Model
    setting: Setting
    loaded: dict[str, Any]
    reference: dict[str, Any]


def parse(texts: Iterable[Any]) -> tuple[Regularizer, ...]:
    """The regularisers of `config.transfer.regularize`.

    Raises:
      UserError: one is not written as a call, unknown, given twice, or its arguments are wrong.

    >>> [regularizer.name for regularizer in parse(['l2_sp(alpha=0.5)', 'bss'])]
    ['l2_sp', 'bss']
    """
    if isinstance(texts, str):
        raise UserError(f"{KEY} is a list of names or calls: ('{texts}',), not '{texts}'.")
    found: dict[str, Regularizer] = {}
    for text in texts:
        name, arguments = calls.parse(text, REGULARIZERS, KEY)
        if name in found:
            raise UserError(f'{KEY}: {name} is there twice.')
        found[name] = REGULARIZERS[name](**arguments)
    return tuple(found.values())


def gradients(setting: Setting, loaded: frozenset[str]) -> list[optax.GradientTransformation]:
    """What regularisers do to gradients, in front of the optimiser.

    Args:
      setting: which there are.
      loaded: paths of the leaves that come from the source.
    """
    return [r.gradient(loaded) for r in setting.regularizers if r.gradient is not None]


def for_scratch(regularizers: Sequence[Regularizer]) -> tuple[Regularizer, ...]:
    """Those that are not about a source, so that both arms of a comparison have them."""
    return tuple(regularizer for regularizer in regularizers if not regularizer.of_source)


def outfit(
    config: Any,
    model: Model,
    task: Any,
    example: Leaves,
    source: Leaves | None = None,
    loaded: Leaves | None = None,
) -> Outfit:
    """Checks the regularisers against an experiment and gives what they need of it.

    Args:
      config: the whole.
      model: without a second head.
      task: what is learnt.
      example: shapes of one example.
      source: the source's leaves, or shapes; None is from scratch.
      loaded: of those, the ones fitted to the target.

    Raises:
      UserError: one of them makes no sense here.
    """
    chosen = parse(config.transfer.regularize)
    chosen = chosen if source is not None else for_scratch(chosen)
    setting = Setting(chosen)
    module = nnx.eval_shape(lambda: model.make(streams(jax.random.key(0))))
    for regularizer in chosen:
        check(regularizer, module, task, example)
    extra: dict[str, Any] = {}
    reference: dict[str, Any] = {}
    if setting.needs('maps'):
        setting = dataclasses.replace(setting, outlets=outlets(model, example))
    if source is not None and (setting.needs('source') or setting.needs('source_head')):
        leaves = originals(renamed(config, source), loaded or {})
        outputs = source_outputs(module, leaves) if setting.needs('source_head') else None
        original = models.build(config.model, example, outputs or task.outputs)
        reference = {'variables': fitted(original, leaves, head=outputs is not None)}
        setting = dataclasses.replace(setting, graph=original.graph(train=False))
        if outputs is not None:
            model = with_second_head(model, outputs)
            extra = second_leaves(model, leaves)
    return Outfit(model, setting, extra, reference)


def check(regularizer: Regularizer, module: Any, task: Any, example: Leaves) -> None:
    """Raises UserError if a regulariser makes no sense for a model, a task and its examples."""
    parts = [part for _, part in nnx.iter_modules(module)]
    dropout = any(isinstance(part, nnx.Dropout) and part.rate > 0 for part in parts)
    norm = any(isinstance(part, nnx.BatchNorm) for part in parts)
    labelled = hasattr(task, 'targets') and 'label' in example
    where = f'{KEY}: {regularizer.name}'
    problems = {
        'image': 'image' not in example
        and f'mixes pictures, and an example has {sorted(example)}. Leave it out.',
        'dropout': not dropout
        and 'compares two passes that dropout makes different, and the model has no dropout. Set '
        'config.model.dropout, or leave it out.',
        'batch_norm': not norm
        and 'is about batch normalisation, and the model has none. Leave it out.',
        'relation': not labelled and 'needs one label an example. Leave it out.',
        'attention': not labelled
        and 'measures by one label an example which channels matter, and there is none. Set '
        "attention='none', or leave it out.",
    }
    for need in sorted(regularizer.needs):
        if problem := problems.get(need):
            raise UserError(f'{where} {problem}')
    if regularizer.mix is not None and not labelled:
        raise UserError(f'{where} needs one label an example. Leave it out.')


def outlets(model: Model, example: Leaves) -> tuple[str, ...]:
    """The modules that give what each stage below the head gives."""
    batch = {
        name: jax.ShapeDtypeStruct((2, *leaf.shape), network_dtype(leaf))
        for name, leaf in example.items()
    }
    return stage_outlets(model, batch)


def network_dtype(leaf: Any) -> Any:
    """The dtype that a network reads what is stored as bytes in."""
    return jnp.float32 if leaf.dtype == np.uint8 else leaf.dtype


def renamed(config: Any, source: Leaves) -> dict[str, Any]:
    """The source's leaves under the target's paths; where two claim one path, neither has it."""
    rules = surgery.RuleList('rename', tuple(config.transfer.rename), 'replacement')
    claims: dict[str, list[Any]] = {}
    for path, leaf in source.items():
        claims.setdefault(surgery.renamed(path, rules), []).append(leaf)
    return {path: leaves[0] for path, leaves in claims.items() if len(leaves) == 1}


def originals(source: Leaves, loaded: Leaves) -> dict[str, Any]:
    """The source's own leaves, in the target's shape where surgery resized them.

    >>> small, large = np.zeros(2), np.zeros(3)
    >>> kept = originals({'a': small, 'head/bias': small}, {'a': large, 'head/bias': large})
    >>> kept['a'].size, kept['head/bias'].size
    (3, 2)
    """
    resized = {
        path: leaf
        for path, leaf in loaded.items()
        if not path.startswith('head/')
        and (path not in source or tuple(source[path].shape) != tuple(leaf.shape))
    }
    return {**source, **resized}


def source_outputs(module: Any, leaves: Leaves) -> int:
    """How many outputs the source's own head has.

    Raises:
      UserError: it has no head, or no head with parameters.
    """
    if not isinstance(module.head, nnx.Linear) or 'head/kernel' not in leaves:
        raise UserError(
            f"{KEY}: lwf and co_tuning go by what the source's own head says, and the source has "
            'no head/kernel. Take another source, or leave them out.'
        )
    return int(leaves['head/kernel'].shape[-1])


def fitted(model: Model, leaves: Leaves, *, head: bool) -> dict[str, trees.Tree]:
    """The source's variables; a head that nobody asks is filled with zeros.

    Raises:
      UserError: it lacks a leaf.
    """

    def leaf_of(path: str, leaf: Any) -> Any:
        own = leaves.get(path)
        if own is not None and tuple(own.shape) == tuple(leaf.shape) and own.dtype == leaf.dtype:
            return own
        if path.startswith('head/') and not head:
            return np.zeros(leaf.shape, leaf.dtype)
        has = 'has none' if own is None else f'has one of {tuple(own.shape)} {own.dtype}'
        raise UserError(
            f'{KEY}: the source itself is needed, and for its leaf {path!r}, {tuple(leaf.shape)} '
            f'{leaf.dtype}, the source {has}.'
        )

    return {kind: trees.map_with_path(leaf_of, tree) for kind, tree in model.shapes().items()}


def with_second_head(model: Model, outputs: int) -> Model:
    """The model with a second head beside the first, at `source_head/...`; its calls ignore it."""

    def make(rngs: nnx.Rngs) -> nnx.Module:
        module: Any = model.make(rngs)
        first = module.head
        options: Any = dict(use_bias=first.bias is not None, dtype=first.dtype, rngs=rngs)
        second = nnx.Linear(first.in_features, outputs, **options)
        second.kernel = SourceHead(second.kernel[...])
        if second.bias is not None:
            second.bias = SourceHead(second.bias[...])
        setattr(module, SECOND, second)
        return module

    return dataclasses.replace(model, make=make)


def second_leaves(model: Model, leaves: Leaves) -> dict[str, Any]:
    """The second head's leaves, from the source's head."""
    paths = [p for p in trees.flatten(model.shapes()['params']) if p.startswith(f'{SECOND}/')]
    return {path: leaves[path.replace(SECOND, 'head', 1)] for path in paths}


def reference_shapes(experiment: Any) -> dict[str, Any]:
    """The shapes of what `tljax.train.reference` gives a run of an experiment."""
    setting = experiment.setting

    def shape_of(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

    given = jax.tree.map(shape_of, experiment.reference)
    if not (setting.needs('relation') or setting.needs('attention')):
        return given
    example = {
        k: jax.ShapeDtypeStruct((1, *s.shape), s.dtype) for k, s in experiment.data.example.items()
    }
    seen = jax.eval_shape(
        lambda g, b: source_pass(setting, g, experiment.prepare(b)), given, example
    )
    if setting.needs('relation'):
        outputs = experiment.task.outputs, seen.logits.shape[-1]
        given['relation'] = jax.ShapeDtypeStruct(outputs, jnp.float32)
    if setting.needs('attention'):
        given['attention'] = tuple(
            jax.ShapeDtypeStruct(m.shape[-1:], jnp.float32) for m in seen.maps
        )
    return given


def without_second_head(variables: Mapping[str, trees.Tree]) -> dict[str, trees.Tree]:
    """What of a model's variables is kept after training.

    >>> without_second_head({'params': {'head': {}, 'source_head': {}}, 'batch_stats': {}})
    {'params': {'head': {}}, 'batch_stats': {}}
    """
    return {
        kind: {name: leaf for name, leaf in tree.items() if name != SECOND}
        for kind, tree in variables.items()
    }
