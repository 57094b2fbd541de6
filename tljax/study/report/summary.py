"""The top of a report: what the verdict means, and the comparison at a glance."""

import re

from tljax.study.report.document import Answer
from tljax.study.report.figures import (
    NOT_MEASURED,
    M,
    count,
    estimate,
    has_interval,
    known,
    places,
    plain_number,
)
from tljax.study.report.wording import (
    ARMS,
    Results,
    delta,
    gap_unit,
    reading,
    shown,
    side,
    split_names,
)
from tljax.study.statistics import FEWEST_SEEDS

VERDICTS = ('helpful', 'harmful', 'equivalent', 'undecided')


def verdict_name(results: Results) -> str:
    """helpful, harmful, equivalent or undecided.

    Raises:
      ValueError: any other, which no report has words for.
    """
    name = results['verdict']['name']
    if name not in VERDICTS:
        raise ValueError(f'verdict.name is {name!r}; a report knows {VERDICTS}')
    return name


def finals(results: Results) -> tuple[str, str]:
    """Final score of transfer and of scratch with intervals, to the same number of digits."""
    return alike(*(results['arms'][arm].get('final') for arm in ARMS))


def alike(transfer: M | None, scratch: M | None) -> tuple[str, str]:
    """Two estimates to the same number of digits."""
    digits = places(transfer, scratch)
    return estimate(transfer, digits=digits), estimate(scratch, digits=digits)


def against(pair: tuple[str, str]) -> str:
    """Two estimates without their intervals, transfer first.

    >>> against(('0.86 [0.85, 0.87]', '0.82 (no interval)'))
    '0.86 against 0.82'
    """
    return ' against '.join(re.split(r' [\[(]', text)[0] for text in pair)


def starts(results: Results) -> tuple[M | None, M | None]:
    """Each arm's score before its first update, None where its curve doesn't begin at 0."""
    found: list[M | None] = []
    for arm in ARMS:
        curve = results['arms'][arm].get('curve') or {}
        if curve.get('x') and curve['x'][0] == 0:
            found.append({key: curve[key][0] for key in ('mean', 'low', 'high')})
        else:
            found.append(None)
    return found[0], found[1]


def meaning(results: Results) -> tuple[str, ...]:
    """Paragraphs on what the verdict means here, and what it does not mean."""
    metric = results['metric']['name']
    transfer, scratch = finals(results)
    n = len(results['seeds'])
    how = (
        f'over {n} paired seeds; brackets are 95 % intervals'
        if n > 1
        else 'one seed, so there are no intervals'
    )
    ends = (
        f'At the end of the same budget, {metric} on the {split_names(results)[1]} split was '
        f'{transfer} with transfer and {scratch} from scratch ({how}).'
    )
    text = [f'{ends} {VERDICT_MEANINGS[verdict_name(results)](results)}', *_cautions(results)]
    return tuple(part for part in text if part)


def _gap(results: Results) -> M | None:
    return results['measures'].get('negative_transfer_gap')


def _within_delta(results: Results) -> bool:
    gap, width = _gap(results), delta(results)
    return (
        width is not None
        and gap is not None
        and has_interval(gap)
        and max(abs(gap['low']), abs(gap['high'])) <= width
    )


def _margin(results: Results) -> str:
    width = delta(results)
    unit = gap_unit(results)
    if width is None:
        return 'the margin that the config calls equivalent'
    return (
        f'{plain_number(width)} {unit}, the margin that the config calls equivalent (study.delta)'
    )


def _helpful(results: Results) -> str:
    small = (
        f' The benefit is small, though: it stays within {_margin(results)}.'
        if _within_delta(results)
        else ''
    )
    return (
        "The whole interval of the paired difference lies on transfer's side: on this target, "
        f'with this budget, starting from the source gave a better end.{small}'
    )


def _harmful(results: Results) -> str:
    small = (
        f' The harm is small, though: it stays within {_margin(results)}.'
        if _within_delta(results)
        else ''
    )
    return (
        "The whole interval of the paired difference lies on scratch's side: starting from this "
        f'source made the end worse. Train from scratch, or try another source.{small}'
    )


def _equivalent(results: Results) -> str:
    return (
        f'The whole interval of the paired difference lies within {_margin(results)}: in the end '
        f'it made no difference that matters which arm was taken.{_still_differs(results)}'
    )


