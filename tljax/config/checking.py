"""Filling in the defaults, and checking every key and value."""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from tljax.config.defaults import ABOVE, CHOICES, LEAST, default
from tljax.config.forms import flat, plain
from tljax.errors import UserError, nearest


def resolve(config: Mapping[str, Any], where: str = 'config') -> ConfigDict:
    """Fills in the defaults and checks every key and value.

    Raises:
      UserError: a key nobody reads, a value of the wrong type or out of range.
    """
    full = default()
    for section, value in plain(config).items():
        if section not in full:
            raise UserError(f'{where}: unknown key {section!r}.{nearest(section, full)}')
        if section == 'model':
            full.model = ConfigDict(value)  # its arguments are checked where the model is built
        elif not isinstance(full[section], ConfigDict):
            set_value(full, section, value, section, where)
        elif not isinstance(value, Mapping):
            raise UserError(f'{where}.{section} is a section, not a value; it got {value!r}.')
        else:
            for key, item in value.items():
                if key not in full[section]:
                    known = [f'{section}.{k}' for k in full[section]]
                    raise UserError(
                        f'{where}: unknown key {section}.{key}.{nearest(f"{section}.{key}", known)}'
                    )
                set_value(full[section], key, item, f'{section}.{key}', where)
    check_values(full, where)
    return full


def set_value(section: ConfigDict, key: str, value: Any, dotted: str, where: str) -> None:
    """Sets one key, keeping the default's type."""
    if dotted == 'transfer.policy' and not isinstance(value, str | list | tuple):
        raise UserError(f'{where}.{dotted} takes a name or a list of phases, not {value!r}.')
    if isinstance(section[key], tuple) and isinstance(value, list):
        value = tuple(value)
    try:
        if value is None:
            raise TypeError
        section[key] = float(value) if dotted == 'data.holdout' else value
    except (TypeError, ValueError):
        kind = type(section[key]).__name__
        raise UserError(f'{where}.{dotted} takes {kind}, not {value!r}.') from None


def check_each(config: ConfigDict, where: str) -> None:
    """Checks each value by itself: its range, or what there is to choose from.

    Raises:
      UserError: names the key, its value and what it takes.
    """
    values = flat(config)
    for key, known in CHOICES.items():
        if values[key] not in known:
            raise UserError(f'{where}.{key} is {values[key]!r}; it takes one of {known}.')
    for key, least in LEAST.items():
        if key in values and not values[key] >= least:  # written so that nan fails too
            floor = 'above 0' if least == 1e-30 else f'{least} or more'
            raise UserError(f'{where}.{key} is {values[key]!r}; it must be {floor}.')
    for key, above in ABOVE.items():
        if key in values and not values[key] < above:
            raise UserError(f'{where}.{key} is {values[key]!r}; it must be below {above:g}.')


def check_values(config: ConfigDict, where: str) -> None:
    """Checks ranges and choices.

    Raises:
      UserError: names the key, its value and what it takes.
    """
    check_each(config, where)
    if config.study.trials > 1 and config.study.lr_low >= config.study.lr_high:
        raise UserError(
            f'{where}.study.lr_low ({config.study.lr_low}) must be below study.lr_high '
            f'({config.study.lr_high}); for a single learning rate set study.trials to 1.'
        )
    check_tuning(config, where)
    if config.train.batch_size % config.train.accumulate:
        raise UserError(
            f'{where}.train.batch_size ({config.train.batch_size}) must be a multiple of '
            f'train.accumulate ({config.train.accumulate}).'
        )
    values = flat(config)
    for key in ('model.name', 'data.name'):
        if not values.get(key):
            raise UserError(f'{where}.{key} is missing: the recipe must name one.')
    check_labels(config, where)


def check_labels(config: ConfigDict, where: str) -> None:
    """Raises UserError if a table of texts is to be classified and no column has the labels.

    Without labels texts can be prepared, as running text; they should not be, to no end.
    """
    data, task = config.data, config.task.name
    if data.name == 'table' and data.text and not data.label and task == 'classification':
        raise UserError(
            f'{where}.data.label is empty, and {where}.task.name is {task!r}: name the column of '
            f'the labels in {data.dir or "your table"} (data.label=COLUMN).'
        )


def check_tuning(config: ConfigDict, where: str) -> None:
    """Checks the section `tune`.

    Raises:
      UserError: names the key, its value and what it takes.
    """
    tune = config.tune
    if 0 < tune.lr_high <= tune.lr_low:
        raise UserError(
            f'{where}.tune.lr_low ({tune.lr_low}) must be below tune.lr_high ({tune.lr_high}); '
            'for a single learning rate set tune.lrs to 1 and optim.lr.'
        )
    decays = tune.weight_decays
    numbers = [
        isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x < math.inf for x in decays
    ]
    if not numbers or not all(numbers) or len(set(decays)) < len(decays):
        raise UserError(
            f'{where}.tune.weight_decays is {decays!r}; it takes numbers from 0 on, each once.'
        )
