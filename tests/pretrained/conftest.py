"""The originals that our models are compared with, where they are installed."""

import warnings

import pytest


@pytest.fixture(scope='session')
def torchvision():
    """The real torchvision; its compiled operators, which no classifier needs, may be missing."""
    torch = pytest.importorskip('torch')
    original = torch.library.register_fake
    torch.library.register_fake = lambda *args, **kwargs: lambda function: function
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return pytest.importorskip('torchvision')
    finally:
        torch.library.register_fake = original
