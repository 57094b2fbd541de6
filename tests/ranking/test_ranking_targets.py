"""What targets are refused, and what of them is regressed on."""

import numpy as np
import pytest

from tljax.ranking import Targets


@pytest.mark.parametrize(
    ('kind', 'values', 'classes', 'says'),
    [
        ('class', [0, 1], 0, 'one of classes'),
        ('classes', [0], 0, 'two examples'),
        ('classes', [[0], [1]], 0, 'one integer an example'),
        ('classes', [0.0, 1.0], 0, 'float64'),
        ('classes', [-1, 1], 0, 'count from 0'),
        ('classes', [3, 3], 0, 'every label is 3'),
        ('classes', [0, 3], 3, 'a label is 3, but there are 3 classes'),
        ('regression', ['a', 'b'], 0, 'of numbers'),
        ('regression', [[[1.0]], [[2.0]]], 0, 'of numbers'),
        ('regression', [1.0, np.nan], 0, '1 of 2 examples'),
        ('regression', [1.0, 1.0], 0, 'the same targets'),
        ('multilabel', [0, 1], 0, 'several labels'),
        ('multilabel', [[0, 1], [2, 1]], 0, '0 or 1'),
        ('multilabel', [[0, 1], [0, 1]], 0, 'the same targets'),
        ('boxes', [None], 0, 'two examples'),
    ],
)
def test_targets_that_are_refused(kind, values, classes, says):
    with pytest.raises(ValueError, match=says):
        Targets(kind, values, classes)


def test_columns_leave_out_what_never_varies():
    labels = Targets('classes', np.array([0, 2, 2, 4]), 6)
    np.testing.assert_array_equal(labels.counts_C, [1, 0, 2, 0, 1, 0])
    np.testing.assert_array_equal(labels.present_N, [0, 1, 1, 2])
    np.testing.assert_array_equal(labels.columns(), [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]])
    several = Targets('multilabel', [[0, 1, 1], [0, 1, 0]])
    np.testing.assert_array_equal(several.columns(), [[1], [0]])
    assert several.columns().dtype == np.float64
    numbers = Targets('regression', np.array([[1.0, 5.0], [2.0, 5.0]], np.float32))
    np.testing.assert_array_equal(numbers.columns(), [[1], [2]])
