"""Which source to start from? Features once, scores on them, and how sure the order is."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from absl import logging
from ml_collections import ConfigDict

from tljax import config as config_lib
from tljax.data import Data
from tljax.errors import UserError, nearest
from tljax.progress import Progress
from tljax.ranking.scores import SCORES, check_kind, score
from tljax.ranking.spectrum import Features
from tljax.ranking.targets import NotDefined, Targets
from tljax.study import compatibility
from tljax.study import contenders as contenders_lib
from tljax.study.compatibility import Finding
from tljax.study.contenders import Contender
from tljax.study.extract import Extracted, extract
from tljax.study.halves import halves
from tljax.study.probe import predictions
from tljax.study.statistics import Measure, interval
from tljax.train import experiment as experiment_lib
from tljax.train.experiment import Source
from tljax.train.workdir import check, claim

Array = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Scored:
    """One source on the target.

    Attributes:
      contender: which.
      card: of the source.
      extracted: its features.
      scores: by name; None where one is not defined.
      why_not: name -> why it is not.
      seconds: name -> what it took; 'features' is one of them.
      halves_H: the deciding score on each half of the examples.
      untrained: the deciding score of the same model before any training; None if not asked for.
      untrained_H: the same on each half.
      findings: what speaks against it, the worst first.
      probe: share of validation examples that a short linear probe gets right.
    """

    contender: Contender
    card: Mapping[str, Any]
    extracted: Extracted
    scores: dict[str, float | None]
    why_not: dict[str, str]
    seconds: dict[str, float]
    halves_H: Array
    untrained: float | None
    untrained_H: Array
    findings: list[Finding]
    probe: Measure


@dataclasses.dataclass(frozen=True)
class Ranking:
    """What `rank` found out.

    Attributes:
      config: the target's.
      names: of the scores.
      scored: the sources, the best first.
      findings: what is wrong with the target's own data.
      seconds: of all.
    """

    config: ConfigDict
    names: tuple[str, ...]
    scored: list[Scored]
    findings: list[Finding]
    seconds: float

    @property
    def by(self) -> str:
        return self.config.rank.by


def rank(config: ConfigDict, workdir: Path, *, quiet: bool = False) -> Ranking:
    """Puts the sources of `config.rank.sources` in order, without training any of them.

    Args:
      config: the target's, of `tljax.config.resolve`.
      workdir: where `config:` sources that must be trained first are kept.
      quiet: no progress bar.

    Raises:
      UserError: a source cannot be read or does not fit the data, or there is no such score.
    """
    began = time.monotonic()
    names = chosen_scores(config)
    check(workdir, config, 'rank')
    listed = contenders_lib.contenders(config, quiet=quiet)
    check_task(config.rank.by, experiment_lib.build(listed[0].config, None).task.kind)
    claim(workdir, config, 'rank')
    scored = []
    with Progress(len(listed), 'source', quiet=quiet) as progress:
        for contender in listed:
            scored.append(examine(contender, names, workdir, quiet=quiet))
            progress.update(1)
    by = config.rank.by
    if all(one.scores[by] is None for one in scored):
        raise UserError(f'config.rank.by: {scored[0].why_not[by]} Take another score to rank by.')
    scored = in_order(scored, by)
    findings = compatibility.check_target(scored[0].extracted.experiment.data)
    return Ranking(config, names, scored, findings, time.monotonic() - began)


def check_task(by: str, kind: str) -> None:
    """Raises UserError if the deciding score is not defined for a task's kind of targets."""
    try:
        check_kind(SCORES[by], kind)
    except NotDefined as error:
        others = [name for name, one in SCORES.items() if kind in one.kinds]
        remedy = (
            f'Take one of {", ".join(others)}.'
            if others
            else (
                'No score is. Compare each source with scratch instead: `launch.py compare`, with '
                '--config.source.uri.'
            )
        )
        raise UserError(f'config.rank.by: {error} {remedy}') from None


def in_order(scored: list[Scored], by: str) -> list[Scored]:
    """The sources from the highest score down; what is disqualified comes last, whatever it has."""
    return sorted(
        scored,
        key=lambda one: (
            compatibility.worst(one.findings) == 'disqualified',
            one.scores[by] is None,
            -(one.scores[by] or 0.0),
        ),
    )


