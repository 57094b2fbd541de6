"""The config: every key with its default, checking, loading and fingerprints.

A recipe is a Python file with `get_config(arg)`; it starts from `default()` and changes what
differs.
"""

from tljax.config.checking import resolve
from tljax.config.defaults import default
from tljax.config.forms import differences, fingerprint, flat, plain
from tljax.config.recipes import load, path_of, read

__all__ = [
    'default',
    'differences',
    'fingerprint',
    'flat',
    'load',
    'path_of',
    'plain',
    'read',
    'resolve',
]
