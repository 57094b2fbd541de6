"""Strictness for every test: several devices, no silent broadcasting, warnings are errors."""

import os

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax
import pytest

from tljax.process import keep_memory

keep_memory()  # as launch.py does
jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What is left out of all tests is left out of the quick ones; the longest files come first."""
    items.sort(key=lambda item: ('end_to_end' not in item.nodeid, 'notebooks' not in item.nodeid))
    for item in items:
        if item.get_closest_marker('matrix'):
            item.add_marker('slow')


@pytest.fixture
def key():
    return jax.random.key(0)
