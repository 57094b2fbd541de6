"""From a config to everything a run needs: data, task, model, source, phases."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from tljax import config as config_lib
from tljax import models, tasks, trees
from tljax.data import Data, Order, augment, normalise, open_data
from tljax.errors import UserError
from tljax.models import Model
from tljax.tasks import Task
from tljax.train import adapters
from tljax.train import step as step_lib
from tljax.transfer import Manifest, apply, peft, plan, policies, regularizers
from tljax.transfer.manifest import REUSED

Variables = dict[str, trees.Tree]
NO_REGULARIZERS = regularizers.Setting(())


@dataclasses.dataclass(frozen=True)
class Source:
    """A source model, read into memory.

    Attributes:
      leaves: path -> array, parameters and batch statistics together.
      card: where it comes from.
    """

    leaves: dict[str, Any]
    card: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One arm: a config and what it names, with the source's leaves fitted to the target.

    Attributes:
      loaded: path -> array for every leaf that surgery took from the source; {} from scratch.
      manifest: surgery's record, or None from scratch.
      card: the source's, or None from scratch.
      policy: that the phases are of, a block that was chosen by gradients named.
      setting: the regularisers.
      reference: what they need of the source; see `tljax.train.reference`.
    """

    config: ConfigDict
    data: Data
    task: Task
    model: Model
    phases: tuple[policies.Phase, ...]
    loaded: dict[str, Any]
    manifest: Manifest | None
    card: dict[str, Any] | None
    policy: Any = 'full'
    setting: regularizers.Setting = NO_REGULARIZERS
    reference: dict[str, Any] = dataclasses.field(default_factory=dict)

    def init(self, key: jax.Array, loaded: Mapping[str, Any] | None = None) -> Variables:
        """The variables before the first update: fresh ones, the loaded leaves put over them.

        Args:
          key: for the fresh leaves.
          loaded: `self.loaded`, given as an argument where the call is jitted.
        """
        loaded = self.loaded if loaded is None else loaded
        fresh = self.model.init(key)
        return {
            kind: trees.map_with_path(lambda path, leaf: loaded.get(path, leaf), tree)
            for kind, tree in fresh.items()
        }

    def prepare(self, batch: Mapping[str, jax.Array]) -> Mapping[str, jax.Array]:
        """From a batch as stored to what the model reads; runs on the device."""
        return normalise(batch, self.config.data.mean, self.config.data.std)

    @property
    def views(self) -> int:
        """In how many ways an example is augmented; 0 is in ever new ones, or not at all."""
        return self.config.prefix.views if self.config.data.augment else 0

    def augment(self, batch: Mapping[str, jax.Array], key: jax.Array) -> Mapping[str, jax.Array]:
        """The random changes that training pictures undergo."""
        return augment(batch, self.config.data.augment, key, self.config.seed)

    def order(self, seed: int) -> tuple[np.ndarray, Order]:
        """The examples that a run with this seed trains on, and the order in which they come."""
        subset, fitting = self.data.subset(seed), self.data.split('train').fitting
        lengths = None if fitting is None else fitting[subset]
        return subset, Order(len(subset), self.config.train.batch_size, seed, lengths)

    def data_identity(self, seed: int) -> str:
        """Hexadecimal sha256 of the set, its version, the chosen examples and their labels."""
        subset = self.data.subset(seed)
        labels = self.data.split('train').labels()[subset]
        digest = hashlib.sha256(f'{self.data.full_name} {self.data.record(seed)}'.encode())
        digest.update(labels.tobytes())
        return digest.hexdigest()

    def param_paths(self) -> list[str]:
        return list(trees.flatten(self.model.shapes()['params']))

    def objective(self) -> step_lib.Objective:
        """The task's loss, with the regularisers around it if there are any."""
        if self.setting.regularizers:
            return regularizers.make(self.task, self.setting)
        return step_lib.task_objective(self.task)

    def phase_at(self, step: int) -> policies.Phase:
        """The phase that step belongs to; the end of training belongs to the last."""
        return next((p for p in self.phases if step < p.end), self.phases[-1])


def build(
    config: ConfigDict,
    source: Source | None,
    *,
    data: Data | None = None,
    injected: bool | None = None,
) -> Experiment:
    """Puts an experiment together and checks that its parts fit.

    Args:
      config: of `tljax.config.resolve`.
      source: what is reused; None is from scratch, with every leaf trained.
      data: the data, if it is open already.
      injected: whether the model has the leaves that `config.transfer` injects; None is where
        there is a source.

    Raises:
      UserError: anything in the config that does not fit the data, the model or the source.
    """
    if data is None:
        data = opened(json.dumps(config_lib.plain(config)['data']), config.seed)
    data.subset(config.seed)  # too few labels are found here, before anything is trained
    tokenizer = getattr(data.form, 'tokenizer', None)
    vocabulary = tokenizer.vocabulary if tokenizer else 0
    counts = functools.partial(class_counts, data, config.seed)
    words = functools.partial(tokens_per_word, data)
    target = tasks.Target(data.label_names, data.example, vocabulary, counts, words)
    task = tasks.create(config.task, target)
    check_vocabulary(config, vocabulary)
    injected = source is not None if injected is None else injected
    inject = injector_of(config) if injected else None
    model = models.build(config.model, data.example, task.outputs, inject)
    if source is None or policies.is_from_scratch(policy_of(config)):
        phases = policies.phases('full', config.train.steps, model.outline())
        setting = regularizers.outfit(config, model, task, data.example).setting
        return Experiment(config, data, task, model, phases, {}, None, None, setting=setting)
    shapes = flat_variables(model.shapes())
    manifest = plan_surgery(config, source.leaves, shapes, model.outline().injected)
    fitted = apply(manifest, source.leaves, shapes)
    kept = {entry.path for entry in manifest.entries if entry.action not in REUSED}
    loaded = {path: np.asarray(leaf) for path, leaf in fitted.items() if path not in kept}
    if config.source.peft:
        saved = adapters.read(config.source.peft)
        loaded, manifest = adapters.over(saved, model, loaded, manifest)
    experiment = Experiment(config, data, task, model, (), loaded, manifest, source.card)
    experiment = regularized(experiment, source.leaves, loaded)
    experiment = settled(experiment)
    check_rules(experiment, experiment.phases)
    return experiment


