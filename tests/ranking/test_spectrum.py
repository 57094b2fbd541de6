"""The shared decomposition against NumPy's SVD of the whole matrix."""

import numpy as np
import pytest
from hypothesis import given
from ranking_problems import problems, quick

from tljax.ranking import spectrum as spectrum_lib
from tljax.ranking.spectrum import Features


@pytest.fixture(params=[None, 6], ids=['one block', 'small blocks'])
def block(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(spectrum_lib, 'BLOCK', request.param)


def check(features, centre):
    spectrum = spectrum_lib.of(features, centre)
    matrix = features.astype(np.float64)
    matrix = matrix - matrix.mean(0) if centre else matrix
    if centre and not np.ptp(features, 0).any():
        assert spectrum.rank == 0
        return
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    rank = int((values**2 > spectrum_lib.TOLERANCE * values[0] ** 2).sum())
    assert spectrum.rank == rank
    np.testing.assert_allclose(spectrum.values_K, values[:rank] ** 2, rtol=1e-6)
    projection = left[:, :rank] @ left[:, :rank].T
    y = np.random.default_rng(0).normal(size=(len(matrix), 3))
    rows = np.concatenate([rows for _, rows in spectrum.left_blocks()])
    np.testing.assert_allclose(rows @ rows.T, projection, atol=1e-6)
    np.testing.assert_allclose(rows @ spectrum.left(y), projection @ y, atol=1e-6)
    size = np.sqrt(values[0])
    components = spectrum.components(rank) / size
    np.testing.assert_allclose(components @ components.T * size**2, matrix @ matrix.T,
                               rtol=1e-6, atol=1e-6 * values[0] ** 2)  # fmt: skip
    np.testing.assert_allclose(
        spectrum.squared_lengths_N, (matrix**2).sum(1), rtol=1e-9, atol=1e-12 * values[0] ** 2
    )


@quick
@given(problems())
def test_as_the_svd(problem):
    check(problem.features_NxD, centre=True)
    check(problem.features_NxD, centre=False)


@pytest.mark.parametrize('shape', [(9, 4), (4, 9), (6, 6), (2, 1), (1, 3)])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_blocks_make_no_difference(shape, dtype, block):
    features = (np.random.default_rng(1).normal(size=shape) + 2).astype(dtype)
    check(features, centre=False)
    if shape[0] > 1:
        check(features, centre=True)


def test_a_constant_far_from_zero_is_no_direction():
    # 0.1 has no exact mean of 10,000: summed naively its mean differs in the last digits.
    features = np.full((10_000, 3), 0.1)
    assert Features(features).centred.rank == 0
    assert Features(features).raw.rank == 1


@pytest.mark.parametrize('shape', [(60, 25), (25, 60), (40, 40)])
@pytest.mark.parametrize('least', [1e-5, 1e-9])
def test_a_slow_decay_to_nothing_is_cut_where_it_says(shape, least):
    rng = np.random.default_rng(3)
    k = min(shape)
    left, right = (np.linalg.qr(rng.normal(size=(side, k)))[0] for side in shape)
    values = np.geomspace(1, least, k)
    spectrum = spectrum_lib.of(left * values @ right.T, centre=False)
    rank = int((values**2 > spectrum_lib.TOLERANCE).sum())
    assert spectrum.rank == rank
    assert rank == k or least < 1e-5
    # What is kept is as good as it says, down to the last.
    np.testing.assert_allclose(spectrum.values_K, values[:rank] ** 2, rtol=1e-4)
    rows = np.concatenate([rows for _, rows in spectrum.left_blocks()])
    np.testing.assert_allclose(rows.T @ rows, np.eye(rank), atol=1e-4)
    np.testing.assert_allclose(np.abs((rows * left[:, :rank]).sum(0)), 1, atol=1e-4)


def test_components_come_largest_first():
    x = np.random.default_rng(2).normal(size=(30, 5)) * [1, 9, 3, 1, 1]
    one = spectrum_lib.of(x, centre=True).components(1)
    assert one.shape == (30, 1)
    assert abs(np.corrcoef(one[:, 0], x[:, 1])[0, 1]) > 0.99


def test_float32_features_are_not_copied():
    features = np.ones((5, 2), np.float32)
    assert Features(features).values_NxD is features


@pytest.mark.parametrize(
    ('features', 'says'),
    [
        (np.zeros(3), r'shape \(3,\)'),
        (np.zeros((0, 2)), 'shape'),
        (np.zeros((2, 0)), 'shape'),
        ([[1.0], [np.nan], [np.inf]], '2 of 3 examples'),
        ([[1e150], [0.0]], 'reach 1e\\+150'),
        ([[1e-150], [0.0]], 'reach 1e-150'),
    ],
)
def test_features_that_are_refused(features, says):
    with pytest.raises(ValueError, match=says):
        Features(features)
