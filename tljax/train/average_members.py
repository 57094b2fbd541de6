"""The models that `launch.py average` takes: read, checked, and measured on validation."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from tljax import config as config_lib
from tljax import mesh as mesh_lib
from tljax import trees
from tljax.errors import UserError
from tljax.train import experiment as experiment_lib
from tljax.train import norms, sources
from tljax.train.experiment import Experiment, Variables
from tljax.train.feed import Feed
from tljax.train.model_dir import load_model
from tljax.train.programs import compiled_eval
from tljax.train.workdir import held_config, read_json

Leaves = Mapping[str, Any]
# Sections of the config that a model's leaves, or which examples it may have seen, depend on.
SAME = ('task.name', 'model', 'data')
MAY_DIFFER = ('model.dropout',)


@dataclasses.dataclass(frozen=True)
class Member:
    """A model to be averaged.

    Attributes:
      name: its workdir, or what else it is called.
      config: that it was trained with.
      leaves: by path, parameters and batch statistics together.
      card: its own.
    """

    name: str
    config: ConfigDict
    leaves: dict[str, np.ndarray]
    card: dict[str, Any]


def read(directory: Path) -> Member:
    """A trained model of a workdir.

    Raises:
      UserError: there is none, or it has injected leaves.
    """
    if not (directory / 'model' / 'card.json').exists():
        raise UserError(
            f'--models: {directory} holds no trained model. Give workdirs that `launch.py train` '
            'left, separated by commas.'
        )
    config = held_config(directory)
    if config.source.uri and experiment_lib.injector_of(config) is not None:
        raise UserError(
            f'--models: {directory} has injected leaves ({config.transfer.policy!r}). Their mean '
            'is not the mean of what they compute, so they are not averaged.'
        )
    variables, card = load_model(directory / 'model')
    leaves = {p: np.asarray(x) for p, x in experiment_lib.flat_variables(variables).items()}
    return Member(str(directory), config, leaves, card)


def check_same(members: Sequence[Member]) -> None:
    """Checks that models are of one architecture, and that none was trained on validation.

    Raises:
      UserError: names the config key and the two workdirs.
    """
    first = members[0]
    for other in members[1:]:
        for line in config_lib.differences(first.config, other.config):
            key = line.partition(':')[0]
            of_model = any(key == same or key.startswith(same + '.') for same in SAME)
            if of_model and key not in MAY_DIFFER:
                raise UserError(
                    f'{first.name} and {other.name} cannot be averaged: they differ in {line}.'
                )
        held = [
            read_json(Path(member.name) / 'splits.json').get('validation')
            for member in (first, other)
        ]
        if held[0] != held[1]:
            raise UserError(
                f'{first.name} and {other.name} set other examples aside for validation, so that '
                'one was trained on what would judge it. Train them with one config.seed, or name '
                'a split: config.data.validation.'
            )


def beginning(member: Member, directory: Path) -> Member:
    """What a model began from: its source, and fresh leaves as they were drawn.

    Raises:
      UserError: it began from scratch.
    """
    config = member.config
    source = sources.load(config, directory)
    if source is None:
        raise UserError(
            f'--method=interpolate: {directory} was trained from scratch, so there is no source '
            'to go towards. Name two models.'
        )
    experiment = experiment_lib.build(config, source)
    init_key, _ = experiment_lib.run_keys(config.seed)
    variables = jax.device_get(jax.jit(experiment.init)(init_key, experiment.loaded))
    leaves = {p: np.asarray(x) for p, x in experiment_lib.flat_variables(variables).items()}
    return Member(f'the beginning of {member.name}', config, leaves, {})


class Kitchen:
    """Turns leaves into variables and measures them on validation.

    Args:
      members: all that are averaged; the first one's config says which data.
    """

    def __init__(self, members: Sequence[Member]):
        config = members[0].config
        self.experiment: Experiment = experiment_lib.build(config, None)
        mesh = mesh_lib.data_mesh()
        self.mesh, self.members = mesh, members
        self.feed = Feed(self.experiment.data.split('validation'), mesh)
        self.evaluate = compiled_eval(self.experiment)
        shapes = self.experiment.model.shapes()
        stats = trees.flatten(shapes['batch_stats'])
        # Statistics of frozen layers are the same in all models, and stay.
        self.moved = [
            path
            for path in stats
            if not all(np.array_equal(m.leaves[path], members[0].leaves[path]) for m in members)
        ]
        self._kinds = {kind: list(trees.flatten(tree)) for kind, tree in shapes.items()}

    def nested(self, leaves: Leaves) -> Variables:
        """Parameters and batch statistics as trees."""
        return {
            kind: trees.unflatten({path: leaves[path] for path in paths})
            for kind, paths in self._kinds.items()
        }

    def finished(self, leaves: Leaves) -> Leaves:
        """The leaves, statistics that differ between the models estimated anew."""
        if not self.moved or any(self.is_member(leaves, member) for member in self.members):
            return leaves
        experiment = self.experiment
        subset, order = experiment.order(experiment.config.seed)
        feed = Feed(experiment.data.split('train'), self.mesh, subset)
        variables = mesh_lib.put_replicated(self.mesh, self.nested(leaves))
        estimate = norms.compiled_estimate(experiment)
        new = norms.adapted(estimate, variables, feed, order)
        estimated = trees.flatten(jax.device_get(new['batch_stats']))
        return {**leaves, **{path: np.asarray(estimated[path]) for path in self.moved}}

    def is_member(self, leaves: Leaves, member: Member) -> bool:
        return all(np.array_equal(leaves[path], leaf) for path, leaf in member.leaves.items())

    def validation(self, leaves: Leaves) -> float | None:
        """The task's metric, as the task gives it; None where it isn't finite."""
        variables = mesh_lib.put_replicated(self.mesh, self.nested(leaves))
        sums = self.feed.evaluate(self.evaluate, variables['params'], variables['batch_stats'])
        task = self.experiment.task
        value = task.metrics(sums)[task.metric]
        return value if math.isfinite(value) else None

    def score(self, leaves: Leaves) -> float:
        """The metric of leaves as they would be saved, turned so that higher is better."""
        value = self.validation(self.finished(leaves))
        if value is None:
            return -math.inf
        return value if self.experiment.task.higher_is_better else -value

    def as_metric(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """A record of what was tried, its score as the metric again."""
        value = entry['validation']
        if not math.isfinite(value):
            return {**entry, 'validation': None}
        return {**entry, 'validation': value if self.experiment.task.higher_is_better else -value}
