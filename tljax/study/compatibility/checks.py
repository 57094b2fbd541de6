"""All checks of a source against a target, and of the target alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.data import Data, Split
from tljax.study.compatibility import inputs, labels, leakage, licences, rows, texts
from tljax.study.compatibility.about import about as about_of
from tljax.study.compatibility.finding import Finding, ordered
from tljax.transfer import Manifest

MOST = 10_000  # pictures of a split that are compared; about 5 s for each such split
ORDER = ('train', 'validation', 'test')


def check(
    config: Any,
    card: Mapping[str, Any] | None,
    data: Data,
    *,
    source_data: Data | None = None,
    manifest: Manifest | None = None,
    leaves: Mapping[str, Any] | None = None,
    commercial: bool = False,
    most: int = MOST,
) -> list[Finding]:
    """What speaks against starting from a source, before anything is trained.

    Args:
      config: of the target with this source, after `tljax.pretrained.inputs.applied`.
      card: of the source, `tljax.train.experiment.Source.card`; None tells nothing.
      data: the target's, opened with `config.data`.
      source_data: what the source was trained on, where it is at hand: that of
        `tljax.train.sources.config_of`, opened, for a `config:` source.
      manifest: surgery's record, if there is one: whether the head is reused.
      leaves: path -> the source's array, or its shape and dtype, if they are known.
      commercial: whether the model is to be used commercially.
      most: of a split with more examples so many are drawn (by a fixed seed) and compared.

    Returns:
      The worst first. What is wrong with the target alone is `check_target`'s.
    """
    source = about_of(card)
    found = inputs.findings(source, config, data.example, stored_shape(data))
    found += inputs.dtype_findings(source, leaves or {})
    found += texts.findings(source, config, data) if texts.tokenizer_in(data) else []
    reused = manifest.reused() if manifest else ()
    if data.label_names:
        head = any(path.startswith('head/') for path in reused)
        found += labels.findings(source, data.label_names, head)
    found += licences.findings(source, licence_of(data), commercial)
    found += leakage.by_name(source, data.full_name) if source_data is None else []
    if any(f.level == 'disqualified' for f in found):
        return ordered(found)  # cheap reasons are reason enough
    what, theirs = leakage.unit(data), source_data
    if what == 'pictures':
        seen = pixels(theirs) if theirs and leakage.unit(theirs) == what else None
        found += inputs.pixel_findings(source, pixels(data), seen)
    if theirs is not None and what and (what == leakage.unit(theirs) or is_text(data, theirs)):
        near = leakage.near_is_possible(what) is None
        train = theirs.split('train')
        learnt = leakage.sample(train, data.form, most, near, leakage.unit(theirs))
        found += leakage.with_source(source, learnt, samples(data, most, near))
    return ordered(found)


def check_target(data: Data, *, most: int = MOST) -> list[Finding]:
    """What is wrong with the target's own data, whatever the source.

    Args:
      data: the target's.
      most: of a split with more examples so many are drawn (by a fixed seed) and compared.

    Returns:
      The worst first.
    """
    found, what = rows.findings(data.account), leakage.unit(data)
    if not what:
        return ordered(found)
    if what == 'pictures':
        found += inputs.value_findings(pixels(data))
    missing = leakage.near_is_possible(what)
    found += [missing] if missing else []
    return ordered(found + leakage.between_splits(samples(data, most, missing is None)))


def check_together(datas: Mapping[str, Data], kind: str) -> list[Finding]:
    """What keeps scores of several sources from being compared.

    Args:
      datas: the target's data, as each source reads it, by the source's name.
      kind: of the task's targets.
    """
    tokenizers = {name: texts.tokenizer_in(data) for name, data in datas.items()}
    return ordered(texts.between_sources(tokenizers, kind))


def samples(data: Data, most: int, near: bool) -> list[leakage.Sample]:
    """What is compared of each split."""
    what = leakage.unit(data)
    return [leakage.sample(split, data.form, most, near, what) for split in splits_of(data)]


def is_text(*sets: Data) -> bool:
    """Whether all of them are texts, with labels or without."""
    return all('tokens' in data.example for data in sets)


def splits_of(data: Data) -> list[Split]:
    """The splits in the order in which they are learnt from."""
    return [data.splits[name] for name in ORDER if name in data.splits]


def pixels(data: Data) -> np.ndarray:
    """Some training pictures, (n, height, width, channels)."""
    split = data.split('train')
    chosen = leakage.positions(len(split), inputs.SAMPLE)
    if split.in_memory:
        return split.arrays()['image'][chosen]
    return split.records.decoded(split.rows[chosen])['image']


def stored_shape(data: Data) -> tuple[Any, ...]:
    """(height, width, channels) of the stored pictures, None where they differ."""
    features = data.split('train').records.builder.info.features
    return tuple(features['image'].shape) if 'image' in features else ()


def licence_of(data: Data) -> str:
    """What TFDS says of a set's licence, mostly ''."""
    info = data.split('train').records.builder.info
    return str(getattr(info.redistribution_info, 'license', '') or '').strip()
