"""Small ranking problems of every shape that a score must survive, drawn by hypothesis."""

from typing import Any, NamedTuple

import hypothesis
import numpy as np
from hypothesis import strategies as st

from tljax.ranking import Targets

# Few, the same ones each time, and nothing kept on disk.
quick = hypothesis.settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
SCALES = (1e-8, 1.0, 1e8)


class Problem(NamedTuple):
    features_NxD: np.ndarray
    targets: Targets


@st.composite
def problems(draw: Any, kind: str = 'classes', offsets: bool = True) -> Problem:
    """Features and targets of 2 to 12 examples.

    N < D, N = D and N > D; ranks below both; constant features; duplicate rows; tiny and huge
    scales. Singular values are either rounding or well above the tolerance, so that every way
    to compute a score agrees on the rank.

    Args:
      draw: given by hypothesis.
      kind: of the targets; classes are unbalanced, some with one example, some without.
      offsets: whether features may be far from 0.
    """
    count, width = draw(st.integers(2, 12)), draw(st.integers(1, 16))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    form = draw(st.sampled_from(['full', 'low rank', 'constants', 'duplicates', 'nothing']))
    features = rng.normal(size=(count, width))
    if form == 'low rank':
        rank = draw(st.integers(1, max(1, min(count, width) // 2)))
        features = rng.normal(size=(count, rank)) @ rng.normal(size=(rank, width))
    elif form == 'constants':
        features[:, : (width + 1) // 2] = rng.normal(size=(width + 1) // 2)
    elif form == 'duplicates':
        features[count // 2 :] = features[rng.integers(0, max(1, count // 2), count - count // 2)]
    elif form == 'nothing':
        features[:] = 0.1
    if offsets:
        features = features + draw(st.sampled_from([0.0, 3.0]))
    return Problem(features * draw(st.sampled_from(SCALES)), _targets(draw, kind, rng, features))


def _targets(draw: Any, kind: str, rng: np.random.Generator, features: np.ndarray) -> Targets:
    count = len(features)
    if kind == 'classes':
        number = draw(st.integers(2, min(4, count)))
        labels = np.concatenate([np.arange(number), rng.integers(0, number, count - number)])
        # Some follow the features, so that there is something to find.
        if draw(st.booleans()):
            labels[number:] = labels[:number][(features[number:, 0] > 0).astype(int)]
        labels = rng.permutation(labels) if draw(st.booleans()) else labels
        # The second class without an example, and one after the last.
        gap = draw(st.booleans())
        labels = labels + (labels > 0) if gap else labels
        return Targets('classes', labels, number + 1 + gap)
    noise = rng.normal(size=(count, 2))
    values = noise + features[:, :1] * draw(st.sampled_from([0.0, 3.0]))
    if kind == 'regression':
        return Targets('regression', values)
    values = (values > np.sort(values, 0)[count // 2 - 1]).astype(int)
    return Targets('multilabel', np.concatenate([values, np.zeros_like(values[:, :1])], 1))
