"""`launch.py average`: trained models into one, in the space of their weights."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from tljax import calls, trees
from tljax import config as config_lib
from tljax import mesh as mesh_lib
from tljax.errors import UserError
from tljax.train import experiment as experiment_lib
from tljax.train import norms, sources
from tljax.train.experiment import Experiment, Variables
from tljax.train.export import tokenizer_of
from tljax.train.feed import Feed
from tljax.train.model_dir import load_model, save_model
from tljax.train.programs import compiled_eval
from tljax.train.workdir import claim, held_config, read_json, write_json
from tljax.transfer import averaging

Leaves = Mapping[str, Any]
SHARES = tuple(step / 10 for step in range(11))  # that `interpolate(share='best')` tries
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


@dataclasses.dataclass(frozen=True)
class Average:
    """What a method made.

    Attributes:
      leaves: of the average, batch statistics not yet estimated anew.
      weights: of each model, adding up to 1.
      tried: what the method looked at on its way, as JSON; `validation` is the task's metric.
    """

    leaves: Leaves
    weights: list[float]
    tried: list[dict[str, Any]]


Score = Callable[[Leaves], float]


def uniform(models: Sequence[Leaves], names: Sequence[str], score: Score) -> Average:
    """All models alike; reads no validation."""
    leaves = averaging.uniform(models, names)
    return Average(leaves, [1 / len(models)] * len(models), [])


def greedy(models: Sequence[Leaves], names: Sequence[str], score: Score) -> Average:
    """From the best on, each kept if validation is no worse for it."""
    soup = averaging.greedy(models, score, names)
    first = soup.members[0]
    tried: list[dict[str, Any]] = [
        {'added': names[first], 'validation': soup.alone[first], 'kept': True}
    ]
    tried += [{'added': names[i], 'validation': v, 'kept': kept} for i, v, kept in soup.tried]
    share = 1 / len(soup.members)
    weights = [share if index in soup.members else 0.0 for index in range(len(models))]
    return Average(soup.leaves, weights, tried)


def interpolate(
    models: Sequence[Leaves], names: Sequence[str], score: Score, *, share: Any = 0.5
) -> Average:
    """On the line from the first of two models to the second; 'best' chooses on validation."""
    tried: list[dict[str, Any]] = []
    if share == 'best':
        values = [score(averaging.interpolate(models[0], models[1], one)) for one in SHARES]
        tried = [{'share': s, 'validation': v} for s, v in zip(SHARES, values, strict=True)]
        share = max(zip(values, SHARES, strict=True))[1]
    leaves = averaging.interpolate(models[0], models[1], share)
    return Average(leaves, [1 - share, share], tried)


METHODS: dict[str, Callable[..., Average]] = {
    'uniform': uniform,
    'greedy': greedy,
    'interpolate': interpolate,
}


def average(directories: Sequence[Path], method: str, workdir: Path) -> dict[str, Any]:
    """Averages trained models; the result is a workdir that other commands read as a trained one.

    Batch statistics that differ between the models are estimated anew on the training subset: the
    means of two models' statistics are not those of their mean (Izmailov et al. 2018, "Averaging
    weights leads to wider optima", section 3.2).

    Args:
      directories: workdirs of trained models; for `interpolate`, two, or one, which then is
        taken with what it began from (WiSE-FT).
      method: one of METHODS, perhaps with arguments as in 'interpolate(share=0.3)'.
      workdir: where the result goes.

    Returns:
      The content of `average.json`: method, models with their metric on validation and weight,
      what was tried, and the result's metric on validation. Test is never read.

    Raises:
      UserError: models that cannot be averaged, an unknown method, or a workdir of something else.
    """
    name, arguments = calls.parse(method, METHODS, '--method')
    check_count(name, len(directories))
    asked = {'method': method, 'models': [str(path) for path in directories]}
    if (done := finished(workdir, asked)) is not None:
        return done
    members = [read(path) for path in directories]
    check_same(members)
    if name == 'interpolate' and len(members) == 1:
        members.insert(0, beginning(members[0], directories[0]))
    names = [member.name for member in members]
    averaging.check_alike([member.leaves for member in members], names)
    kitchen = Kitchen(members)
    made = METHODS[name]([m.leaves for m in members], names, kitchen.score, **arguments)
    leaves = kitchen.finished(made.leaves)
    record = {
        'asked': asked,
        'metric': kitchen.experiment.task.metric,
        'models': [
            {'model': member.name, 'validation': kitchen.validation(member.leaves), 'weight': w}
            for member, w in zip(members, made.weights, strict=True)
        ],
        'tried': [kitchen.as_metric(entry) for entry in made.tried],
        'validation': kitchen.validation(leaves),
    }
    keep(workdir, members, kitchen.nested(leaves), record, directories[0])
    return record


def check_count(name: str, count: int) -> None:
    """Raises UserError if a method takes another number of models."""
    if name == 'interpolate' and count not in (1, 2):
        raise UserError(
            f'--method=interpolate takes two models, or one, which is then taken with what it '
            f'began from; --models names {count}.'
        )
    if name != 'interpolate' and count < 2:
        raise UserError(f'--method={name} takes two models or more; --models names {count}.')


def finished(workdir: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a workdir that holds this average already; None where it holds nothing.

    Raises:
      UserError: it holds something else.
    """
    record = workdir / 'average.json'
    if not (workdir / 'config.json').exists():
        return None
    if not record.exists():
        command = read_json(workdir / 'config.json').get('command')
        if command == 'average':
            return None  # stopped before its end
        raise UserError(f'{workdir} holds a run of `{command}`; choose another --workdir.')
    held = read_json(record)
    if held.get('asked') != asked:
        raise UserError(
            f'{workdir} holds another average: {held.get("asked")}. Choose another --workdir.'
        )
    logging.info('%s is averaged already.', workdir)
    return held


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


def keep(
    workdir: Path,
    members: Sequence[Member],
    variables: Variables,
    record: Mapping[str, Any],
    first: Path,
) -> None:
    """Writes the average as a workdir with a trained model."""
    config = members[-1].config
    trained = [member.card for member in members if member.card]
    card = {
        **trained[0],
        'title': f'{config.title} (average of {len(members)})'.strip(),
        **{key: sum(card[key] for card in trained) for key in ('steps', 'examples', 'seconds')},
        'average': record,
    }
    card.pop('best_step', None)
    manifest = first / 'model' / 'manifest.json'
    claim(workdir, config, 'average')
    write_json(workdir / 'splits.json', read_json(first / 'splits.json'))
    told = read_json(manifest) if manifest.exists() else None
    save_model(workdir / 'model', variables, card, told, tokenizer_of(first))
    write_json(workdir / 'average.json', record)


def summary(record: Mapping[str, Any]) -> str:
    """The lines that the command prints at its end."""
    lines = [
        f'{number(model["validation"])}  weight {model["weight"]:.3g}  {model["model"]}'
        for model in record['models']
    ]
    for entry in record['tried']:
        if 'share' in entry:
            lines.append(f'{number(entry["validation"])}  share {entry["share"]:.1f}')
    lines.append(f'{number(record["validation"])}  the average')
    return '\n'.join([f'validation {record["metric"]}:', *lines])


def number(value: float | None) -> str:
    return 'not finite' if value is None else f'{value:.4f}'
