"""102 kinds of flowers, 10 photographs of each (oxford_flowers102), from weights of ImageNet.

    python launch.py compare --config=configs/image/flowers.py --workdir=runs/flowers

As configs/image/pets.py, which says what it needs. Arguments (after a colon):
  ''     from ResNet-50 of ImageNet.
  smoke  the same steps in seconds, without network; see pets.py.
"""

from tljax import config as base

VARIANTS = ('', 'smoke')


def get_config(arg: str = ''):
    if arg not in VARIANTS:
        raise ValueError(f'configs/image/flowers.py has no {arg!r}; it takes one of {VARIANTS}')
    config = base.read(f'configs/image/pets.py:{arg}')
    if arg == 'smoke':
        return config
    config.title = 'ImageNet to flowers'
    config.data.name = 'tfds:oxford_flowers102'
    config.data.update(validation='validation', holdout=0.0)
    config.train.update(steps=1000, eval_every=100)
    return config
