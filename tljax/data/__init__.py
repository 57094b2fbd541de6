"""Data: where examples come from, which are used, and in which order."""

from tljax.data.augmentation import augment
from tljax.data.decode import Form, load_images
from tljax.data.pipeline import Order, eval_batches, stream
from tljax.data.preprocess import normalise
from tljax.data.sources import Data, open_data
from tljax.data.split import Split

__all__ = [
    'Data',
    'Form',
    'Order',
    'Split',
    'augment',
    'eval_batches',
    'load_images',
    'normalise',
    'open_data',
    'stream',
]
