"""Reading other people's weights: readers, porters (name tables), cards."""

from tljax.pretrained.identify import Found
from tljax.pretrained.load import Pretrained, check_arguments, find, load
from tljax.pretrained.shelf import Card

__all__ = ['Card', 'Found', 'Pretrained', 'check_arguments', 'find', 'load']
