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

import numpy as np

from tljax.data.duplicates.matching import Match, digest, same, together

RATE = 5500  # Hz
FRAME = 2048  # samples: 0.37 s
HOP = 64  # samples: 11.6 ms
BANDS = 33
LOWEST, HIGHEST = 300.0, 2000.0  # Hz
# The paper's own threshold, for 256 frames. A share of n bits of unrelated sounds scatters by
# 3 / (2 sqrt n) about 0.5 (section 4.3, neighbouring frames being alike), so short recordings must
# agree better. The paper's 0.35 is 9 such deviations below 0.5; of 420 x 420 spoken digits, none
# the same but many the same word of the same speaker, the most alike pair is 9.95 below.
LARGEST_SHARE = 0.35
DEVIATIONS = 10.5
SMALLEST_SHARE = 0.05  # allowed however short: those digits differ in 0.135 or more
LEAST_FRAMES = 16
OFFSETS = 8  # alignments tried for each pair


def bits(sound_T: np.ndarray, rate: int) -> np.ndarray:
    """The fingerprint of a recording: 32 bits a frame.

    Args:
      sound_T: samples of one channel, any scale.
      rate: of them, in Hz.

    Returns:
      (frames,) uint32; none where it is shorter than a tenth of a second.

    >>> bits(np.sin(np.arange(16_000)), 16_000).shape
    (85,)
    """
    from scipy.signal import resample_poly

    common = int(np.gcd(RATE, rate))
    sound = resample_poly(np.asarray(sound_T, np.float64), RATE // common, rate // common)
    if len(sound) < FRAME // 4:
        return np.zeros(0, np.uint32)
    # Half a frame of silence at both ends, or a word that is shorter than a frame had none.
    sound = np.pad(sound, FRAME // 2)
    frames_FxT = np.lib.stride_tricks.sliding_window_view(sound, FRAME)[::HOP]
    power_FxK = np.abs(np.fft.rfft(frames_FxT * np.hanning(FRAME)[None, :], axis=1)) ** 2
    edges = np.geomspace(LOWEST, HIGHEST, BANDS + 1) * FRAME / RATE
    energy_FxM = np.add.reduceat(power_FxK, np.round(edges).astype(int), axis=1)[:, :BANDS]
    across = energy_FxM[:, :-1] - energy_FxM[:, 1:]
    positive = (across[1:] - across[:-1]) > 0
    return np.packbits(positive, axis=1).view('>u4')[:, 0].astype(np.uint32)


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
    near = near_matches([bits(s, rate) for s in left], [bits(s, rate) for s in right])
    return together(exact, near)


def identity(sound_T: np.ndarray) -> bytes:
    return digest(sound_T.dtype, sound_T.tobytes())


def near_matches(left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> Iterator[Match]:
    """Pairs of fingerprints that agree, from frames that are the same on."""
    if not left:
        return
    words = np.concatenate(left)
    owners = np.repeat(np.arange(len(left)), [len(b) for b in left])
    places = np.concatenate([np.arange(len(b)) for b in left])
    order = np.argsort(words, kind='stable')
    words = words[order]
    for j, wanted in enumerate(right):
        lows = np.searchsorted(words, wanted, 'left')
        highs = np.searchsorted(words, wanted, 'right')
        hits = np.concatenate([order[a:b] for a, b in zip(lows, highs, strict=True)] or [order[:0]])
        frames = np.repeat(np.arange(len(wanted)), highs - lows)
        if not len(hits):
            continue
        pairs, votes = np.unique(
            np.stack([owners[hits], places[hits] - frames], 1), axis=0, return_counts=True
        )
        for i, shift in pairs[np.argsort(-votes, kind='stable')[:OFFSETS]]:
            share, frames_compared = differing(left[i], wanted, int(shift))
            if share <= threshold(frames_compared):
                yield Match(int(i), j, 1 - share, False)


def differing(left: np.ndarray, right: np.ndarray, shift: int) -> tuple[float, int]:
    """The share of bits that differ where two fingerprints overlap, and how many frames do.

    Args:
      left: (frames,) uint32.
      right: likewise.
      shift: frame k on the right lies over frame k + shift on the left.
    """
    first, last = max(0, -shift), min(len(right), len(left) - shift)
    a, b = left[first + shift : last + shift], right[first:last]
    if len(a) < LEAST_FRAMES:
        return 1.0, len(a)
    return float(np.bitwise_count(a ^ b).mean()) / 32, len(a)


def threshold(frames: int) -> float:
    """The largest share of differing bits that counts as the same.

    >>> [round(threshold(frames), 2) for frames in (1000, 256, 60, 20)]
    [0.35, 0.33, 0.14, 0.05]
    """
    scatter = 1.5 / np.sqrt(32 * max(frames, 1))
    return float(np.clip(0.5 - DEVIATIONS * scatter, SMALLEST_SHARE, LARGEST_SHARE))