def _undecided(results: Results) -> str:
    gap, verdict = _gap(results), results['verdict']
    if gap is None or not has_interval(gap):
        holds = ' There is no interval for the difference.'
    elif gap['low'] <= 0 <= gap['high'] and not _within_delta(results):
        holds = (
            ' The interval of the paired difference holds both no difference and differences '
            f'beyond {_margin(results)}.'
        )
    else:
        holds = f' The interval of {count(gap["n"], "seed")} is too narrow to be read.'
    more = verdict.get('more_seeds')
    if not more:
        settle = ' How many more seeds would settle it cannot be told from these runs.'
    elif f'{more:,} more' in verdict['sentence']:
        settle = ''
    else:
        settle = f' If mean and spread stay, about {count(more, "more seed")} would settle it.'
    return (
        'That is not enough to tell the ends apart, and not enough to call them equal: undecided '
        f'is not the same as no effect.{holds}{settle}{_still_differs(results)}'
    )


VERDICT_MEANINGS = {
    'helpful': _helpful,
    'harmful': _harmful,
    'equivalent': _equivalent,
    'undecided': _undecided,
}


def _still_differs(results: Results) -> str:
    """What differs on the way although the verdict on the end names no winner."""
    names = ('jumpstart', 'slope', 'speedup_95', 'area_ratio')
    found = [
        reading(name, results['measures'].get(name))
        for name in names
        if side(name, results['measures'].get(name))
    ]
    return f' On the way there they do differ: {"; ".join(found)}.' if found else ''


def _cautions(results: Results) -> list[str]:
    n = len(results['seeds'])
    cautions = []
    if n < FEWEST_SEEDS:
        few = 'There are no intervals' if n == 1 else 'Intervals from so few are too narrow'
        cautions.append(
            f'Only {count(n, "seed")}: read this as a smoke test. {few}; {FEWEST_SEEDS} seeds are '
            'the least for a result, 10 for a headline.'
        )
    synthetic = (results.get('data') or {}).get('synthetic')
    if synthetic:
        cautions.append(f'Synthetic data: {synthetic}')
    return cautions


def answers(results: Results) -> tuple[Answer, ...]:
    """The comparison at a glance: start, slope, end, examples saved."""
    higher = results['metric']['higher_is_better']
    better, worse = ('higher', 'lower') if higher else ('better', 'worse')
    end = {
        'helpful': 'Yes',
        'harmful': f'No, {worse}',
        'equivalent': 'No, the same',
        'undecided': 'Not settled',
    }[verdict_name(results)]
    faster, speedup = speedup_answer(results)
    final_split, name = split_names(results)[1], results['metric']['name']
    return (
        Answer(f'A {better} start?', _yes_no(results, 'jumpstart', worse), _start(results)),
        Answer(f'A {better} slope?', _yes_no(results, 'slope', worse), shown(results, 'slope')),
        Answer(f'A {better} end?', end, f'{against(finals(results))} {final_split} {name}'),
        Answer('Fewer examples?', faster, speedup),
    )


def _start(results: Results) -> str:
    before = starts(results)
    if not any(known(m) for m in before):
        return 'no evaluation before the first update'
    split, name = split_names(results)[0], results['metric']['name']
    return f'{against(alike(*before))} {split} {name} before the first update'


def _yes_no(results: Results, name: str, worse: str) -> str:
    measure = results['measures'].get(name)
    where = side(name, measure)
    if where is None:
        return 'Not shown' if known(measure) else 'Not measured'
    return {1: 'Yes', -1: f'No, {worse}', 0: 'Not shown'}[where]


def speedup_answer(results: Results) -> tuple[str, str]:
    """Whether transfer needs fewer examples, and the number behind that."""
    for percent in (95, 80, 50):
        name = f'speedup_{percent}'
        measure = results['measures'].get(name)
        if measure is not None and known(measure):
            text = f"{shown(results, name)} to {percent} % of scratch's end"
            return _yes_no(results, name, 'more'), text
    return 'Not measured', 'no threshold was measured'


def break_even(results: Results) -> str:
    """After how many target tasks pretraining has paid for itself, in words."""
    cost = results.get('cost') or {}
    tasks = cost.get('break_even_tasks')
    if tasks is not None:
        return f'pays off after {count(tasks, "target task")}'
    if cost.get('pretraining_seconds') is None:
        return f'break-even {NOT_MEASURED}'
    return 'no break-even: no saving per target task to set against it'
