"""Files of weights, whoever wrote them: names, shapes and dtypes now, numbers when asked for."""

from tljax.pretrained.readers.opening import open_weights
from tljax.pretrained.readers.weights import Tensor, Weights

__all__ = ['Tensor', 'Weights', 'open_weights']
