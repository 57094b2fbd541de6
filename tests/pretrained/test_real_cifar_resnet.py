"""Published ResNet-20 weights, from file to predictions: does it tell cats and dogs?"""

import os
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

from tljax import models, trees
from tljax.pretrained import find

ROOT = Path(os.environ.get('TLJAX_REALDATA', '../shared/data'))
WEIGHTS = ROOT / 'weights' / 'resnet_cifar10'
PHOTOGRAPHS = ROOT / 'dogs_cats_breeds'
CLASSES = {'cat': 3, 'dog': 5}  # CIFAR-10's numbers


def pictures(kind, mean, std):
    """The middle square of each photograph, as 32 x 32 pixels."""
    made = []
    for path in sorted((PHOTOGRAPHS / kind).glob('*/*.jpg')):
        photograph = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        height, width, _ = photograph.shape
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = photograph[top : top + side, left : left + side]
        made.append(cv2.resize(square, (32, 32), interpolation=cv2.INTER_AREA))
    scaled = np.stack(made).astype(np.float32) / 255
    return (scaled - np.array(mean, np.float32)) / np.array(std, np.float32)


@pytest.mark.realdata
@pytest.mark.parametrize('ending', ['th', 'npz'])
def test_published_resnet20_knows_cats_and_dogs(ending):
    path = WEIGHTS / f'resnet20-12fca82f.{ending}'
    if not path.exists() or not PHOTOGRAPHS.exists():
        pytest.skip(f'there is no {path} or no {PHOTOGRAPHS}')
    found, card = find(str(path))
    assert (found.model, found.scheme, found.outputs) == ('cifar_resnet', 'akamaster', 10)
    leaves = found.read()
    config = {'name': found.model, **found.arguments}
    model = models.build(config, found.example, found.outputs)

    @jax.jit
    def logits(leaves, batch):
        variables = {
            kind: trees.map_with_path(lambda path, _: leaves[path], tree)
            for kind, tree in model.shapes().items()
        }
        module = models.merge(model.graph(train=False), *variables.values())
        return module(batch)

    right = {}
    for kind, number in CLASSES.items():
        image = pictures(kind, card.input['mean'], card.input['std'])
        right[kind] = (np.asarray(logits(leaves, {'image': image})).argmax(-1) == number).mean()
    print(f'ResNet-20 of CIFAR-10, ten classes, other photographs: {right}')
    # Chance is 0.1; one kind alone could be had by always saying it.
    assert right['cat'] > 0.8
    assert right['dog'] > 0.4
