"""The linear probe: how long it may take, and how sure its number is."""

import time

import numpy as np
import pytest

from tljax.study import probe
from tljax.study.statistics import interval


def test_one_row_an_example_is_the_interval_of_its_mean():
    right = np.array([True, False, True, True, False, True])
    assert probe.share(right, np.arange(6)) == interval(right.astype(float))


def test_positions_of_a_text_are_drawn_together():
    """The interval of a ratio over texts of different lengths, against a bootstrap by loops."""
    rng = np.random.default_rng(0)
    example = np.repeat(np.arange(30), rng.integers(1, 40, 30))
    right = rng.random(len(example)) < rng.random(30)[example]  # texts are hard or easy
    found = probe.share(right, example)
    assert (found.mean, found.n) == (right.mean(), 30)
    drawn = []
    for _ in range(2000):
        texts = rng.integers(0, 30, 30)
        rows = np.concatenate([np.flatnonzero(example == text) for text in texts])
        drawn.append(right[rows].mean())
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert (found.low, found.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))
    alone = interval(right.astype(float))
    assert found.high - found.low > 1.5 * (alone.high - alone.low)


def test_thousands_of_classes_end_after_some_steps_without_a_warning():
    rng = np.random.default_rng(1)
    labels = np.concatenate([np.arange(1500), rng.integers(0, 20, 500)])
    x = rng.normal(size=(2000, 16)) + 3 * rng.normal(size=(1500, 16))[labels]
    assert probe.steps(2000, 512, 1500) < probe.MOST
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, 'steps', lambda *_: 3)
        began = time.monotonic()
        said = probe.predictions(x, labels, x[1500:])
    assert time.monotonic() - began < 30
    assert (said == labels[1500:]).mean() > 0.5
