"""Opens the data that a config names: which rows are train, validation and test."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tljax.data import opening, prepared, splits
from tljax.data.split import Records, Split
from tljax.data.text.packing import Packed
from tljax.errors import UserError, nearest

IN_MEMORY = 10**9  # decoded bytes of a split up to which `auto` holds it in memory


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """An opened data set.

    Attributes:
      label_names: of the classes, in the order of the labels.
      example: one decoded example: the parts of its form, such as 'image' (height, width,
        channels) uint8 or 'tokens' (length,) int32, and 'label' () int32.
      form: how what is stored becomes one: that of images, or of texts.
      splits: 'train' (the pool that subsets are drawn from; validation is not in it), 'test', and
        'validation' unless there is none.
      shots: labels a class in a subset, or without labels examples; 0 is all.
      full_name: what TFDS calls it, with its version.
      description: what it is, in a few sentences.
      synthetic: '' for real data, else a sentence on how it was made.
      account: of the user's own data, what became of its rows; see `tljax.data.own.account`.
    """

    label_names: tuple[str, ...]
    example: Mapping[str, jax.ShapeDtypeStruct]
    form: Any  # a tljax.data.forms.Form
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
        return splits.draw_shots(labels, self.shots, seed, self.label_names or ('all',))

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
            if isinstance(split.records, Packed) and split.records.documents is not None:
                found[name]['documents'] = split.records.documents.tolist()
        return found


def open_data(config: Any, seed: int) -> Data:
    """Opens a data set and decides which of its examples are train, validation and test.

    Args:
      config: the section `config.data` (see `tljax.config.default`).
      seed: of the draw of validation examples; `Data.subset` takes its own.

    Raises:
      UserError: no such set, or it is not prepared (nothing is downloaded); unknown, empty or
        overlapping splits; unknown classes; features or labels that don't fit; a folder that
        can't be written.
      RunError: no space left, or damaged files.
    """
    builder = prepared.open_set(config)
    info, account = builder.info, prepared.account_of(builder)
    form = opening.form_of(config, builder)
    labelled = 'label' in info.features
    names = tuple(info.features['label'].names) if labelled else ()
    keep = chosen_classes(config.classes, names)
    relabel = np.full(max(len(names), 1), -1 if labelled else 0, np.int32)
    relabel[keep] = np.arange(len(keep))
    draw = _labelled if labelled else _packed
    records, rows = draw(config, seed, builder, form, _specs(config, info, bool(account)), relabel)
    size = sum(part.size * part.dtype.itemsize for part in form.parts.values())
    label = {'label': jax.ShapeDtypeStruct((), np.int32)} if labelled else {}

    def split(name: str) -> Split:
        in_memory = _in_memory(config, len(rows[name]) * size)
        return Split(name, records[name], rows[name], relabel, in_memory, labelled)

    return Data(
        label_names=tuple(names[label] for label in keep),
        example={**form.parts, **label},
        form=form,
        splits={name: split(name) for name in rows},
        shots=config.shots,
        full_name=info.full_name,
        description=' '.join((info.description or '').split()),
        synthetic=getattr(builder, 'SYNTHETIC', ''),
        account=account,
    )


def _specs(config: Any, info: Any, own: bool) -> dict[str, str]:
    """TFDS split strings by name, no example in two of them."""
    specs = {'train': config.train, 'test': config.test}
    if validation := config.validation or prepared.own_validation(own, info.splits):
        specs['validation'] = validation
    found = {n: (s, splits.intervals(s, f'data.{n}', info.splits)) for n, s in specs.items()}
    splits.check_disjoint({f'data.{name}': value for name, value in found.items()})
    if own and config.group:
        check_groups(
            config, specs, {n: {base for base, *_ in cut} for n, (_, cut) in found.items()}
        )
    return specs


def check_groups(config: Any, specs: Mapping[str, str], bases: Mapping[str, set[str]]) -> None:
    """Raises UserError where two splits are cut from one of the set's, which looks at no group."""
    for name, other in itertools.combinations(specs, 2):
        if both := sorted(bases[name] & bases[other]):
            raise UserError(
                f'config.data.{name}={specs[name]!r} and config.data.{other}={specs[other]!r} cut '
                f'{both[0]} by rows, so that groups (config.data.group={config.group!r}) may be in '
                'both. Leave these keys at their defaults: splits are drawn by group.'
            )


def _labelled(
    config: Any, seed: int, builder: Any, form: Any, specs: Mapping[str, str], relabel: np.ndarray
) -> tuple[dict[str, Records], dict[str, np.ndarray]]:
    """Where the examples of each split are stored, and in which rows."""
    records = {name: Records(builder, spec, form) for name, spec in specs.items()}
    rows = {name: _kept(name, part, relabel) for name, part in records.items()}
    if 'validation' not in specs and config.holdout:
        labels = relabel[records['train'].labels[rows['train']]]
        held = splits.draw_holdout(labels, config.holdout, seed)
        records['validation'] = records['train']
        rows['validation'] = rows['train'][held]
        rows['train'] = np.delete(rows['train'], held)
    return records, rows


def _packed(
    config: Any, seed: int, builder: Any, form: Any, specs: Mapping[str, str], relabel: np.ndarray
) -> tuple[dict[str, Records], dict[str, np.ndarray]]:
    """The same of texts without labels; whole documents are held out, then packed."""
    records: dict[str, Records] = {n: Packed(builder, spec, form) for n, spec in specs.items()}
    if 'validation' not in specs and config.holdout:
        documents = np.arange(len(Records(builder, config.train, None)))
        held = splits.draw_holdout(np.zeros(len(documents)), config.holdout, seed)
        records['validation'] = Packed(builder, config.train, form, held)
        records['train'] = Packed(builder, config.train, form, np.delete(documents, held))
    for name, part in records.items():
        if not len(part):
            raise UserError(f'config.data.{name}: its documents have no words.')
    return records, {n: np.arange(len(part), dtype=np.int32) for n, part in records.items()}


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


def chosen_classes(classes: Sequence[Any], names: tuple[str, ...]) -> list[int]:
    """Stored labels of the classes to keep, in their new order.

    Args:
      classes: names, or stored labels as int; () keeps all.
      names: of all classes.

    Raises:
      UserError: an unknown class, or one twice; a number that is one class's label and another
        one's name.

    >>> chosen_classes(('dog', 0), ('cat', 'cow', 'dog'))
    [2, 0]
    """
    if not classes:
        return list(range(len(names)))
    keep = []
    for item in classes:
        if isinstance(item, int) and str(item) in names[:item] + names[item + 1 :]:
            raise UserError(
                f'config.data.classes: {item} counts classes from 0, and another class is called '
                f'{str(item)!r} here. Write names, as in {names[:2]!r}.'
            )
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
