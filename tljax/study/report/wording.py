"""Measures in words: name, unit, what each one means, and what its interval allows to be said."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tljax.study import scales
from tljax.study.report.figures import (
    NOT_MEASURED,
    TIMES,
    M,
    estimate,
    has_interval,
    known,
    plain_number,
)

Results = Mapping[str, Any]  # what results.json holds; see tljax.study.report

ARMS = ('transfer', 'scratch')


@dataclasses.dataclass(frozen=True)
class Wording:
    """How a measure is shown.

    Attributes:
      title: its name for a reader.
      unit: follows the number; '{m}' becomes the name of the rescaled metric.
      meaning: what it says, in plain words.
      ahead, behind: what is to be said when the interval lies on transfer's or scratch's side.
      null: the value of no difference.
      sign: +1 where more favours transfer, -1 where less does.
      scale: factor from the stored number to the one shown (100 for per cent).
    """

    title: str
    unit: str
    meaning: str
    ahead: str
    behind: str
    null: float = 0.0
    sign: int = 1
    scale: float = 1.0


def _speedup(percent: int) -> Wording:
    return Wording(
        f'Speed-up to {percent} %',
        TIMES,
        f'Target examples that scratch needs to reach {percent} % of its own final score, divided '
        'by those that transfer needs for the same score. 2 is half the examples, 1 no difference.',
        'transfer needs fewer examples',
        'transfer needs more examples',
        null=1.0,
    )


# Definitions: shared MEASURES.md; jumpstart, area ratio: Taylor & Stone 2009, section 2; negative
# transfer gap: Wang et al. 2019, section 3.
MEASURES: dict[str, Wording] = {
    'jumpstart': Wording(
        'Start (jumpstart)',
        '{m}',
        'How far transfer is ahead before the first update on the target. A new head knows '
        'nothing yet, so with one this is near 0 whatever the features are worth.',
        'transfer starts higher',
        'scratch starts higher',
    ),
    'probe_jumpstart': Wording(
        'Start of a linear probe',
        '{m}',
        'How much better a linear classifier does on the features of the source than on those of '
        'an untrained network: what the features are worth before they are changed.',
        "the source's features are better",
        'untrained features are better',
    ),
    'slope': Wording(
        'Slope',
        '{m} per doubling of examples',
        'How much more transfer gains each time the number of target examples seen doubles, while '
        'scratch is still rising. An arm that starts higher has less left to gain.',
        'transfer rises faster',
        'scratch rises faster',
    ),
    'speedup_50': _speedup(50),
    'speedup_80': _speedup(80),
    'speedup_95': _speedup(95),
    'asymptote': Wording(
        'End of the curve (asymptote)',
        '{m}',
        'How far transfer is ahead where the learning curves end: over the last tenth of a curve '
        'that has levelled off, at the last evaluation of one that has not. The note says which.',
        'transfer ends higher',
        'scratch ends higher',
    ),
    'area_ratio': Wording(
        'Area under the curve',
        '% of scratch',
        'How much more area lies under the learning curve of transfer: the benefit over the whole '
        'of training, start, rise and end together.',
        'transfer is better over the whole run',
        'scratch is better over the whole run',
        scale=100.0,
    ),
    'negative_transfer_gap': Wording(
        'Negative transfer gap',
        '{m}',
        'Error of transfer minus error of scratch at the end, on examples never looked at before: '
        'below 0 transfer is better, above 0 it did harm. The verdict rests on this one.',
        'transfer ends with less error',
        'scratch ends with less error',
        sign=-1,
    ),
}


def wording(name: str) -> Wording:
    """The wording of a measure; one that isn't known here is shown under its own name."""
    return MEASURES.get(name) or Wording(name, '', '', 'above 0', 'below 0')


def side(name: str, measure: M | None) -> int | None:
    """+1 where the whole interval is on transfer's side, -1 on scratch's, 0 neither, None unknown.

    >>> side('speedup_50', {'mean': 2.0, 'low': 1.5, 'high': 2.6})
    1
    >>> side('negative_transfer_gap', {'mean': 0.02, 'low': -0.01, 'high': 0.05})
    0
    """
    if measure is None or not has_interval(measure):
        return None
    words = wording(name)
    if measure['low'] > words.null:
        return words.sign
    return -words.sign if measure['high'] < words.null else 0


