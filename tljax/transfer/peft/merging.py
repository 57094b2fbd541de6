"""Injected leaves worked into the weights, where that is exact."""

from typing import Any

import jax
from flax import nnx

from tljax import models, trees
from tljax.errors import UserError
from tljax.models import Model
from tljax.transfer.injection import Injected


def merge(model: Model, variables: dict[str, trees.Tree]) -> dict[str, trees.Tree]:
    """The variables of the same architecture without injection that compute the same.

    Args:
      model: made with injection.
      variables: its `{'params': ..., 'batch_stats': ...}`.

    Raises:
      UserError: a method's leaves can't be worked into the weights.
    """
    return jax.jit(lambda values: _merged(model, values))(variables)


def _merged(model: Model, variables: dict[str, trees.Tree]) -> dict[str, trees.Tree]:
    params = trees.flatten(variables['params'])
    graph = model.graph(train=False)
    module = models.merge(graph, variables['params'], variables['batch_stats'])
    for keys, child in nnx.iter_modules(module):
        own = [name for name, value in vars(child).items() if type(value) is Injected]
        if not own:
            continue
        path = '/'.join(map(str, keys))
        working: Any = getattr(child, 'merged', None)
        if working is None:
            raise UserError(
                f'{path}/{own[0]} cannot be worked into the weights: no weights of this '
                'architecture compute the same. Keep the model as it is: LoRA, DoRA and IA3 alone '
                'can be merged.'
            )
        for name in own:
            del params[f'{path}/{name}']
        params |= {f'{path}/{name}': value for name, value in working().items()}
    return {**variables, 'params': trees.unflatten(params)}