def class_counts(data: Data, seed: int) -> list[int]:
    """Training examples of each class."""
    labels = data.split('train').labels()[data.subset(seed)]
    return np.bincount(labels, minlength=len(data.label_names)).tolist()


def tokens_per_word(data: Data) -> float:
    """Their mean over the words of the training texts."""
    words = data.split('train').arrays()['words']
    return float((words > 0).sum() / max(words.max(1).sum(), 1))


def check_vocabulary(config: ConfigDict, vocabulary: int) -> None:
    """Raises UserError if the tokenizer has tokens that the model has no embedding for."""
    known = config.model.get('vocabulary')
    if known is not None and vocabulary > known:
        raise UserError(
            f'config.data.tokenizer: it has {vocabulary} tokens, and '
            f'config.model.vocabulary is {known}. Use the tokenizer that the model was trained '
            'with (config.data.tokenizer), or raise model.vocabulary.'
        )


def regularized(
    experiment: Experiment, source: Mapping[str, Any], loaded: Mapping[str, Any]
) -> Experiment:
    """The experiment with what its regularisers need of a source.

    Args:
      experiment: without.
      source: path -> the source's leaf, or its shape.
      loaded: those fitted to the target.

    Raises:
      UserError: a regulariser makes no sense here.
    """
    example = experiment.data.example
    outfit = regularizers.outfit(
        experiment.config, experiment.model, experiment.task, example, source, loaded
    )
    return dataclasses.replace(
        experiment,
        model=outfit.model,
        loaded={**loaded, **outfit.loaded},
        setting=outfit.setting,
        reference=outfit.reference,
    )


@functools.lru_cache(maxsize=4)
def opened(section: str, seed: int) -> Data:
    """The data of a `config.data` given as JSON: a source's is asked for more than once."""
    return open_data(ConfigDict(json.loads(section)), seed)


def check_rules(experiment: Experiment, phases: Sequence[policies.Phase]) -> None:
    """Raises UserError if a phase's rules do not fit the model, or `adapt_norm` does not."""
    wanted = experiment.config.transfer.adapt_norm
    if wanted and not trees.flatten(experiment.model.shapes()['batch_stats']):
        raise UserError(
            f'config.transfer.adapt_norm is set, but {experiment.config.model.name} keeps no batch '
            'statistics that could be estimated. Leave the key out.'
        )
    for phase in phases:
        policies.decide(phase, experiment.param_paths())


def check_fit(config: ConfigDict, source: Mapping[str, Any]) -> None:
    """Checks that a source of such shapes would fit, before it is trained.

    Args:
      config: the target's.
      source: path -> shape of each of the source's leaves.

    Raises:
      UserError: as for `build`.
    """
    target = build(config, None, injected=True)
    shapes, injected = flat_variables(target.model.shapes()), target.model.outline().injected
    manifest = plan_surgery(config, source, shapes, injected)
    loaded = {path: shapes[path] for path in manifest.reused()}
    regularizers.outfit(config, target.model, target.task, target.data.example, source, loaded)
    check_rules(target, planned_phases(target))


def planned_phases(experiment: Experiment) -> tuple[policies.Phase, ...]:
    """The policy's phases, as far as they are known before the source's values are."""
    config = experiment.config
    return policies.phases(policy_of(config), config.train.steps, experiment.model.outline())


def settled(experiment: Experiment) -> Experiment:
    """The experiment with its policy's phases, a block that this chooses by gradients chosen."""
    from tljax.train import gradients  # which needs this module

    config, outline = experiment.config, experiment.model.outline()
    policy = policies.settled(policy_of(config), lambda: gradients.relative(experiment))
    if policy != policy_of(config):
        logging.info('%s: %s.', policies.KEY, policy)
    phases = policies.phases(policy, config.train.steps, outline)
    return dataclasses.replace(experiment, phases=phases, policy=policy)


def policy_of(config: ConfigDict) -> Any:
    """The policy as a name or plain phases."""
    return config_lib.plain(config)['transfer']['policy']


def injector_of(config: ConfigDict) -> Any:
    """What makes the model with the leaves that `config.transfer` injects; None without any."""
    policy = policy_of(config)
    pairs = peft.chosen(policy, config_lib.plain(config)['transfer']['inject'])
    if not pairs or not config.source.uri or policies.is_from_scratch(policy):
        return None
    return peft.injector(pairs)


def plan_surgery(
    config: ConfigDict,
    source: Mapping[str, Any],
    target: Mapping[str, Any],
    injected: Collection[str] = (),
) -> Manifest:
    """Surgery's plan under `config.transfer`."""
    transfer = config.transfer
    return plan(
        source,
        target,
        rename=tuple(transfer.rename),
        reset=tuple(transfer.reset),
        resize=tuple(transfer.resize),
        unused=tuple(transfer.unused),
        injected=injected,
    )


def flat_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters and batch statistics as one flat world of paths."""
    return trees.flatten(variables['params']) | trees.flatten(variables['batch_stats'])


def run_keys(seed: int | jax.Array) -> tuple[jax.Array, jax.Array]:
    """The keys of a seed: one for initialisation, one for what happens in training."""
    init_key, train_key = jax.random.split(jax.random.key(seed))
    return init_key, train_key
