"""From a model's name to pure functions over nested dicts of arrays.

A model is an NNX module only while it is built and while it is called; everywhere else it is a
`Model` (static) and its variables: parameters and batch statistics as nested dicts.
"""

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
from flax import nnx

from tljax.errors import UserError, nearest
from tljax.models.outline import Outline, outline_of
from tljax.trees import Tree, flatten

MODELS = {
    'alexnet': 'tljax.models.alexnet:AlexNet',
    'bit': 'tljax.models.bit:Bit',
    'cifar_resnet': 'tljax.models.resnet:CifarResNet',
    'resnet': 'tljax.models.resnet:ResNet',
    'convnet': 'tljax.models.convnet:ConvNet',
    'bert': 'tljax.models.bert:Bert',
    'efficientnet_lite': 'tljax.models.efficientnet_lite:EfficientNetLite',
    'gpt2': 'tljax.models.gpt2:Gpt2',
    'squeezenet': 'tljax.models.squeezenet:SqueezeNet',
    'vit': 'tljax.models.vit:Vit',
    'wav2vec2': 'tljax.models.wav2vec2:Wav2Vec2',
}
# Of an example's arrays, the one that a model cannot do without, and what it holds.
READABLE = {'audio': 'sounds', 'image': 'images', 'tokens': 'text'}
GIVEN = ('self', 'example', 'outputs', 'rngs')


class Draws(nnx.RngStream):
    """A random stream for initialisation that counts its draws in Python.

    NNX counts in an array; read while tracing, each draw takes jax longer than the one before.
    """

    def __init__(self, key: jax.Array):
        super().__init__(key, tag='params')
        self.taken = 0

    def __call__(self) -> jax.Array:
        self.taken += 1
        return jax.random.fold_in(self.key[...], self.taken - 1)


def streams(key: Any) -> nnx.Rngs:
    """The random streams that a module is made with: one, the same numbers as `nnx.Rngs` gives."""
    rngs: Any = nnx.Rngs(params=key)
    rngs.params = Draws(rngs.params.key[...])
    return rngs


@dataclasses.dataclass(frozen=True)
class Model:
    """How to make a module and how to call it with parameters held elsewhere.

    Attributes:
      make: builds the NNX module from an `nnx.Rngs` whose stream is `params`.
    """

    make: Callable[[nnx.Rngs], nnx.Module]

    def init(self, key: jax.Array) -> dict[str, Tree]:
        """Freshly initialised `{'params': ..., 'batch_stats': ...}`; can be jitted and mapped."""
        return variables_of(self.make(streams(key)))

    def shapes(self) -> dict[str, Tree]:
        """The same with a ShapeDtypeStruct for every leaf; nothing is computed."""
        return self._shapes

    @functools.cached_property
    def _shapes(self) -> dict[str, Tree]:
        return jax.eval_shape(self.init, jax.random.key(0))

    def outline(self) -> Outline:
        """Its stages from bottom to top, its norms, biases and head, by parameter paths."""
        return self._outline

    @functools.cached_property
    def _outline(self) -> Outline:
        return outline_of(nnx.eval_shape(lambda: self.make(streams(jax.random.key(0)))))

    def graph(self, *, train: bool, frozen: Collection[str] = ()) -> nnx.GraphDef:
        """The static half of the module.

        Args:
          train: dropout and batch statistics as in training, or as in evaluation.
          frozen: paths of modules whose batch statistics are read and not updated.
        """
        module = nnx.eval_shape(lambda: self.make(streams(jax.random.key(0))))
        if train:
            module.train()
        else:
            module.eval()
        for keys, child in nnx.iter_modules(module):
            path = '/'.join(map(str, keys))
            if path in frozen and hasattr(child, 'use_running_average'):
                child.use_running_average = True
        return nnx.graphdef(module)

    def estimating_graph(self) -> nnx.GraphDef:
        """As in evaluation, but normalising by each batch, whose statistics are kept as they are.

        A batch's mean and variance then stand in the place of the running ones.
        """
        module = nnx.eval_shape(lambda: self.make(streams(jax.random.key(0))))
        module.eval()
        for _, child in nnx.iter_modules(module):
            if hasattr(child, 'use_running_average') and hasattr(child, 'momentum'):
                child.use_running_average, child.momentum = False, 0.0
        return nnx.graphdef(module)


def merge(graph: nnx.GraphDef, params: Tree, batch_stats: Tree) -> Any:
    """The callable module; the arrays may be traced."""
    return nnx.merge(graph, integer_keys(params), integer_keys(batch_stats), copy=True)


def real_positions(module: Any, batch: Mapping[str, jax.Array]) -> jax.Array | None:
    """Which positions of a model's sequences stand for the input, and not for padding.

    A model of texts or sounds tells by its method `real(batch)`, since it knows which of its
    positions see what of an input.

    Returns:
      (B, positions of what each stage gives) float32, 1 or 0; None is 1 each.
    """
    told = getattr(module, 'real', None)
    return None if told is None else told(batch)


