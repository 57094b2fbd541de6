"""Photographs of pets, from weights of ImageNet, or cats from a model of dogs.

    python launch.py compare --config=configs/image/pets.py --workdir=runs/pets

For an accelerator; it needs oxford_iiit_pet, prepared (the message says how), and downloads
torchvision's ResNet-50 (98 MB). No augmentation. Arguments (after a colon):
  ''     37 breeds of cats and dogs, from ResNet-50 of ImageNet.
  cats   12 breeds of cats, 20 photographs of each, from a model of 25 breeds of dogs.
  dogs   that model.
  smoke  the same steps in seconds, without network, on real handwritten digits and ResNet-8;
         its source (printed digits, synthetic) is trained first. It shows that things work only.
"""

from tljax import config as base
from tljax.models import arguments

CATS = (
    *('Abyssinian', 'Bengal', 'Birman', 'Bombay', 'British_Shorthair', 'Egyptian_Mau'),
    *('Maine_Coon', 'Persian', 'Ragdoll', 'Russian_Blue', 'Siamese', 'Sphynx'),
)
DOGS = (
    *('american_bulldog', 'american_pit_bull_terrier', 'basset_hound', 'beagle', 'boxer'),
    *('chihuahua', 'english_cocker_spaniel', 'english_setter', 'german_shorthaired'),
    *('great_pyrenees', 'havanese', 'japanese_chin', 'keeshond', 'leonberger'),
    *('miniature_pinscher', 'newfoundland', 'pomeranian', 'pug', 'saint_bernard', 'samoyed'),
    *('scottish_terrier', 'shiba_inu', 'staffordshire_bull_terrier', 'wheaten_terrier'),
    'yorkshire_terrier',
)
# The publisher tells the first eight digits of the sha256, in the file's name.
RESNET50 = 'url:https://download.pytorch.org/models/resnet50-0676ba61.pth#sha256=0676ba61'
VARIANTS = ('', 'cats', 'dogs', 'smoke', 'smoke_source')


def get_config(arg: str = ''):
    if arg not in VARIANTS:
        raise ValueError(f'configs/image/pets.py has no {arg!r}; it takes one of {VARIANTS}')
    config = base.default()
    if arg.startswith('smoke'):
        return smoke(config, arg)
    config.title = 'ImageNet to pets'
    config.model = arguments('resnet', depth=50)
    config.source.uri = RESNET50
    config.data.name = 'tfds:oxford_iiit_pet'
    config.transfer.reset = ('head/.*',)
    config.optim.update(name='sgd', lr=0.01, weight_decay=1e-4, clip=1.0)
    config.train.update(steps=2000, batch_size=64, eval_every=200, save_every=500)
    config.study.update(seeds=5, trials=4, tuning_seeds=1, lr_low=1e-3, lr_high=0.1)
    if arg == 'cats':
        config.title = 'Breeds of dogs to breeds of cats'
        config.source.uri = 'config:configs/image/pets.py:dogs'
        config.data.update(classes=CATS, shots=20)
        config.train.update(steps=500, eval_every=50, save_every=250)
    if arg == 'dogs':
        config.title = 'ImageNet to breeds of dogs'
        config.seed = 1000  # none of a study's
        config.data.classes = DOGS
    return config


def smoke(config, arg: str):
    """Real data, but small enough for seconds on a CPU."""
    config.model = arguments('cifar_resnet', depth=8)
    config.data.update(channels=3, image_size=8)
    config.study.update(seeds=2, trials=1, eval_points=2)
    config.train.update(steps=4, batch_size=16, eval_every=2, save_every=4)
    if arg == 'smoke_source':
        config.title, config.seed, config.data.name = (
            'Printed digits (synthetic)',
            1000,
            'printed_digits',
        )
        return config
    config.title = 'Smoke test'
    config.source.uri = 'config:configs/image/pets.py:smoke_source'
    config.data.update(name='handwritten_digits', shots=4)
    config.transfer.reset = ('head/.*',)
    return config
