"""Which source to start from? Features once, scores on them, and how sure the order is."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from absl import logging
from ml_collections import ConfigDict

from tljax import config as config_lib
from tljax import tasks
from tljax.data import Data
from tljax.errors import UserError, nearest
from tljax.progress import Progress
from tljax.ranking.scores import SCORES, check_kind
from tljax.ranking.spectrum import one_thread
from tljax.ranking.targets import NotDefined
from tljax.study import compatibility
from tljax.study import contenders as contenders_lib
from tljax.study.compatibility import Finding
from tljax.study.contenders import Contender
from tljax.study.extract import extract
from tljax.study.extracted import Extracted, Split
from tljax.study.probe import predictions, share
from tljax.study.statistics import Measure
from tljax.train import experiment as experiment_lib
from tljax.train.experiment import Source
from tljax.train.workdir import check, claim

Array = npt.NDArray[np.float64]
# What decides where config.rank.by is '': the first that every source has that is not disqualified,
# else the last.
DECIDING = {'tokens': ('log_likelihood', 'logme')}
OTHERWISE = ('logme',)
PROBE = 'probe'  # beside the scores, where these are named


def no_halves() -> Array:
    return np.zeros(0)


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
      findings: what speaks against it, the worst first.
      probe: share of validation examples, or positions, that a short linear probe gets right.
      halves_H: the deciding score on each half of the examples.
      untrained: the deciding score of the same model before any training; None if not asked for.
      untrained_H: the same on each half.
    """

    contender: Contender
    card: Mapping[str, Any]
    extracted: Extracted
    scores: dict[str, float | None]
    why_not: dict[str, str]
    seconds: dict[str, float]
    findings: list[Finding]
    probe: Measure
    halves_H: Array = dataclasses.field(default_factory=no_halves)
    untrained: float | None = None
    untrained_H: Array = dataclasses.field(default_factory=no_halves)


@dataclasses.dataclass(frozen=True)
class Ranking:
    """What `rank` found out.

    Attributes:
      config: the target's.
      by: the deciding score.
      names: of the scores.
      not_defined: name -> why there is no such score for this task, of those not in `names`.
      scored: the sources, the best first.
      comparable: those of the scores that can be compared between all these sources, and 'probe' if
        it can.
      together: what keeps the others from it.
      findings: what is wrong with the target's own data.
      seconds: of all.
    """

    config: ConfigDict
    by: str
    names: tuple[str, ...]
    not_defined: dict[str, str]
    scored: list[Scored]
    comparable: tuple[str, ...]
    together: list[Finding]
    findings: list[Finding]
    seconds: float


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
    kind = tasks.kind_of(config.task)
    names = chosen_scores(config, kind)
    check(workdir, config, 'rank')
    listed = contenders_lib.contenders(config, quiet=quiet)
    experiment_lib.build(listed[0].config, None)  # what is wrong with the data is told first
    claim(workdir, config, 'rank')
    with Progress(2 * len(listed), 'source', quiet=quiet) as progress:
        scored = []
        for contender in listed:
            scored.append(examine(contender, names, workdir, quiet=quiet))
            progress.update(1)
        by = decided(config.rank.by, kind, scored)
        for place, one in enumerate(scored):
            scored[place] = with_halves(one, by)
            progress.update(1)
    if all(one.scores[by] is None for one in scored):
        raise UserError(f'config.rank.by: {scored[0].why_not[by]} Take another score to rank by.')
    scored = in_order(scored, by)
    datas = {one.contender.name: one.extracted.experiment.data for one in scored}
    together = compatibility.check_together(datas, kind)
    others = {name: why_none(name, kind) for name in SCORES if name not in names}
    return Ranking(
        config=config,
        by=by,
        names=names,
        not_defined={name: why for name, why in others.items() if why},
        scored=scored,
        comparable=tuple(
            name
            for name in (*names, PROBE)
            if not together or (name in SCORES and SCORES[name].needs == 'likelihood')
        ),
        together=together,
        findings=compatibility.check_target(scored[0].extracted.experiment.data),
        seconds=time.monotonic() - began,
    )