def chosen_scores(config: ConfigDict) -> tuple[str, ...]:
    """The scores that are asked for, the deciding one among them.

    Raises:
      UserError: there is no such score.
    """
    names = tuple(config.rank.scores) or tuple(SCORES)
    for key, name in (('by', config.rank.by), *(('scores', name) for name in names)):
        if name not in SCORES:
            raise UserError(f'config.rank.{key}: no score {name!r}.{nearest(str(name), SCORES)}')
    return names if config.rank.by in names else (config.rank.by, *names)


def examine(
    contender: Contender, names: tuple[str, ...], workdir: Path, *, quiet: bool = False
) -> Scored:
    """One source's features, scores and probe."""
    source, config = contender.load(workdir, quiet=quiet), contender.config
    extracted = extract(config, source)
    scores, why_not, seconds = all_scores(names, extracted, config.seed)
    _, halves_H = deciding(config, extracted)
    untrained, untrained_H = None, np.zeros(0)
    if config.rank.untrained and not contender.is_random:
        untrained, untrained_H = deciding(config, extract(config, contenders_lib.untrained(config)))
    began = time.monotonic()
    probe = probed(extracted)
    seconds |= {'features': extracted.seconds, 'probe': time.monotonic() - began}
    logging.info('%s: %s', contender.name, scores)
    return Scored(
        contender=contender,
        card=source.card,
        extracted=extracted,
        scores=scores,
        why_not=why_not,
        seconds=seconds,
        halves_H=halves_H,
        untrained=untrained,
        untrained_H=untrained_H,
        findings=findings_of(contender, source, extracted),
        probe=probe,
    )


def findings_of(contender: Contender, source: Source, found: Extracted) -> list[Finding]:
    """What speaks against a source, beside its score."""
    if contender.is_random:
        return []
    experiment = found.experiment
    return compatibility.check(
        contender.config,
        source.card,
        experiment.data,
        source_data=source_data(source),
        manifest=experiment.manifest,
        leaves=source.leaves,
    )


def source_data(source: Source) -> Data | None:
    """What a model of our own was trained on, if it is still at hand."""
    if 'config' not in source.card:
        return None
    try:
        config = config_lib.resolve(source.card['config'])
        return experiment_lib.build(config, None).data
    except UserError as error:
        logging.info('The data of the source cannot be compared with: %s', error)
        return None


def all_scores(
    names: tuple[str, ...], found: Extracted, seed: int
) -> tuple[dict[str, float | None], dict[str, str], dict[str, float]]:
    """Scores by name, None where one is not defined; why it is not; the seconds of each."""
    kind = found.experiment.task.kind
    targets, features = Targets(kind, found.train.labels_N), Features(found.train.features_NxD)
    scores: dict[str, float | None] = {}
    why_not, seconds = {}, {}
    for name in names:
        began = time.monotonic()
        try:
            scores[name] = score(name, features, targets, found.train.probabilities_NxS, seed)
        except NotDefined as error:
            scores[name], why_not[name] = None, str(error)
        seconds[name] = time.monotonic() - began
    return scores, why_not, seconds


def deciding(config: ConfigDict, found: Extracted) -> tuple[float | None, Array]:
    """The deciding score of all examples and of each half; None and nothing if not defined."""
    train, rank = found.train, config.rank

    def on(rows: Any) -> float:
        said = None if train.probabilities_NxS is None else train.probabilities_NxS[rows]
        targets = Targets(found.experiment.task.kind, train.labels_N[rows])
        return score(rank.by, train.features_NxD[rows], targets, said, config.seed)

    try:
        drawn = halves(train.labels_N, rank.resamples, config.seed)
        return on(slice(None)), np.array([on(half) for half in drawn])
    except NotDefined:
        return None, np.zeros(0)


def probed(found: Extracted) -> Measure:
    """Validation accuracy of a linear probe, with its interval over validation examples."""
    train, validation = found.train, found.validation
    said = predictions(train.features_NxD, train.labels_N, validation.features_NxD)
    return interval((said == validation.labels_N).astype(float))