def variables_of(module: nnx.Module) -> dict[str, Tree]:
    """The parameters and batch statistics of a module as nested dicts with string keys."""
    _, *states = nnx.split(module, nnx.Param, nnx.BatchStat, ...)
    params, stats, rest = states
    if leaves := flatten(string_keys(nnx.to_pure_dict(rest))):
        raise TypeError(
            f'{type(module).__name__} holds state that is neither Param nor BatchStat: '
            f'{list(leaves)[:3]}. Give random streams at the call, not to the module.'
        )
    return {
        'params': string_keys(nnx.to_pure_dict(params)),
        'batch_stats': string_keys(nnx.to_pure_dict(stats)),
    }


def batch_stats_of(module: nnx.Module) -> Tree:
    """The batch statistics after a call."""
    return string_keys(nnx.to_pure_dict(nnx.state(module, nnx.BatchStat)))


def string_keys(tree: Mapping[Any, Any]) -> Tree:
    """Every key as a string: a list of layers has integer keys in NNX, but not on disk."""
    return {str(k): string_keys(v) if isinstance(v, Mapping) else v for k, v in tree.items()}


def integer_keys(tree: Mapping[str, Any]) -> dict[Any, Any]:
    """The inverse of `string_keys`."""
    return {
        int(k) if k.isdigit() else k: integer_keys(v) if isinstance(v, Mapping) else v
        for k, v in tree.items()
    }


def factory_of(name: str) -> Any:
    """The class of a model.

    Raises:
      UserError: there is no such model.
    """
    if not isinstance(name, str) or name not in MODELS:
        raise UserError(f'config.model.name: no model {name!r}.{nearest(str(name), MODELS)}')
    module, _, attribute = MODELS[name].partition(':')
    return getattr(importlib.import_module(module), attribute)


def reads_tokens(name: str) -> bool:
    """Whether a model's input is numbers of tokens, which mean nothing without their tokenizer.

    Args:
      name: of a model; of no other is it known.

    >>> reads_tokens('bert'), reads_tokens('resnet')
    (True, False)
    """
    return name in MODELS and getattr(factory_of(name), 'reads', '') == 'tokens'


def parameters_of(factory: Any) -> dict[str, Any]:
    """The arguments that a recipe may give a model, with their defaults."""
    parameters = inspect.signature(factory.__init__).parameters
    return {name: p.default for name, p in parameters.items() if name not in GIVEN}


def arguments(name: str, **changes: Any) -> dict[str, Any]:
    """`config.model` for a recipe: every argument of a model, so that flags can override each.

    Args:
      name: of the model.
      changes: what differs from the model's defaults.

    Raises:
      UserError: there is no such model.

    >>> arguments('convnet', hidden=16)
    {'name': 'convnet', 'widths': (32, 64), 'hidden': 16, 'norm': 'none', 'dropout': 0.0}
    """
    return {'name': name, **parameters_of(factory_of(name)), **changes}


def build(
    config: Mapping[str, Any],
    example: Mapping[str, jax.ShapeDtypeStruct],
    outputs: int,
    inject: Callable[[nnx.Module, nnx.Rngs], nnx.Module] | None = None,
) -> Model:
    """Finds the model that `config.model` names.

    Args:
      config: `name` and that model's arguments.
      example: shapes of one example, without the batch axis.
      outputs: size of the head.
      inject: `inject(module, rngs) -> module` puts other modules into it when it is made.

    Returns:
      A `Model`.

    Raises:
      UserError: unknown name or argument, arguments that the model refuses, or examples that it
        cannot read.

    >>> import jax, numpy as np
    >>> example = {'image': jax.ShapeDtypeStruct((8, 8, 1), np.uint8)}
    >>> model = build({'name': 'convnet', 'widths': (4, 8), 'hidden': 16}, example, 10)
    >>> model.shapes()['params']['head']['kernel'].shape
    (16, 10)
    """
    arguments = dict(config)
    name = arguments.pop('name')
    factory = factory_of(name)
    known = parameters_of(factory)
    for key in arguments:
        if key not in known:
            raise UserError(
                f'config.model.{key}: {name} has no such argument.{nearest(key, known)}'
            )

    check_read(name, factory, example)

    def make(rngs: nnx.Rngs) -> nnx.Module:
        module = factory(example=example, outputs=outputs, rngs=rngs, **arguments)
        return module if inject is None else inject(module, rngs)

    model = Model(make)
    try:
        shapes = flatten(model.shapes()['params'])
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f'config.model: {name} cannot be built so: {error}') from error
    empty = [f'{path} {leaf.shape}' for path, leaf in shapes.items() if 0 in leaf.shape]
    if empty:
        raise UserError(
            f'config.model: {name} cannot be built so: its leaf {empty[0]} would hold nothing. '
            'Every size must be 1 or more.'
        )
    return model


def check_read(name: str, factory: Any, example: Mapping[str, Any]) -> None:
    """Checks that an example has what a model reads.

    Raises:
      UserError: it has not.
    """
    reads = getattr(factory, 'reads', '')
    if reads and reads not in example:
        raise UserError(
            f'config.model: {name} cannot be built so: it reads {READABLE[reads]}, under '
            f'{reads!r}; an example has {sorted(example)}. Give a config.source.uri or '
            'config.model.name of a model that reads these, or other config.data.'
        )
