"""Recordings that two sets share: what is found, and bits by the paper's equation in loops."""

import itertools

import numpy as np
import pytest
from scenes import word
from scipy.signal import resample_poly

from tljax.data.duplicates import sounds

RATE = 16_000
COUNT = 16
RNG = np.random.default_rng(0)
COPIES = {
    'softer': lambda s: 0.2 * s,
    'as integers': lambda s: np.round(s).astype(np.int16),
    'noisy': lambda s: s + RNG.normal(0, 0.02 * s.std(), len(s)),
    'telephone': lambda s: resample_poly(resample_poly(s, 1, 2), 2, 1),
    'begins later': lambda s: s[700:],
    'begins earlier': lambda s: np.concatenate([np.zeros(1500), s]),
}


@pytest.fixture(scope='module')
def words():
    return [word(seed) for seed in range(COUNT)]


@pytest.mark.parametrize('kind', COPIES)
def test_copies_are_found_and_others_are_not(words, kind):
    others = [word(100 + seed) for seed in range(COUNT)]
    found = sounds.matches(words, [*others, *(COPIES[kind](s) for s in words)], RATE)
    assert [(m.left, m.right) for m in found] == [(k, COUNT + k) for k in range(COUNT)]
    assert not any(m.exact for m in found)
    assert all(0.85 < m.similarity <= 1 for m in found)


def test_the_same_samples_are_exact_however_short(words):
    short = words[0][:500]
    found = sounds.matches([words[1], short], [short.copy(), short[:499]], RATE)
    assert found == [(1, 0, 1.0, True)]


def test_silence_is_like_nothing_but_itself(words):
    quiet = [np.zeros(n) for n in (16_000, 20_000)]
    assert sounds.matches(quiet[:1], [quiet[1], words[0]], RATE) == []
    # Two words are not the same for the second of silence before them.
    padded = [np.concatenate([quiet[0], s]) for s in words[:2]]
    assert sounds.matches(padded[:1], padded[1:], RATE) == []


def test_nothing_is_found_among_nothing(words):
    assert sounds.matches([], words, RATE) == []
    assert sounds.matches(words, [], RATE) == []


def test_bits_are_those_of_equation_1():
    """Haitsma and Kalker: F(n, m) = 1 if E(n,m) - E(n,m+1) - (E(n-1,m) - E(n-1,m+1)) > 0."""
    sound = word(5, 0.3, sounds.RATE)
    padded = np.concatenate([np.zeros(1024), sound, np.zeros(1024)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2047)
    borders = [round(300 * (2000 / 300) ** (m / 33) * 2048 / 5500) for m in range(34)]
    energies = []
    for start in range(0, len(padded) - 2048 + 1, 64):
        spectrum = np.fft.fft(window * padded[start : start + 2048])
        power = spectrum.real**2 + spectrum.imag**2
        energies.append([sum(power[a:b]) for a, b in itertools.pairwise(borders)])
    wanted = []
    for before, now in itertools.pairwise(energies):
        number = 0
        for m in range(32):
            change = now[m] - now[m + 1] - (before[m] - before[m + 1])
            number = 2 * number + (change > 0)
        wanted.append(number)
    found = sounds.fingerprint(sound, sounds.RATE)
    assert found.bits_F.tolist() == wanted
    assert found.heard_F.all()


def test_blocks_of_frames_make_no_difference(words, monkeypatch):
    whole = sounds.fingerprint(words[0], RATE)
    monkeypatch.setattr(sounds, 'BLOCK', 7)
    assert (sounds.fingerprint(words[0], RATE).bits_F == whole.bits_F).all()


def test_the_share_that_differs():
    rng = np.random.default_rng(0)
    left = rng.integers(0, 2**32, 40, np.uint32)
    right = left[10:30].copy()
    right[:5] ^= 1
    heard = np.ones(40, bool)
    share, frames = sounds.differing(
        sounds.Print(left, heard), sounds.Print(right, heard[:20]), shift=10
    )
    assert (share, frames) == (5 / (20 * 32), 20)
    # Frames that are heard on neither side count for nothing.
    heard[10:15] = False
    quiet = sounds.Print(right, heard[10:30])
    assert sounds.differing(sounds.Print(left, heard), quiet, shift=10) == (0.0, 15)
    assert sounds.differing(sounds.Print(left, heard), quiet, shift=-19)[1] == 1