def decided(by: str, kind: str, scored: Sequence[Scored]) -> str:
    """The deciding score: the one that is asked for, or what `DECIDING` says of this kind."""
    if by:
        return by
    able = [one for one in scored if compatibility.worst(one.findings) != 'disqualified']
    candidates = DECIDING.get(kind, OTHERWISE)
    everywhere = (n for n in candidates if all(one.scores[n] is not None for one in able or scored))
    return next(everywhere, candidates[-1])


def why_none(name: str, kind: str) -> str:
    """Why there is no such score for a kind of targets; '' where there is one."""
    try:
        check_kind(SCORES[name], kind)
    except NotDefined as error:
        return str(error)
    return ''


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


def chosen_scores(config: ConfigDict, kind: str) -> tuple[str, ...]:
    """The scores that are asked for, those that may decide among them; () is all there are.

    Raises:
      UserError: there is no such score, or the deciding one is not defined for the task.
    """
    by, asked = config.rank.by, tuple(config.rank.scores)
    for key, name in (*((('by', by),) if by else ()), *(('scores', name) for name in asked)):
        if name not in SCORES:
            raise UserError(f'config.rank.{key}: no score {name!r}.{nearest(str(name), SCORES)}')
    defined = tuple(name for name in SCORES if not why_none(name, kind))
    deciding = (by,) if by else DECIDING.get(kind, OTHERWISE)
    if why := why_none(deciding[-1], kind):
        remedy = f'Take one of {", ".join(defined)}.' if defined else 'No score is.'
        raise UserError(f'config.rank.by: {why} {remedy}')
    names = asked or defined
    return (*(name for name in deciding if name not in names), *names)


def examine(
    contender: Contender, names: tuple[str, ...], workdir: Path, *, quiet: bool = False
) -> Scored:
    """One source's features, scores and probe; no halves yet."""
    source, config = contender.load(workdir, quiet=quiet), contender.config
    extracted = extract(config, source)
    scores, why_not, seconds = all_scores(names, extracted.train, config.seed)
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
        findings=findings_of(contender, source, extracted),
        probe=probe,
    )


def with_halves(one: Scored, by: str) -> Scored:
    """The same with its deciding score on halves, and that of its model before any training."""
    config, untrained, untrained_H = one.contender.config, None, no_halves()
    halves_H = deciding(config, by, one.extracted.train)[1]
    if config.rank.untrained and not one.contender.is_random:
        before = extract(config, contenders_lib.untrained(config))
        untrained, untrained_H = deciding(config, by, before.train)
    return dataclasses.replace(one, halves_H=halves_H, untrained=untrained, untrained_H=untrained_H)


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
    names: tuple[str, ...], train: Split, seed: int
) -> tuple[dict[str, float | None], dict[str, str], dict[str, float]]:
    """Scores by name, None where one is not defined; why it is not; the seconds of each."""
    scores: dict[str, float | None] = {}
    why_not, seconds = {}, {}
    for name in names:
        began = time.monotonic()
        try:
            scores[name] = train.score(name, seed)
        except NotDefined as error:
            scores[name], why_not[name] = None, str(error)
        seconds[name] = time.monotonic() - began
    return scores, why_not, seconds


def deciding(config: ConfigDict, by: str, train: Split) -> tuple[float | None, Array]:
    """The deciding score of all examples and of each half; None and nothing if not defined."""
    try:
        drawn = train.halves(config.rank.resamples, config.seed)
        with one_thread():  # many small problems: 9 times faster where both cores are busy
            whole = train.score(by, config.seed)
            return whole, np.array([train.of(half).score(by, config.seed) for half in drawn])
    except NotDefined:
        return None, no_halves()


def probed(found: Extracted) -> Measure:
    """Validation accuracy of a linear probe, with its interval over validation examples."""
    train, validation = found.train, found.validation
    said = predictions(train.features_NxD, train.labels_N, validation.features_NxD)
    return share(said == validation.labels_N, validation.example_N)
