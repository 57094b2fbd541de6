"""Pictures are scaled and cut as torchvision's transforms do it, to the last bit."""

import io

import numpy as np
import pytest
from PIL import Image

from tljax.data import Form
from tljax.data.decode import decode


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('size', [(50, 37), (37, 50), (24, 24), (20, 61), (300, 227)])
def test_the_same_pixels(torchvision, size, interpolation):
    from torchvision import transforms

    array = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(array).save(file, 'PNG')
    how = transforms.InterpolationMode(interpolation)
    theirs = transforms.Compose([transforms.Resize(28, how), transforms.CenterCrop(24)])
    ours = decode(file.getvalue(), Form((24, 24, 3), 'crop', 28, interpolation), upright=False)
    np.testing.assert_array_equal(ours, np.asarray(theirs(Image.fromarray(array))))
