"""`launch.py average`: trained models into one, in the space of their weights."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from tljax import calls
from tljax.errors import UserError
from tljax.train.average_members import Kitchen, Leaves, Member, beginning, check_same, read
from tljax.train.experiment import Variables
from tljax.train.export import tokenizer_of
from tljax.train.model_dir import save_model
from tljax.train.workdir import claim, hold, read_json, write_json
from tljax.transfer import averaging

SHARES = tuple(step / 10 for step in range(11))  # that `interpolate(share='best')` tries


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
    hold(workdir, 'average')
    if (done := finished(workdir, asked)) is not None:  # by another process, meanwhile
        return done
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
