"""Pictures and sounds made up for tests of duplicates: all different, none simple."""

import cv2
import numpy as np


def scene(seed: int, height: int = 96, width: int = 96) -> np.ndarray:
    """A colour picture, (height, width, 3) uint8: soft patches of light, discs and bars."""
    rng = np.random.default_rng(seed)
    soft = rng.uniform(40, 215, (6, 6, 3)).astype(np.float32)
    picture = cv2.resize(soft, (width, height), interpolation=cv2.INTER_CUBIC)
    picture = np.ascontiguousarray(np.clip(picture, 0, 255).astype(np.uint8))
    for _ in range(6):
        colour = tuple(int(c) for c in rng.integers(20, 235, 3))
        x, y = int(rng.integers(width)), int(rng.integers(height))
        size = int(rng.integers(4, max(width // 5, 5)))
        if rng.random() < 0.5:
            cv2.circle(picture, (x, y), size, colour, -1)
        else:
            cv2.rectangle(picture, (x, y), (x + 2 * size, y + size), colour, -1)
    return picture


def scenes(count: int, first: int = 0, side: int = 96) -> list[np.ndarray]:
    return [scene(seed, side, side) for seed in range(first, first + count)]


def as_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """What a picture is after it was stored as JPEG."""
    encoded = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    flag = cv2.IMREAD_COLOR if picture.ndim == 3 else cv2.IMREAD_GRAYSCALE
    return cv2.imdecode(encoded, flag)


def word(seed: int, seconds: float = 0.7, rate: int = 16_000) -> np.ndarray:
    """A sound like a word, (samples,) float64: a buzz whose pitch and formants move."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch = rng.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.5, 3) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    knots = np.linspace(0, seconds, 6)
    formants = [np.interp(time, knots, rng.uniform(300, 2200, 6)) for _ in range(3)]
    sound = np.zeros_like(time)
    for harmonic in range(1, 24):
        loudness = sum(np.exp(-(((harmonic * pitch - f) / 120) ** 2)) for f in formants)
        sound += (loudness + 0.01) * np.sin(harmonic * phase)
    envelope = np.minimum(1, np.minimum(time, seconds - time) / 0.05)
    return 3000 * sound * envelope
