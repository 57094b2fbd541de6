"""Where a report's numbers come from: what was reused, cost, setting, how to reproduce it."""

import json
from collections.abc import Mapping
from typing import Any

from tljax.study.report import summary
from tljax.study.report.document import Block, Bullets, Code, Fold, Paragraph, Table
from tljax.study.report.figures import (
    NOT_MEASURED,
    TIMES,
    count,
    estimate,
    known,
    plain_number,
    seconds,
)
from tljax.study.report.own_data import own_data
from tljax.study.report.wording import Results

LEAVES_SHOWN = 24  # a longer manifest is folded away
ACTIONS = {
    'loaded': 'taken from the source under the same path',
    'renamed': 'taken from the source under another path',
    'resized': 'taken from the source and brought to another shape',
    'reset': 'left at its fresh initialisation',
    'injected': 'added to the architecture, fresh',
    'unused': 'in the source, not used',
}


def duration(value: Any) -> str:
    """Seconds, given as a number or as a measure with its interval.

    >>> duration({'mean': 8.14, 'low': 7.96, 'high': 8.31}), duration(8.14), duration(None)
    ('8.14 [7.96, 8.31] s', '8.1 s', 'not measured')
    """
    if not isinstance(value, Mapping):
        return seconds(value)
    return f'{estimate(value)} s' if known(value) else NOT_MEASURED


def _entries(manifest: Any) -> list[Mapping[str, Any]]:
    return list(manifest['entries'] if isinstance(manifest, Mapping) else manifest)


def _other_source(entry: Mapping[str, Any]) -> str:
    path, source_path = entry.get('path'), entry.get('source_path')
    return source_path if path and source_path and source_path != path else ''


def _shape_of(entry: Mapping[str, Any]) -> Any:
    shape = entry.get('shape')
    return entry.get('source_shape') if shape is None else shape


def _shape(shape: Any) -> str:
    if shape is None:
        return ''
    return f' {TIMES} '.join(str(size) for size in shape) if len(shape) else 'scalar'


def _size(shape: Any) -> int:
    size = 1
    for dimension in shape or ():
        size *= dimension
    return size


def reused(results: Results) -> list[Block]:
    """The manifest of surgery: counts by action, then every leaf."""
    if not results.get('manifest'):
        return [Paragraph('No manifest was recorded, so what was reused is not known here.')]
    entries = _entries(results['manifest'])
    if not entries:
        return [Paragraph('The manifest is empty: nothing was reused.')]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        groups.setdefault(entry['action'], []).append(entry)
    order = [*ACTIONS, *(action for action in groups if action not in ACTIONS)]
    totals = tuple(
        (
            action,
            str(len(groups[action])),
            f'{sum(_size(_shape_of(e)) for e in groups[action]):,}',
            ACTIONS.get(action, ''),
        )
        for action in order
        if action in groups
    )
    leaves = tuple(
        (
            entry.get('path') or entry.get('source_path') or '',
            entry['action'],
            _other_source(entry),
            _shape(_shape_of(entry)),
            entry.get('dtype') or '',
            entry.get('note') or '',
        )
        for entry in entries
    )
    head = ('Leaf', 'Action', 'Source path, if another', 'Shape', 'Type', 'Note')
    table = Table('Every leaf of the manifest', head, leaves, code=(0, 2))
    total_head = ('Action', 'Leaves', 'Values', 'Meaning')
    return [
        Table('Leaves by what was done with them', total_head, totals, numbers=(1, 2)),
        table if len(leaves) <= LEAVES_SHOWN else Fold(f'All {len(leaves)} leaves', (table,)),
    ]


def cost(results: Results) -> list[Block]:
    """Time of target training, with pretraining, and when that pays."""
    cost = results.get('cost') or {}
    examples = cost.get('pretraining_examples')
    rows = (
        ('Target training, transfer', duration(cost.get('transfer_seconds'))),
        ('Target training, scratch', duration(cost.get('scratch_seconds'))),
        (
            'Pretraining of the source, once',
            duration(cost.get('pretraining_seconds'))
            + ('' if examples is None else f' for {count(examples, "source example")}'),
        ),
        ('Transfer with pretraining', duration(cost.get('with_pretraining_seconds'))),
        ('Break-even', summary.break_even(results)),
    )
    blocks: list[Block] = [
        Table('Cost of one run, in wall-clock time', ('Part', 'Cost'), rows),
    ]
    if cost.get('note'):
        blocks.append(Paragraph(cost['note']))
    return blocks


def _text(value: Any) -> str:
    """A value of a card or a config in a table's cell."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, float):
        return plain_number(value)
    if isinstance(value, str | int):
        return str(value) if value != '' else 'none'
    if isinstance(value, list | tuple) and all(isinstance(v, str | int) for v in value):
        return ', '.join(str(v) for v in value) or 'none'
    return json.dumps(value, ensure_ascii=False)


def _pairs(mapping: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((str(key).replace('_', ' '), _text(value)) for key, value in mapping.items())


TARGET = {
    'name': 'Name',
    'shots': 'Labels a class',
    'train': 'Training examples of a seed',
    'validation': 'Validation examples',
    'test': 'Test examples',
    'classes': 'Classes',
}
SAID_ELSEWHERE = ('synthetic', 'curve_split', 'final_split')


def setting(results: Results) -> list[Block]:
    """The target data, the source's card, and the notes of the study."""
    data: dict[str, Any] = dict(results.get('data') or {})
    if data.get('shots') == 0:
        data['shots'] = 'all there are'
    target: dict[str, Any] = {
        TARGET.get(k, k): v for k, v in data.items() if k not in SAID_ELSEWHERE
    }
    synthetic = data.get('synthetic')
    head = ('Property', 'Value')
    blocks: list[Block] = [
        Table('Target data', head, _pairs(target)),
        Paragraph(
            f'Synthetic data: {synthetic}'
            if synthetic
            else 'No part of the data is declared to be synthetic.'
        ),
    ]
    blocks += own_data(results.get('rows') or {})
    card = results.get('source')
    if card:
        flat = {k: v for k, v in card.items() if not isinstance(v, Mapping) and v is not None}
        deep = {k: v for k, v in card.items() if isinstance(v, Mapping)}
        blocks.append(Table('Source, from its card', head, _pairs(flat)))
        if deep:
            blocks.append(Fold("The rest of the source's card", (_json('Card', deep),)))
    else:
        blocks.append(Paragraph('The source has no card, so its provenance is not known here.'))
    if results.get('notes'):
        blocks += [Paragraph('Notes:'), Bullets(tuple(results['notes']))]
    return blocks


def _json(label: str, value: Any) -> Code:
    return Code(label, json.dumps(value, indent=2, ensure_ascii=False))


def reproduce(results: Results) -> list[Block]:
    """Command, seeds, devices, versions and config."""
    rows = (
        ('Seeds', ', '.join(str(seed) for seed in results['seeds'])),
        ('Devices', results.get('devices') or NOT_MEASURED),
        ('Time of the whole comparison', seconds(results.get('seconds_total'))),
        ('Config fingerprint', results.get('fingerprint') or NOT_MEASURED),
    )
    return [
        Code('The command', results.get('command') or ''),
        Table('The run', ('Property', 'Value'), rows),
        Table('Versions', ('Package', 'Version'), tuple((results.get('versions') or {}).items())),
        Fold(
            'The whole config',
            (_json('Config', results.get('config') or {}),),
        ),
        Paragraph('The numbers behind this page, every digit of them, are in results.json.'),
    ]
