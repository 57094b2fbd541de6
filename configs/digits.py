"""Printed digits to handwritten digits: the embedded default, which needs no network.

    python launch.py compare --config=configs/digits.py --workdir=runs/digits

Arguments (after a colon):
  ''           target: scikit-learn's 1797 handwritten digits, 4 labels a class; the source is
               trained first, on digits rendered from fonts (synthetic), and its head is kept.
  source       that source.
  new_classes  where little can be expected: target handwritten 5-9, source handwritten 0-4, so the
               classes are new and the head is reset.
  zero_to_four the source of new_classes.
"""

from tljax import config as base
from tljax.models import arguments

SOURCE_SEED = 1000  # none of a study's: a fresh head must not be the source's own fresh head
VARIANTS = ('', 'source', 'new_classes', 'zero_to_four')


def get_config(arg: str = ''):
    if arg not in VARIANTS:
        raise ValueError(f'configs/digits.py has no {arg!r}; it takes one of {VARIANTS}')
    config = base.default()
    config.model = arguments('convnet', widths=(32, 64), hidden=64)
    if arg == 'source':
        return source(config)
    config.data.name = 'handwritten_digits'
    config.data.holdout = 0.25
    if arg == 'zero_to_four':
        config.seed = SOURCE_SEED
        config.title = 'Handwritten digits 0 to 4'
        config.data.classes = ('0', '1', '2', '3', '4')
        config.train.update(steps=600, batch_size=64, eval_every=200, save_every=200)
        return config
    config.title = 'Printed to handwritten digits'
    config.source.uri = 'config:configs/digits.py:source'
    config.data.shots = 4
    config.train.update(steps=200, batch_size=32, eval_every=20, save_every=100)
    if arg == 'new_classes':
        config.title = 'Handwritten digits 0 to 4, then 5 to 9'
        config.source.uri = 'config:configs/digits.py:zero_to_four'
        config.data.classes = ('5', '6', '7', '8', '9')
        config.transfer.reset = ('head/.*',)
    return config


def source(config):
    """The source, where data is plentiful: printed digits."""
    config.title = 'Printed digits (synthetic)'
    config.seed = SOURCE_SEED
    config.data.name = 'printed_digits'
    config.data.holdout = 0.1
    config.train.update(steps=1500, batch_size=64, eval_every=300, save_every=500)
    return config
