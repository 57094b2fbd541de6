"""Reads Orbax checkpoints, anybody's: nested trees of arrays, named with '/'."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tljax.pretrained.readers.weights import Weights


def read(path: Path, config: Mapping[str, Any]) -> Weights | None:
    """Opens an Orbax checkpoint; None if the directory is none."""
    return None
