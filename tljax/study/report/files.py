"""The report of a comparison: results.json, report.md with its pictures, and index.html."""

import errno
import json
import math
import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tljax.errors import RunError, UserError
from tljax.study.report import markdown, page, plots, sections, summary
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
    directory = Path(directory)
    content = plain(results)
    # First what took the computing: should a picture fail, the numbers are kept.
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + '\n'
    _write_all(directory, {'results.json': text.encode()})
    document = sections.document(content)
    files = {f'{name}.png': draw(content, 'png') for name, draw in PICTURES.items()}
    files['report.md'] = markdown.markdown(document, {n: f'{n}.png' for n in PICTURES}).encode()
    pictures = {name: draw(content, 'svg') for name, draw in PICTURES.items()}
    files['index.html'] = page.html(document, pictures).encode()
    _write_all(directory, files)
    return directory / 'index.html'


def plain(value: Any, path: str = 'results') -> Any:
    """A copy of plain JSON types: numpy scalars and arrays, tuples and paths are converted.

    Raises:
      RunError: a number isn't finite, or a value has no JSON form; says where it stands.

    >>> plain({'lr': (0.1, 0.2)})
    {'lr': [0.1, 0.2]}
    """
    if hasattr(value, 'tolist'):  # numpy and jax arrays and scalars, without importing either
        value = value.tolist()
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RunError(
                f'{path} is {value}: a report holds finite numbers only. '
                'Give None, and say why in the note of the measure.'
            )
        return value
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item, f'{path}.{key}') for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f'{path}[{index}]') for index, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return str(value)
    raise RunError(f'{path} is a {type(value).__name__}, which JSON cannot hold: {value!r:.80}.')


def _write_all(directory: Path, files: Mapping[str, bytes]) -> None:
    """Writes files through temporary ones beside them, and turns errors into messages."""
    path = directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            path = directory / name
            _replace(path, content)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f'the report could not be written to {path}: {reason}. Make room, and run the '
                'same command again.'
            ) from error
        raise UserError(
            f'the report cannot be written to {path}: {reason}. Give a --workdir that can be '
            'written.'
        ) from error


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    try:
        with open(partial, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a crash could leave the new name with no content
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def text_summary(results: Results, directory: str | os.PathLike[str] = '') -> str:
    """The lines that a command prints at its end; plain ASCII as far as the results are.

    Args:
      results: as in `write`.
      directory: where the report lies; '' leaves that line out.
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
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = [
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines = [
        *textwrap.wrap(
            f'{summary.verdict_name(results).upper()}: {results["verdict"]["sentence"]}', 96
        ),
        '',
        *table,
        '',
        f'jumpstart  {shown(results, "jumpstart")}',
        f'speed-up   {summary.speedup_answer(results)[1]}',
        f'cost       pretraining {seconds(cost.get("pretraining_seconds"))}; '
        f'{summary.break_even(results)}',
    ]
    if str(directory):
        lines.append(f'report     {Path(directory) / "index.html"}')
    return '\n'.join(lines).replace(MINUS, '-').replace(TIMES, 'x')
