"""196 models of cars (cars196), from weights of ImageNet.

    python launch.py compare --config=configs/image/cars.py --workdir=runs/cars

As configs/image/pets.py, which says what it needs. Arguments (after a colon):
  ''     from ResNet-50 of ImageNet.
  smoke  the same steps in seconds, without network; see pets.py.
"""

from tljax import config as base

VARIANTS = ('', 'smoke')


def get_config(arg: str = ''):
    if arg not in VARIANTS:
        raise ValueError(f'configs/image/cars.py has no {arg!r}; it takes one of {VARIANTS}')
    config = base.read(f'configs/image/pets.py:{arg}')
    if arg == 'smoke':
        return config
    config.title = 'ImageNet to cars'
    config.data.name = 'tfds:cars196'
    config.train.update(steps=4000, eval_every=400)
    return config
