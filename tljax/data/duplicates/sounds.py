"""Recordings that are the same but for loudness, compression, sampling rate or where they begin.

Haitsma and Kalker 2002, A Highly Robust Audio Fingerprinting System, section 4: at 5.5 kHz, in
frames of 0.37 s each 11.6 ms after the last, the energies of 33 bands from 300 to 2000 Hz, equally
wide in logarithm; bit m of a frame is the sign of how energy differs between bands m and m + 1, and
how that has changed since the last frame (equation 1). No library that installs without a program
of the system (Chromaprint) makes fingerprints, so this is written out here.

Two recordings are compared where a frame of theirs has the same 32 bits (section 5.2), and are the
same if, from there, the share of bits that differ is below the threshold for so many bits.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tljax.data.duplicates.matching import Match, digest, same, together

RATE = 5500  # Hz
FRAME = 2048  # samples: 0.37 s
HOP = 64  # samples: 11.6 ms
BANDS = 33
BLOCK = 1024  # frames whose spectra are in memory at once
LOWEST, HIGHEST = 300.0, 2000.0  # Hz
# The paper's own threshold, for 256 frames. A share of n bits of unrelated sounds scatters by
# 3 / (2 sqrt n) about 0.5 (section 4.3, neighbouring frames being alike), so short recordings must
# agree better. The paper's 0.35 is 9 such deviations below 0.5; of 420 x 420 spoken digits, none
# the same but many the same word of the same speaker, the most alike pair is 9.95 below.
LARGEST_SHARE = 0.35
DEVIATIONS = 10.5
SMALLEST_SHARE = 0.05  # allowed however short: those digits differ in 0.135 or more
LEAST_FRAMES = 16
OFFSETS = 8  # alignments tried for each recording
SILENT = 1e-6  # of the loudest frame's energy: 60 dB below it


class Print(NamedTuple):
    """The fingerprint of a recording.

    Attributes:
      bits_F: 32 of each frame, uint32.
      heard_F: whether the frame holds any sound: the bits of silence are alike in all recordings.
    """

    bits_F: np.ndarray
    heard_F: np.ndarray


def fingerprint(sound_T: np.ndarray, rate: int) -> Print:
    """The fingerprint of a recording: 32 bits a frame.

    Args:
      sound_T: samples of one channel, any scale.
      rate: of them, in Hz.

    Returns:
      Its frames; none where it is shorter than a tenth of a second.

    >>> fingerprint(np.sin(np.arange(16_000)), 16_000).bits_F.shape
    (85,)
    """
    from scipy.signal import resample_poly

    common = int(np.gcd(RATE, rate))
    sound = resample_poly(np.asarray(sound_T, np.float64), RATE // common, rate // common)
    if len(sound) < FRAME // 4:
        return Print(np.zeros(0, np.uint32), np.zeros(0, bool))
    # Half a frame of silence at both ends, or a word that is shorter than a frame had none.
    sound = np.pad(sound, FRAME // 2)
    frames_FxT = np.lib.stride_tricks.sliding_window_view(sound, FRAME)[::HOP]
    blocks = [band_energies(frames_FxT[k : k + BLOCK]) for k in range(0, len(frames_FxT), BLOCK)]
    energy_FxM = np.concatenate(blocks)
    across = energy_FxM[:, :-1] - energy_FxM[:, 1:]
    positive = (across[1:] - across[:-1]) > 0
    bits_F = np.packbits(positive, axis=1).view('>u4')[:, 0].astype(np.uint32)
    loudness_F = energy_FxM[1:].sum(1)
    return Print(bits_F, loudness_F > SILENT * loudness_F.max())


def band_energies(frames_FxT: np.ndarray) -> np.ndarray:
    """The energy of each band in each frame, (frames, BANDS)."""
    power_FxK = np.abs(np.fft.rfft(frames_FxT * np.hanning(FRAME)[None, :], axis=1)) ** 2
    edges = np.round(np.geomspace(LOWEST, HIGHEST, BANDS + 1) * FRAME / RATE).astype(int)
    return np.add.reduceat(power_FxK, edges, axis=1)[:, :BANDS]


def matches(left: Sequence[np.ndarray], right: Sequence[np.ndarray], rate: int) -> list[Match]:
    """The recordings on the right that are on the left too, each with the one most like it.

    Args:
      left: the one set: each recording (samples,) int16 or float, of one channel.
      right: the other.
      rate: of all of them, in Hz.

    Returns:
      One match for each recording on the right that has any; `similarity` is the share of bits
      that agree. Silence, and what is shorter than a
      quarter of a second, matches only when identical.

    >>> noise = np.random.default_rng(0).normal(size=16_000)
    >>> matches([noise[::-1], noise], [0.5 * noise], 16_000)[0].left
    1
    """
    exact = same([identity(s) for s in left], [identity(s) for s in right])
    near = near_matches([fingerprint(s, rate) for s in left], [fingerprint(s, rate) for s in right])
    return together(exact, near)


def identity(sound_T: np.ndarray) -> bytes:
    return digest(sound_T.dtype, sound_T.tobytes())


def near_matches(left: Sequence[Print], right: Sequence[Print]) -> Iterator[Match]:
    """Pairs of fingerprints that agree, laid over each other where a frame of both is the same."""
    if not left:
        return
    words = np.concatenate([p.bits_F[p.heard_F] for p in left])
    owners = np.concatenate([np.full(p.heard_F.sum(), i) for i, p in enumerate(left)])
    places = np.concatenate([np.flatnonzero(p.heard_F) for p in left])
    order = np.argsort(words, kind='stable')
    words = words[order]
    for j, wanted in enumerate(right):
        frames = np.flatnonzero(wanted.heard_F)
        lows = np.searchsorted(words, wanted.bits_F[frames], 'left')
        counts = np.searchsorted(words, wanted.bits_F[frames], 'right') - lows
        if not counts.sum():
            continue
        hits = order[
            np.concatenate([np.arange(a, a + n) for a, n in zip(lows, counts, strict=True)])
        ]
        shifts = places[hits] - np.repeat(frames, counts)
        laid = np.stack([owners[hits], shifts], 1)
        pairs, votes = np.unique(laid, axis=0, return_counts=True)
        for i, shift in pairs[np.argsort(-votes, kind='stable')[:OFFSETS]]:
            share, compared = differing(left[i], wanted, int(shift))
            if compared >= LEAST_FRAMES and share <= threshold(compared):
                yield Match(int(i), j, 1 - share, False)


def differing(left: Print, right: Print, shift: int) -> tuple[float, int]:
    """The share of bits that differ where two fingerprints overlap.

    Args:
      left: the one.
      right: the other.
      shift: frame k on the right lies over frame k + shift on the left.

    Returns:
      The share, and the number of frames that it is of: those that are heard on either side.
    """
    first, last = max(0, -shift), min(len(right.bits_F), len(left.bits_F) - shift)
    here, there = slice(first, last), slice(first + shift, last + shift)
    heard = left.heard_F[there] | right.heard_F[here]
    different = np.bitwise_count(left.bits_F[there] ^ right.bits_F[here])[heard]
    return (float(different.mean()) / 32 if len(different) else 1.0), len(different)


def threshold(frames: int) -> float:
    """The largest share of differing bits that counts as the same.

    >>> [round(threshold(frames), 2) for frames in (1000, 256, 60, 20)]
    [0.35, 0.33, 0.14, 0.05]
    """
    scatter = 1.5 / np.sqrt(32 * max(frames, 1))
    return float(np.clip(0.5 - DEVIATIONS * scatter, SMALLEST_SHARE, LARGEST_SHARE))
