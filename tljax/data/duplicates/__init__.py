"""Examples that two sets share: the same picture, text or recording, or nearly the same."""

from tljax.data.duplicates import pictures, sounds, texts
from tljax.data.duplicates.matching import Match

__all__ = ['Match', 'pictures', 'sounds', 'texts']
