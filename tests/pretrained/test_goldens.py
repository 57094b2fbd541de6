"""Every architecture against values that the original gave, without needing the original."""

import json

import numpy as np
import pytest
from parity_support import GOLDENS, Case, assert_golden, golden_files, leaves_of, ours

FILES = sorted(GOLDENS.glob('*.json'))


def test_there_are_goldens():
    assert FILES


@pytest.mark.parametrize('path', golden_files())
def test_same_values_as_the_original(path):
    golden = json.loads(path.read_text())
    assert_golden(golden, ours(Case(**golden['case'])))


def test_a_golden_notices_one_changed_leaf():
    golden = json.loads(FILES[0].read_text())
    case = Case(**golden['case'])
    leaves = leaves_of(case)
    path = next(path for path in leaves if path.endswith('/kernel'))
    leaves[path] = np.roll(leaves[path], 1)
    with pytest.raises(AssertionError, match='differs from the original'):
        assert_golden(golden, ours(case, leaves))
