"""What a ranking found, as the content of results.json."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tljax.pretrained.shelf import UNKNOWN
from tljax.ranking.scores import SCORES
from tljax.study import compatibility
from tljax.study import halves as halves_lib
from tljax.study.compatibility import labels
from tljax.study.compatibility.about import about
from tljax.study.probe import share, steps
from tljax.study.rank import Ranking, Scored
from tljax.study.recommend import keeps_head, recommend
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
    able = eligible(scored)
    shares = first_shares(able)
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
        'sources': [
            source(one, by, able[0] if able else scored[0], shares.get(one.contender.name))
            for one in scored
        ],
        'eligible': [one.contender.name for one in able],
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
        'steps': ranking.config.train.steps,
        'versions': versions(),
        'devices': devices(),
    }
    return {**found, 'recommendation': dataclasses.asdict(recommend(found))}


def eligible(scored: Sequence[Scored]) -> list[Scored]:
    """The sources that can be started from, in their order: not disqualified, and trained.

    Untrained models are there to be compared with; alone they are told from one another.
    """
    usable = [one for one in scored if compatibility.worst(one.findings) != 'disqualified']
    return [one for one in usable if not one.contender.is_random] or usable


def first_shares(able: Sequence[Scored]) -> dict[str, float]:
    """Name -> the share of halves in which a source is first of those that can be started from.

    Nothing where there are no halves, or there is no other source to be before.
    """
    known = [one for one in able if len(one.halves_H)]
    if len(known) < 2:
        return {}
    shares = halves_lib.firsts(np.stack([one.halves_H for one in known]))
    return dict(zip((one.contender.name for one in known), shares, strict=True))


def source(one: Scored, by: str, first: Scored, first_share: float | None) -> dict[str, Any]:
    """One source's part of the results; `first` is the one to start from."""
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
        'first_share': first_share,
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
        'known': known_classes(one),
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


def known_classes(one: Scored) -> dict[str, Any] | None:
    """What a source knows of the target's classes; None where either's are not listed.

    'shared' is how many; 'same_order' whether they are the same, each in its place; 'head', then,
    the share of labelled examples that the source's own head gets right.
    """
    train, names = one.extracted.train, one.extracted.experiment.data.label_names
    theirs = about(one.card).label_names
    if train.kind != 'classes' or not names or not theirs:
        return None
    same, head = [*map(labels.key, theirs)] == [*map(labels.key, names)], None
    said_NxS = train.probabilities_NxS
    if same and said_NxS is not None and said_NxS.shape[1] == len(names):
        head = share(said_NxS.argmax(1) == train.labels_N, train.example_N).to_json()
    missing = len(labels.overlap(theirs, names).missing)
    return {
        'shared': len(names) - missing,
        'classes': len(names),
        'same_order': same,
        'head': head,
    }


def warnings(found: Mapping[str, Any]) -> list[str]:
    """What speaks against a source, a sentence each."""
    said = []
    if found['lift'] and found['lift']['low'] is not None and found['lift']['low'] <= 0:
        text = 'Not shown to be better than the same model before any training'
        # What its own head gets right shows that it has learnt something of use.
        text += (
            ', by its score.' if keeps_head(found) else ': what it learnt may be of no use here.'
        )
        said.append(text)
    return said + [f['what'] for f in found['findings'] if f['level'] != 'note']


def agreement(scored: Sequence[Scored], by: str, other: str) -> float | None:
    """Weighted Kendall tau between two scores' orders of the sources that have both."""
    pairs = [(one.scores[by], one.scores[other]) for one in scored]
    both = np.array([pair for pair in pairs if None not in pair], float).reshape(-1, 2)
    return weighted_tau(both[:, 0], both[:, 1])
