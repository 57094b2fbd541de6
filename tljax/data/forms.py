"""Forms: how what a set stores of an example becomes arrays of one shape."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np


class Form(Protocol):
    """One kind of input: `tljax.data.decode.Form` is that of images, `tljax.data.text.form` has
    that of texts. A value: two equal ones give equal arrays.

    Attributes:
      columns: the features of the set that it reads.
    """

    def __hash__(self) -> int: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def parts(self) -> Mapping[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of each array that it gives."""
        ...

    def read(self, stored: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The arrays of one example, from its columns as they are stored.

        Raises:
          ValueError: it cannot be read.
        """
        ...
