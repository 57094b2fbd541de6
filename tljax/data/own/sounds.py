"""WAV and FLAC files, brought to one channel of 16-bit samples at one rate."""

import io
import math

import numpy as np

from tljax.data.own.rows import BadRow

LONGEST = 600  # seconds; a longer one is no example but a recording to be cut


def plain_sound(encoded: bytes, rate: int = 0) -> tuple[np.ndarray, int]:
    """Reads a sound completely: channels are averaged, the rate is changed by a polyphase filter.

    Args:
      encoded: the bytes of a WAV or FLAC file (or another that libsndfile reads).
      rate: samples a second that are wanted; 0 leaves them.

    Returns:
      (samples,) int16, and samples a second.

    Raises:
      BadRow: it is no sound, damaged, empty, too long, or has values that are not finite.
    """
    import soundfile

    if not encoded:
        raise BadRow('the file is empty')
    try:
        with soundfile.SoundFile(io.BytesIO(encoded)) as file:
            if file.frames > LONGEST * file.samplerate:
                raise BadRow(f'it lasts {file.frames / file.samplerate:.0f} s; cut it into parts')
            values = file.read(dtype='float32', always_2d=True)
            frames, stored = file.frames, file.samplerate
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise BadRow(f'it is no sound, or damaged: {error}') from None
    if not len(values):
        raise BadRow('it has no samples')
    if len(values) < frames:
        raise BadRow(f'it is damaged: {len(values)} of {frames} samples are there')
    return to_samples(values.mean(1), stored, rate)


def to_samples(values: np.ndarray, stored: int, rate: int) -> tuple[np.ndarray, int]:
    """Values from -1 to 1, (samples,) float, as int16 at another rate (0 keeps it).

    Raises:
      BadRow: some are not finite.

    >>> to_samples(np.array([0.0, 0.5, -1.0, 2.0]), 8000, 0)
    (array([     0,  16384, -32768,  32767], dtype=int16), 8000)
    """
    if not np.isfinite(values).all():
        raise BadRow('it has values that are not finite')
    if rate and rate != stored:
        from scipy.signal import resample_poly

        common = math.gcd(rate, stored)
        values = resample_poly(values, rate // common, stored // common)
        stored = rate
    return np.clip(np.rint(values * 32768), -32768, 32767).astype(np.int16), stored
