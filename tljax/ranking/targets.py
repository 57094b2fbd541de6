"""What a score is asked to predict from the features: labels, numbers, several labels."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tljax.errors import UserError

Array = npt.NDArray[np.float64]
KINDS = ('classes', 'regression', 'multilabel', 'tokens', 'boxes')
CATEGORICAL = ('classes', 'tokens')


class NotDefined(UserError):
    """A score has no variant for this task; the message says which and why, in a sentence."""


@dataclasses.dataclass(frozen=True, eq=False)
class Targets:
    """Targets of N examples, checked.

    Attributes:
      kind: 'classes' (one label an example), 'regression', 'multilabel' (any number of labels),
        'tokens' (an example is a position in a text, its label the next token: one of thousands,
        many of which occur once or twice) or 'boxes' (detection, segmentation). Nothing is checked
        of the last, for which scores raise `NotDefined`. A score that leaves an example out leaves
        out one position, not the rest of its text.
      values: (N,) integers for classes and tokens; (N, T) floats for regression, (N,) is taken for
        T = 1; (N, C) zeros and ones for multilabel.
      classes: C for classes and tokens, where the last ones may have no example; 0 is the largest
        label + 1.

    Raises:
      ValueError: an unknown kind; a wrong shape; fewer than two examples; values that are not
        finite, no labels or not 0 and 1; one class only, or nothing that varies.

    >>> targets = Targets('classes', np.array([0, 2, 2]))
    >>> targets.classes, targets.counts_C, targets.columns()
    (3, array([1, 0, 2]), array([[1., 0.],
           [0., 1.],
           [0., 1.]]))
    """

    kind: str
    values: Any
    classes: int = 0

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f'targets are one of {", ".join(KINDS)}, not {self.kind!r}')
        values = self.values if self.kind == 'boxes' else np.asarray(self.values)
        if len(values) < 2:
            raise ValueError(f'scores need at least two examples, not {len(values)}')
        if self.categorical:
            values = _labels(values)
            object.__setattr__(self, 'classes', _number(values, self.classes))
        elif self.kind == 'regression':
            values = _numbers(values)
        elif self.kind == 'multilabel':
            values = _zeros_and_ones(values)
        object.__setattr__(self, 'values', values)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def categorical(self) -> bool:
        """Whether each example has one label of several: kinds 'classes' and 'tokens'."""
        return self.kind in CATEGORICAL

    @property
    def counts_C(self) -> npt.NDArray[np.int64]:
        """Examples of each class; of categorical targets only."""
        return np.bincount(self.values, minlength=self.classes)

    @property
    def present_N(self) -> npt.NDArray[np.int64]:
        """Labels renumbered so that every class has an example; of categorical targets only."""
        return np.unique(self.values, return_inverse=True)[1]

    def columns(self) -> Array:
        """What is to be regressed on, (N, columns): one-hot labels, or the values.

        Columns that are the same for all examples are left out, such as those of classes without
        an example: no source predicts them better than another.
        """
        if self.categorical:
            present_N = self.present_N
            return np.eye(present_N.max() + 1)[present_N]
        values_NxT = self.values.astype(np.float64)
        return values_NxT[:, np.ptp(values_NxT, 0) > 0]


def _labels(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if values.ndim != 1 or values.dtype.kind not in 'iu':
        raise ValueError(
            'labels are one integer an example, not an array of shape '
            f'{values.shape} and type {values.dtype}'
        )
    if values.min() < 0:
        raise ValueError(f'labels count from 0, but one is {values.min()}')
    if values.min() == values.max():
        raise ValueError(f'every label is {values[0]}: scores need at least two classes')
    return values.astype(np.int64)


def _number(labels_N: npt.NDArray[np.int64], classes: int) -> int:
    largest = int(labels_N.max())
    if 0 < classes <= largest:
        raise ValueError(f'a label is {largest}, but there are {classes} classes (from 0)')
    return classes or largest + 1


def _numbers(values: npt.NDArray[Any]) -> Array:
    if values.dtype.kind not in 'fiu' or values.ndim not in (1, 2):
        raise ValueError(
            'regression targets are (examples, targets) of numbers, not an array of shape '
            f'{values.shape} and type {values.dtype}'
        )
    values = values.reshape(len(values), -1).astype(np.float64)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values).all(1)).sum())
        raise ValueError(f'regression targets of {bad} of {len(values)} examples are not finite')
    return _varying(values)


def _zeros_and_ones(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if values.ndim != 2:
        raise ValueError(f'several labels are (examples, classes), not of shape {values.shape}')
    if not np.isin(values, (0, 1)).all():
        raise ValueError('several labels are 0 or 1 for each class; others were given')
    return _varying(values.astype(np.int64))


def _varying(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not (np.ptp(values, 0) > 0).any():
        raise ValueError('every example has the same targets: there is nothing to score')
    return values
