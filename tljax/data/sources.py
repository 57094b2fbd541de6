"""Opens the data that a config names: which rows are train, validation and test."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tljax.data import augmentation, prepared, splits
from tljax.data.decode import Form
from tljax.data.split import Records, Split
from tljax.errors import UserError, nearest

IN_MEMORY = 10**9  # decoded bytes of a split up to which `auto` holds it in memory


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """An opened data set.

    Attributes:
      label_names: of the classes, in the order of the labels.
      example: one decoded example: 'image' (height, width, channels) uint8, 'label' () int32.
      form: how an image file becomes one.
      splits: 'train' (the pool that subsets are drawn from; validation is not in it), 'test', and
        'validation' unless there is none.
      shots: labels a class in a subset; 0 is all.
      full_name: what TFDS calls it, with its version.
      description: what it is, in a few sentences.
      synthetic: '' for real data, else a sentence on how it was made.
      account: of the user's own data, what became of its rows; see `tljax.data.own.account`.
    """

    label_names: tuple[str, ...]
    example: Mapping[str, jax.ShapeDtypeStruct]
    form: Form
    splits: Mapping[str, Split]
    shots: int
    full_name: str
    description: str
    synthetic: str
    account: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def split(self, name: str) -> Split:
        """'train', 'validation' or 'test'.

        Raises:
          UserError: there is no such split; for 'validation', when the config sets none aside.
        """
        if name in self.splits:
            return self.splits[name]
        if name == 'validation':
            raise UserError(
                'There are no validation examples: config.data.validation is empty and '
                'data.holdout is 0. Set one of them.'
            )
        raise UserError(f'There is no split {name!r}.{nearest(name, self.splits)}')

    def subset(self, seed: int) -> np.ndarray:
        """The examples that a run with this seed trains on.

        Returns:
          Positions in the train pool, ascending, int32: `shots` of each class, or all. With one
          seed, a subset with fewer shots is part of one with more.

        Raises:
          UserError: a class has too few.
        """
        labels = self.split('train').labels() if self.shots else np.zeros(len(self.split('train')))
        return splits.draw_shots(labels, self.shots, seed, self.label_names)

    def record(self, seed: int) -> dict[str, Any]:
        """Which examples a run with this seed uses, for its splits.json.

        Returns:
          For JSON: 'source', and for each split the TFDS split string and 'indices', the rows
          within it; null stands for all of them.
        """
        found: dict[str, Any] = {'source': self.full_name, 'seed': int(seed)}
        for name, split in self.splits.items():
            rows = split.rows[self.subset(seed)] if name == 'train' else split.rows
            whole = len(rows) == len(split.records)
            found[name] = {
                'split': split.records.spec,
                'count': len(rows),
                'indices': None if whole else rows.tolist(),
            }
        return found


def open_data(config: Any, seed: int) -> Data:
    """Opens a data set and decides which of its examples are train, validation and test.

    Args:
      config: the section `config.data` (see `tljax.config.default`).
      seed: of the draw of validation examples; `Data.subset` takes its own.

    Raises:
      UserError: no such set, or it is not prepared (nothing is downloaded); unknown, empty or
        overlapping splits; unknown classes; images or labels that don't fit; an unwritable folder.
      RunError: no space left, or damaged files.
    """
    builder = prepared.open_set(config)
    info = builder.info
    check_features(info, config.name)
    names = tuple(info.features['label'].names)
    keep = chosen_classes(config.classes, names)
    relabel = np.full(len(names), -1, np.int32)
    relabel[keep] = np.arange(len(keep))
    form = image_form(config, info)
    check_normalisation(config, form.shape[2])
    augmentation.check(config.augment, {'image': jax.ShapeDtypeStruct(form.shape, np.uint8)})

    specs = {'train': config.train, 'test': config.test}
    validation = config.validation or prepared.own_validation(config.name, info.splits)
    if validation:
        specs['validation'] = validation
    found = {n: (s, splits.intervals(s, f'data.{n}', info.splits)) for n, s in specs.items()}
    splits.check_disjoint({f'data.{name}': value for name, value in found.items()})
    records = {name: Records(builder, spec, form) for name, spec in specs.items()}
    rows = {name: _kept(name, part, relabel) for name, part in records.items()}
    if not validation and config.holdout:
        labels = relabel[records['train'].labels[rows['train']]]
        held = splits.draw_holdout(labels, config.holdout, seed)
        records['validation'] = records['train']
        rows['validation'] = rows['train'][held]
        rows['train'] = np.delete(rows['train'], held)
    size = int(np.prod(form.shape))
    made = {
        name: Split(name, records[name], part, relabel, _in_memory(config, len(part) * size))
        for name, part in rows.items()
    }
    return Data(
        label_names=tuple(names[label] for label in keep),
        example={
            'image': jax.ShapeDtypeStruct(form.shape, np.uint8),
            'label': jax.ShapeDtypeStruct((), np.int32),
        },
        form=form,
        splits=made,
        shots=config.shots,
        full_name=info.full_name,
        description=' '.join((info.description or '').split()),
        synthetic=getattr(builder, 'SYNTHETIC', ''),
        account=prepared.account_of(builder),
    )


def _kept(name: str, records: Records, relabel: np.ndarray) -> np.ndarray:
    """Rows whose class is kept, ascending int32; labels are read only if classes are left out."""
    if (relabel >= 0).all():
        return np.arange(len(records), dtype=np.int32)
    rows = np.flatnonzero(relabel[records.labels] >= 0).astype(np.int32)
    if not len(rows):
        raise UserError(
            f'config.data.classes: {records.spec!r} (data.{name}) has no examples of them.'
        )
    return rows


def _in_memory(config: Any, size: int) -> bool:
    return config.in_memory == 'on' or (config.in_memory == 'auto' and size < IN_MEMORY)


def check_features(info: Any, name: str) -> None:
    """Checks that a set has images with one label each.

    Raises:
      UserError: lists the features that it has.
    """
    import tensorflow_datasets as tfds

    wanted = {'image': tfds.features.Image, 'label': tfds.features.ClassLabel}
    has = dict(info.features.items()) if hasattr(info.features, 'items') else {}
    for key, kind in wanted.items():
        if not isinstance(has.get(key), kind):
            kinds = ', '.join(f'{k} ({type(v).__name__})' for k, v in has.items()) or 'none by name'
            raise UserError(
                f'config.data.name={name!r}: image classification needs a feature {key!r} of the '
                f'kind {kind.__name__}; the set has {kinds}.'
            )
    if info.features['image'].np_dtype != np.uint8:
        raise UserError(
            f'config.data.name={name!r}: its images are {info.features["image"].np_dtype}; '
            'only uint8 is supported.'
        )


def image_form(config: Any, info: Any) -> Form:
    """How the images of a set are decoded.

    Raises:
      UserError: images of several sizes without `image_size`, or an impossible size or channels.
    """
    height, width, stored = info.features['image'].shape
    if config.image_size < 0:
        raise UserError(f'config.data.image_size is {config.image_size}; it must be 0 or more.')
    if config.image_size:
        height = width = config.image_size
    elif height is None or width is None:
        raise UserError(
            f'config.data.image_size: the images of {config.name} differ in size. Set it to the '
            'pixels a side that all of them are to be scaled to, such as 224.'
        )
    if (config.resize > 0 and config.resize < config.image_size) or config.resize < -1:
        raise UserError(
            f'config.data.resize is {config.resize}: the shorter side, of which the middle '
            f'image_size ({config.image_size}) pixels are taken, can be no smaller. -1 stretches.'
        )
    channels = config.channels or stored or 3
    if channels not in (1, 3) and not channels == stored == 4:
        raise UserError(
            f'config.data.channels is {config.channels} and the set stores '
            f'{stored or "any number"}; 1 (grey), 3 (colour) or, where stored, 4 are possible.'
        )
    scale = 'crop' if config.resize > 0 and config.image_size else 'stretch'
    return Form(
        (height, width, channels),
        scale if config.image_size else 'none',
        config.resize if scale == 'crop' else 0,
        config.interpolation,
    )


def check_normalisation(config: Any, channels: int) -> None:
    """Checks `mean` and `std`.

    Raises:
      UserError: not one number, nor one a channel; or a std that is not positive.
    """
    for key in ('mean', 'std'):
        values = config[key]
        if len(values) not in (0, 1, channels):
            raise UserError(
                f'config.data.{key} has {len(values)} numbers, but the images have {channels} '
                'channel(s): give one number, or one a channel.'
            )
        if key == 'std' and not all(value > 0 for value in values):
            raise UserError(f'config.data.std is {tuple(values)}; it must be above 0.')


def chosen_classes(classes: Sequence[Any], names: tuple[str, ...]) -> list[int]:
    """Stored labels of the classes to keep, in their new order.

    Args:
      classes: names, or stored labels as int; () keeps all.
      names: of all classes.

    Raises:
      UserError: an unknown class, or one twice.

    >>> chosen_classes(('dog', 0), ('cat', 'cow', 'dog'))
    [2, 0]
    """
    if not classes:
        return list(range(len(names)))
    keep = []
    for item in classes:
        if isinstance(item, int) and 0 <= item < len(names):
            keep.append(item)
        elif item in names:
            keep.append(names.index(item))
        else:
            hint = f' Labels run from 0 to {len(names) - 1}.' if isinstance(item, int) else ''
            raise UserError(
                f'config.data.classes: there is no class {item!r}.'
                f'{hint or nearest(str(item), names)}'
            )
    if len(set(keep)) < len(keep):
        raise UserError(f'config.data.classes names a class twice: {tuple(classes)}.')
    return keep