def reading(name: str, measure: M | None) -> str:
    """What the interval of one measure allows to be said.

    >>> reading('slope', {'mean': 0.1, 'low': 0.05, 'high': 0.2})
    'transfer rises faster'
    >>> reading('slope', {'mean': 0.1, 'low': -0.05, 'high': 0.2})
    'no difference shown'
    """
    words, where = wording(name), side(name, measure)
    if where is None:
        return 'no interval, so nothing shown' if known(measure) else NOT_MEASURED
    return {1: words.ahead, -1: words.behind, 0: 'no difference shown'}[where]


def measure_text(name: str, measure: M | None, unit: str = 'm') -> str:
    """A measure with its interval and unit.

    >>> measure_text('speedup_50', {'mean': 2.0, 'low': 1.0, 'high': 3.1})
    '2.0× [1.0, 3.1]'
    >>> measure_text('area_ratio', {'mean': 0.121, 'low': 0.08, 'high': 0.162})
    '+12.1 [8.0, 16.2] % of scratch'
    """
    if measure is None or not known(measure):
        return NOT_MEASURED
    words = wording(name)
    text = estimate(measure, signed=words.null == 0, scale=words.scale)
    # A factor's sign stands before the interval, as in 2.0x [1.0, 3.1]; units stand after it.
    if words.unit == TIMES:
        head, space, interval = text.partition(' ')
        return f'{head}{TIMES}{space}{interval}'
    return f'{text} {words.unit.replace("{m}", unit)}'.rstrip()


def shown(results: Results, name: str) -> str:
    """One of the results' measures with its interval and unit, or 'not measured'."""
    unit = gap_unit(results) if name == 'negative_transfer_gap' else rescaled_name(results)[0]
    return measure_text(name, results['measures'].get(name), unit)


def delta(results: Results) -> float | None:
    """The difference called equivalent (config.study.delta), None where the config has none."""
    value = (results.get('config') or {}).get('study', {}).get('delta')
    return None if value is None else float(value)


def rescale(results: Results, values: Sequence[float]) -> list[float]:
    """The metric as m, higher is better: (metric - chance)/(ceiling - chance) where both exist.

    Args:
      results: its `metric` gives chance, ceiling and direction.
      values: in the metric's own unit.
    """
    metric = results['metric']
    scale = metric.get('chance'), metric.get('ceiling'), metric['higher_is_better']
    return scales.rescale(values, *scale).tolist()


def rescaled_name(results: Results) -> tuple[str, str]:
    """The rescaled metric's short name, and the sentence that explains it."""
    metric = results['metric']
    name, chance, ceiling = metric['name'], metric.get('chance'), metric.get('ceiling')
    if chance is not None and ceiling is not None:
        return f'rescaled {name}', (
            f'Rescaled {name}, m for short: 0 is chance ({plain_number(chance)} in {name}), '
            f'1 is the ceiling ({plain_number(ceiling)}).'
        )
    if metric['higher_is_better']:
        return name, f'Differences are in the unit of {name}, where higher is better.'
    return name, (
        f'Lower {name} is better, so its sign is turned in all measures but the gap: ahead means '
        f'less {name}.'
    )


def error_gaps(results: Results) -> tuple[list[float], list[float]]:
    """err_T - err_S of each seed: in the metric's own unit, and rescaled."""
    own = [results['arms'][arm].get('finals') or [] for arm in ARMS]
    sign = 1 if results['metric']['higher_is_better'] else -1
    both = []
    for transfer, scratch in (own, [rescale(results, values) for values in own]):
        both.append([b - a for a, b in zip(transfer, scratch, strict=True)])
    return [sign * gap for gap in both[0]], both[1]


def gap_is_rescaled(results: Results) -> bool:
    """Whether the gap at the end (and delta with it) is in m or in the metric's own unit.

    `metric.gap_unit`, 'm' or 'metric', says so; without it the finals do, since only one of the
    two units gives the mean that the gap has.
    """
    if results['metric'].get('gap_unit'):
        return results['metric']['gap_unit'] == 'm'
    gap = results['measures'].get('negative_transfer_gap')
    own, rescaled = error_gaps(results)
    if gap is None or not known(gap) or not own:
        return True
    distance = [abs(sum(gaps) / len(gaps) - gap['mean']) for gaps in (own, rescaled)]
    return distance[1] <= distance[0]


def gap_unit(results: Results) -> str:
    """The unit of the gap at the end and of delta."""
    return rescaled_name(results)[0] if gap_is_rescaled(results) else results['metric']['name']


def split_names(results: Results) -> tuple[str, str]:
    """Where the curves and where the finals were measured: (validation, test) unless data says."""
    data = results.get('data') or {}
    return data.get('curve_split') or 'validation', data.get('final_split') or 'test'
