"""What a ranking found, as the content of results.json."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tljax.pretrained.shelf import UNKNOWN
from tljax.ranking.scores import SCORES
from tljax.study import compatibility
from tljax.study import halves as halves_lib
from tljax.study.probe import steps
from tljax.study.rank import Ranking, Scored
from tljax.study.recommend import recommend
from tljax.study.results import devices, versions
from tljax.study.statistics import unmeasured
from tljax.study.worth import weighted_tau


def results(ranking: Ranking, command: str) -> dict[str, Any]:
    """The content of results.json.

    Args:
      ranking: of `rank`.
      command: the command line.
    """
    scored, by = ranking.scored, ranking.by
    train, validation = scored[0].extracted.train, scored[0].extracted.validation
    known = [one for one in scored if len(one.halves_H)]
    halves_SxH = np.stack([one.halves_H for one in known]) if known else np.zeros((0, 0))
    shares = dict(
        zip((one.contender.name for one in known), halves_lib.firsts(halves_SxH), strict=True)
    )
    found = {
        'title': ranking.config.title,
        'command': command,
        'by': by,
        'kind': train.kind,
        'paper': SCORES[by].paper,
        'scores': list(ranking.names),
        'papers': {name: SCORES[name].paper for name in ranking.names},
        'data': ranking.config.data.name,
        'not_defined': ranking.not_defined,
        'examples': train.examples,
        'available': train.total,
        'rows': len(train.labels_N),
        'classes': len(np.unique(train.labels_N)),
        'validation': validation.examples,
        'validation_rows': len(validation.labels_N),
        'seed': ranking.config.seed,
        'halves': ranking.config.rank.resamples,
        'sources': [source(one, by, scored[0], shares.get(one.contender.name)) for one in scored],
        'comparable': list(ranking.comparable),
        'agreement': {
            name: agreement(scored, by, name) if {by, name} <= {*ranking.comparable} else None
            for name in ranking.names
            if name != by
        },
        'together': [finding.to_json() for finding in ranking.together],
        'findings': [finding.to_json() for finding in ranking.findings],
        'seconds': ranking.seconds,
        'batch_size': ranking.config.train.batch_size,
        'versions': versions(),
        'devices': devices(),
    }
    return {**found, 'recommendation': dataclasses.asdict(recommend(found))}


def source(one: Scored, by: str, first: Scored, share: float | None) -> dict[str, Any]:
    """One source's part of the results."""
    value, train = one.scores[by], one.extracted.train
    width = train.features_NxD.shape[1]
    interval = unmeasured(0, one.why_not.get(by, ''))
    behind = lift = None
    if value is not None:
        interval = halves_lib.interval(value, one.halves_H)
        best = first.scores[by]
        if one is not first and best is not None:
            gap = first.halves_H - one.halves_H
            behind = halves_lib.interval(best - value, gap).to_json()
        if one.untrained is not None:
            gap = one.halves_H - one.untrained_H
            lift = halves_lib.interval(value - one.untrained, gap).to_json()
    found = {
        'name': one.contender.name,
        'uri': one.contender.spec,
        'model': one.contender.config.model.to_dict(),
        'interval': interval.to_json(),
        'first_share': share,
        'behind': behind,
        'lift': lift,
        'scores': one.scores,
        'why_not': one.why_not,
        'probe': one.probe.to_json(),
        'probe_steps': steps(len(train.labels_N), width, len(np.unique(train.labels_N))),
        'seconds': one.seconds,
        'bytes': one.extracted.nbytes,
        'width': width,
        'params': one.extracted.params,
        'card': card(one.card),
        'findings': [finding.to_json() for finding in one.findings],
        'worst': compatibility.worst(one.findings),
    }
    return {**found, 'warnings': warnings(found)}


def card(content: Mapping[str, Any]) -> dict[str, str]:
    """What a reader wants to know of where a source comes from."""
    keys = ('name', 'title', 'licence', 'training_data')
    told = {key: str(content.get(key) or UNKNOWN) for key in keys}
    if 'config' in content:  # a model of our own tells its data
        data = content['config'].get('data', {})
        told['training_data'] = data.get('name', UNKNOWN)
        told['title'] = content['config'].get('title', UNKNOWN)
    return told


def warnings(found: Mapping[str, Any]) -> list[str]:
    """What speaks against a source, a sentence each."""
    said = []
    if found['lift'] and found['lift']['low'] is not None and found['lift']['low'] <= 0:
        said.append(
            'Not shown to be better than the same model before any training: what it learnt may '
            'be of no use here.'
        )
    return said + [f['what'] for f in found['findings'] if f['level'] != 'note']


def agreement(scored: Sequence[Scored], by: str, other: str) -> float | None:
    """Weighted Kendall tau between two scores' orders of the sources that have both."""
    pairs = [(one.scores[by], one.scores[other]) for one in scored]
    both = np.array([pair for pair in pairs if None not in pair], float).reshape(-1, 2)
    return weighted_tau(both[:, 0], both[:, 1])
