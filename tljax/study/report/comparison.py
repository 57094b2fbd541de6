"""The report of a comparison: what is written, and what is printed."""

import os
import textwrap
from pathlib import Path

from tljax.study.report import output, plots, sections, summary
from tljax.study.report.figures import MINUS, TIMES, seconds
from tljax.study.report.wording import ARMS, Results, shown, split_names

PICTURES = {'learning_curves': plots.learning_curves, 'paired_finals': plots.paired_finals}


def write(results: Results, directory: str | os.PathLike[str]) -> Path:
    """Writes the report on a comparison, each file whole or not at all.

    Args:
      results: the content of results.json. A measure M is {mean, low, high, n, note}, with None
        for what could not be measured; metrics are in the metric's own unit, measures rescaled as
        MEASURES.md says. Keys: verdict {name, sentence, more_seeds}, title, question, arms
        {transfer, scratch} of {final M, finals [one a seed], seconds M, examples, lr, trials
        [{lr, validation}], curve {x, mean, low, high}, asymptote M}, measures {name: M}, metric
        {name, chance, ceiling, higher_is_better}, cost, manifest, source (its card), data,
        command, config, fingerprint, versions, seeds, devices, seconds_total, notes.
      directory: made if it isn't there; an earlier report in it is replaced.

    Returns:
      The path of index.html.

    Raises:
      UserError: the directory can't be written.
      RunError: a number isn't finite or a value has no JSON form (nothing is written), or the
        disk is full.
      ValueError: the verdict's name is none that a report knows (results.json is written).
    """
    return output.write(results, directory, sections.document, lambda _: PICTURES)


def text_summary(results: Results) -> str:
    """The lines that a command prints at its end; plain ASCII as far as the results are.

    Args:
      results: as in `write`.
    """
    cost = results.get('cost') or {}
    starts = summary.alike(*summary.starts(results))
    curve_split, final_split = split_names(results)
    times = [seconds(cost.get(f'{arm}_seconds')) for arm in ARMS]
    rows = [
        ['', *ARMS],
        [f'{final_split} {results["metric"]["name"]} at the end', *summary.finals(results)],
        [f'{curve_split} {results["metric"]["name"]} at the start', *starts],
        ['training of one run', *times],
    ]
    lines = [
        *textwrap.wrap(
            f'{summary.verdict_name(results).upper()}: {results["verdict"]["sentence"]}', 96
        ),
        '',
        *output.columns(rows),
        '',
        f'jumpstart  {shown(results, "jumpstart")}',
        f'speed-up   {summary.speedup_answer(results)[1]}',
        f'cost       pretraining {seconds(cost.get("pretraining_seconds"))}; '
        f'{summary.break_even(results)}',
    ]
    return '\n'.join(lines).replace(MINUS, '-').replace(TIMES, 'x')
