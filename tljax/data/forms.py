"""Forms: how what a set stores of an example becomes arrays of one shape."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np

from tljax.data.buckets import Buckets

AT_ONCE = 512


class Form(Protocol):
    """One kind of input: `tljax.data.decode.Form` is that of images, `tljax.data.text.form` has
    that of texts. A value: two equal ones give equal arrays.

    Attributes:
      columns: the features of the set that it reads.
      buckets: lengths that batches of its arrays may be cut to; None where all are of one.
      at_once: examples that an evaluation takes at a time, at most.
    """

    def __hash__(self) -> int: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def buckets(self) -> Buckets | None: ...

    @property
    def at_once(self) -> int: ...

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
