"""The input pipeline alone: batches on the device, nothing trained on them.

Resident arrays gathered on the device and `tljax.data.stream` (both as training gets them, through
`Feed`), against what one writes by hand: numpy indexing, and TFDS's array_record through Grain.
For 8x8 PNG digits, and for 224x224 JPEG pictures made for this.
"""

import contextlib
import io
import tempfile

import common
import cv2
import jax
import numpy as np
import tensorflow_datasets as tfds

from tljax import config as config_lib
from tljax import mesh as mesh_lib
from tljax.data import Order, Split, open_data
from tljax.train.feed import Feed
from tljax.train.step import gather

SMALL = dict(digits=40, pictures=8, examples=256, repeats=5)
FULL = dict(digits=100, pictures=20, examples=2048, repeats=7)
BATCH = 128


class Pictures(tfds.core.GeneratorBasedBuilder):
    """Smooth noise, so that JPEG has something like a photograph's work."""

    VERSION = tfds.core.Version('1.0.0')
    count = 256

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(224, 224, 3), encoding_format='jpeg'),
                    'label': tfds.features.ClassLabel(num_classes=10),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples(), 'test': self._generate_examples()}

    def _generate_examples(self):
        rng = np.random.default_rng(0)
        for index in range(self.count):
            coarse = rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)
            image = cv2.resize(coarse, (224, 224), interpolation=cv2.INTER_CUBIC)
            yield index, {'image': cv2.imencode('.jpg', image)[1].tobytes(), 'label': index % 10}


def splits(name: str, directory: str = '') -> tuple[Split, Split]:
    """A set's train split, in memory and not."""
    config = config_lib.default().data
    config.update(name=name, dir=directory, holdout=0.0)
    found = []
    for config.in_memory in ('on', 'off'):
        found.append(open_data(config, seed=0).split('train'))
    found[0].arrays()
    return found[0], found[1]


def variants(resident: Split, stored: Split, steps: int):
    """Four ways to `steps` batches; each returns the last, on the device."""
    mesh = mesh_lib.data_mesh()
    order = Order(len(resident), BATCH, seed=0)
    feeds = {'resident': Feed(resident, mesh), 'stream': Feed(stored, mesh)}
    take = jax.jit(gather)
    arrays, epoch = resident.arrays(), np.arange(len(resident))

    def tljax(name):
        for data, indices in feeds[name].batches(order, 0, steps):
            last = take(data, indices)
        return last

    def by_hand():
        rng, last = np.random.default_rng(0), None
        for step in range(steps):
            first = step % (len(epoch) // BATCH) * BATCH
            if first == 0:
                rng.shuffle(epoch)
            chosen = epoch[first : first + BATCH]
            last = take(jax.device_put({k: v[chosen] for k, v in arrays.items()}), None)
        return last

    def with_grain():
        import grain

        examples = grain.MapDataset.source(stored.records.builder.as_data_source('train'))
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2 * BATCH)
        batches = examples.shuffle(seed=0).repeat().to_iter_dataset(options).batch(BATCH)
        for _, batch in zip(range(steps), batches, strict=False):
            last = take(jax.device_put(batch), None)
        return last

    return {
        'tljax, resident': lambda: tljax('resident'),
        'numpy indexing': by_hand,
        'tljax, streamed': lambda: tljax('stream'),
        'grain, array_record': with_grain,
    }


def show(title: str, resident: Split, stored: Split, steps: int, repeats: int) -> None:
    times = common.measure(variants(resident, stored, steps), repeats)
    rates = {row: f'{BATCH * steps / np.median(values):,.0f}' for row, values in times.items()}
    common.table(f'{title}: a batch of {BATCH}', times, per=steps, columns={'examples/s': rates})


def main() -> None:
    chosen = common.settings(__doc__, SMALL, FULL)
    common.header(__doc__)
    show('8x8x1 PNG', *splits('printed_digits'), chosen.digits, chosen.repeats)
    Pictures.count = chosen.examples
    with tempfile.TemporaryDirectory() as folder:
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):
            Pictures(data_dir=folder, file_format='array_record').download_and_prepare()
        made = splits('tfds:pictures', folder)
        show('224x224x3 JPEG', *made, chosen.pictures, chosen.repeats)


if __name__ == '__main__':
    main()
