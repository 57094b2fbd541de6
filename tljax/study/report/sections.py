"""A whole report as a document, and its first half: pictures, measures, the two arms."""

from collections.abc import Mapping
from typing import Any

from tljax.study.report import provenance, summary
from tljax.study.report.document import (
    Block,
    Bullets,
    Document,
    Paragraph,
    Picture,
    Section,
    Table,
)
from tljax.study.report.figures import (
    NOT_MEASURED,
    M,
    count,
    estimate,
    plain_number,
)
from tljax.study.report.wording import (
    ARMS,
    MEASURES,
    Results,
    gap_is_rescaled,
    reading,
    rescaled_name,
    shown,
    split_names,
    wording,
)


def document(results: Results) -> Document:
    """The whole report on one comparison.

    Args:
      results: see `tljax.study.report.comparison`.

    Raises:
      ValueError: the verdict is none that a report knows.
    """
    body = (
        Section('What the runs did', tuple(_pictures(results))),
        Section('The measures', tuple(_measures(results))),
        Section('The two arms', tuple(_arms(results))),
        Section('What was reused', tuple(provenance.reused(results))),
        Section('What it cost', tuple(provenance.cost(results))),
        Section('The setting', tuple(provenance.setting(results))),
        Section('How to reproduce it', tuple(provenance.reproduce(results))),
    )
    return Document(
        title=results.get('title') or 'Transfer compared with scratch',
        question=results.get('question') or '',
        verdict=summary.verdict_name(results),
        sentence=results['verdict']['sentence'],
        meaning=summary.meaning(results),
        answers=summary.answers(results),
        sections=body,
    )


def _pictures(results: Results) -> list[Block]:
    split, final_split = split_names(results)
    metric = results['metric']['name']
    transfer, scratch = summary.finals(results)
    n = len(results['seeds'])
    examples = results['arms']['transfer'].get('examples')
    budget = 'to the end' if examples is None else f'to {count(examples, "target example")}'
    runs = (
        f'mean of {n} seeds; bands are pointwise 95 % intervals'
        if n > 1
        else 'one seed, so there are no bands'
    )
    return [
        Picture(
            'learning_curves',
            f'Learning curves of {split} {metric} over target examples seen, mean of '
            f'{count(n, "seed")}. Start: {summary.answers(results)[0].detail}. '
            f'Final on the {final_split} split: transfer {transfer}, scratch {scratch}.',
            f'Learning curves on the {split} split, {budget}: {runs}.',
        ),
        Picture(
            'paired_finals',
            f'Final {final_split} {metric} of both arms for each seed, and the paired differences. '
            f'Transfer {transfer}, scratch {scratch}. Negative transfer gap: '
            f'{shown(results, "negative_transfer_gap")}.',
            f'The end, seed by seed, on the {final_split} split. A line joins the two arms of one '
            'seed, which saw the same examples in the same order.',
        ),
    ]


def _measures(results: Results) -> list[Block]:
    measures: Mapping[str, M | None] = results['measures']
    names = [*MEASURES, *(name for name in measures if name not in MEASURES)]
    gap = (
        ''
        if gap_is_rescaled(results)
        else f' The gap at the end is in the unit of {results["metric"]["name"]} itself.'
    )
    rows = []
    for name in names:
        measure = measures.get(name) or {}
        note = measure.get('note')
        meaning = wording(name).meaning + (f'\nNote: {note.rstrip(".")}.' if note else '')
        n = measure.get('n')
        rows.append(
            (
                wording(name).title,
                shown(results, name),
                '' if n is None else str(n),
                reading(name, measure),
                meaning.strip(),
            )
        )
    return [
        Paragraph(
            f'Each number is transfer against scratch, paired by seed. '
            f'{rescaled_name(results)[1]}{gap} Brackets are 95 % intervals (percentile bootstrap '
            'over paired seeds). "No difference shown" means that the interval holds the value of '
            'no difference, not that there is none.'
        ),
        Table(
            'Measures of the benefit of transfer',
            ('Measure', 'Estimate [95 % interval]', 'Seeds', 'Reading', 'What it means'),
            tuple(rows),
            numbers=(2,),
            prose=(4,),
        ),
    ]


def _arms(results: Results) -> list[Block]:
    split, final_split = split_names(results)
    arms, metric = results['arms'], results['metric']['name']
    finals, starts = summary.finals(results), summary.alike(*summary.starts(results))
    rows = [
        (
            arm.capitalize(),
            starts[i],
            finals[i],
            estimate(arms[arm].get('asymptote')),
            NOT_MEASURED if arms[arm].get('examples') is None else f'{arms[arm]["examples"]:,}',
            estimate(arms[arm].get('seconds')),
            plain_number(arms[arm].get('lr')),
        )
        for i, arm in enumerate(ARMS)
    ]
    head = (
        'Arm',
        f'Start: {split} {metric}',
        f'Final: {final_split} {metric}',
        f'End of the curve (asymptote): {rescaled_name(results)[0]}',
        'Examples seen',
        'Training time of a run, s',
        'Learning rate',
    )
    blocks: list[Block] = [
        Table('Both arms, mean [95 % interval]', head, tuple(rows), tuple(range(1, 7))),
    ]
    notes = [
        f'{arm.capitalize()}, {key}: {arms[arm][key]["note"]}.'
        for arm in ARMS
        for key in ('final', 'asymptote', 'seconds')
        if isinstance(arms[arm].get(key), Mapping) and arms[arm][key].get('note')
    ]
    if notes:
        blocks.append(Bullets(tuple(notes)))
    return [*blocks, *_tuning(results)]


def _tuning(results: Results) -> list[Block]:
    """Learning rates tried for each arm; the same number for both, or the report says so."""
    trials = {arm: results['arms'][arm].get('trials') or [] for arm in ARMS}
    if not any(trials.values()):
        return [Paragraph('No learning rate was tuned: each arm ran with the one in the config.')]
    split, metric = split_names(results)[0], results['metric']['name']
    tried: dict[float, dict[str, Any]] = {}
    for arm in ARMS:
        for trial in trials[arm]:
            tried.setdefault(trial['lr'], {})[arm] = trial.get('validation')

    def cell(arm: str, lr: float) -> str:
        if arm not in tried[lr]:
            return 'not tried'
        value = tried[lr][arm]
        text = NOT_MEASURED if value is None else f'{value:.3f}'
        return text + (' (chosen)' if lr == results['arms'][arm].get('lr') else '')

    rows = tuple((plain_number(lr), *(cell(arm, lr) for arm in ARMS)) for lr in sorted(tried))
    counts = {arm: len(trials[arm]) for arm in ARMS}
    fair = (
        f'{count(counts["transfer"], "learning rate")} tried for each arm'
        if counts['transfer'] == counts['scratch']
        else f'{counts["transfer"]} learning rates tried for transfer but {counts["scratch"]} for '
        'scratch, so the arms were not tuned alike'
    )
    head = ('Learning rate', 'Transfer', 'Scratch')
    return [
        Paragraph(f'{fair}, compared on the {split} split only.'),
        Table(f'Tuning: {split} {metric} at the end of a trial', head, rows, (1, 2)),
    ]
