"""`compare --sources`: the ranked sources trained, and what the ranking was worth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from tljax import config as config_lib
from tljax.errors import UserError
from tljax.study import compare, rank, ranked
from tljax.study.contenders import Contender
from tljax.study.report import ranking as ranking_report
from tljax.study.results import devices, versions
from tljax.study.worth import over_sources, regret, weighted_tau
from tljax.train.workdir import check, claim, read_json


def contest(
    config: ConfigDict, workdir: Path, command: str, top: int = 0, *, quiet: bool = False
) -> dict[str, Any]:
    """Ranks sources, compares the first ones with scratch each, and judges the ranking by that.

    A contest that was stopped goes on with what is missing.

    Args:
      config: the target's; `config.rank.sources` are the contenders.
      workdir: `ranking/` and `sources/NAME/` of it hold a ranking and the comparisons.
      command: the command line, for the reports.
      top: how many of the best ranked are trained; 0 is all of them.
      quiet: no progress bar.

    Returns:
      The content of results.json.

    Raises:
      UserError: as for `rank` and `compare`, or fewer than two sources can be trained.
    """
    check(workdir, config, 'compare')
    if top < 0 or top == 1:
        raise UserError(f'--top is {top}; it takes 2 or more, or 0 for all sources.')
    found = rank.rank(config, workdir / 'ranking', quiet=quiet)
    content = ranked.results(found, command)
    ranking_report.write(content, workdir / 'ranking' / 'report')
    claim(workdir, config, 'compare')
    # Random weights are a control of the ranking: trained, they are the scratch arm.
    able = [one.contender for one in found.scored if not one.contender.is_random]
    chosen = able[: top or len(able)]
    if len(chosen) < 2:
        raise UserError(
            'compare --sources takes two sources or more that have learnt something; for one, set '
            'config.source.uri.'
        )
    compared = {}
    for contender in chosen:
        logging.info('Comparing %s with scratch.', contender.name)
        compared[contender.name] = one_of(contender, workdir, command, quiet=quiet)
    return results(content, compared, config, command)


def one_of(contender: Contender, workdir: Path, command: str, *, quiet: bool) -> dict[str, Any]:
    """The comparison of one source with scratch; read, if it is complete."""
    directory = workdir / 'sources' / contender.name
    done = directory / 'report' / 'results.json'
    config = contender.config.copy_and_resolve_references()
    trained = workdir / 'ranking' / contender.name / 'source'
    if contender.spec.startswith('config:') and not config.source.workdir:
        config.source.workdir = str(trained)  # as rank has left it
    if done.exists():
        content = read_json(done)
        if content.get('fingerprint') == config_lib.fingerprint(config):
            return content
    return compare.compare(config, directory, command, quiet=quiet)


def results(
    ranking: Mapping[str, Any],
    compared: Mapping[str, Mapping[str, Any]],
    config: ConfigDict,
    command: str,
) -> dict[str, Any]:
    """The content of results.json.

    Args:
      ranking: the content of the ranking's results.json.
      compared: by the source's name, that of its comparison with scratch.
      config: the target's.
      command: the command line.
    """
    names = [one['name'] for one in ranking['sources'] if one['name'] in compared]
    metric = next(iter(compared.values()))['metric']
    sign = 1 if metric['higher_is_better'] else -1
    truth = {name: sign * compared[name]['arms']['transfer']['final']['mean'] for name in names}
    scores = {one['name']: one['scores'] for one in ranking['sources']}
    probes = {one['name']: one['probe']['mean'] for one in ranking['sources']}
    worth: dict[str, Any] = {}
    for score in (*ranking['scores'], 'probe'):
        if score not in ranking['comparable']:
            worth[score] = None
            continue
        given = {n: probes[n] if score == 'probe' else scores[n][score] for n in names}
        pairs = [(given[n], truth[n]) for n in names if given[n] is not None]
        worth[score] = judged(pairs, config.seed)
    return {
        'title': ranking['title'],
        'command': command,
        'by': ranking['by'],
        'trained': len(names),
        'ranked': len(ranking['sources']),
        'metric': metric,
        'best': max(names, key=lambda name: truth[name]),
        'regret': max(truth.values()) - truth[names[0]],
        'sources': [
            {
                'name': name,
                'score': scores[name][ranking['by']],
                'probe': probes[name],
                'verdict': compared[name]['verdict'],
                'transfer': compared[name]['arms']['transfer']['final'],
                'scratch': compared[name]['arms']['scratch']['final'],
                'gap': compared[name]['measures']['negative_transfer_gap'],
                'seconds': compared[name]['seconds_total'],
            }
            for name in names
        ],
        'worth': worth,
        'ranking_seconds': ranking['seconds'],
        'versions': versions(),
        'devices': devices(),
    }


def judged(pairs: Sequence[tuple[float, float]], seed: int) -> dict[str, Any] | None:
    """Weighted tau and top-1 regret of one score, over the sources that have it."""
    if not pairs:
        return None
    scores, truth = np.array(pairs, float).T
    return {
        'tau': over_sources(weighted_tau, scores, truth, seed).to_json(),
        'regret': over_sources(regret, scores, truth, seed).to_json(),
    }
