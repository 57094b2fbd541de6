"""The examples of a split: random access, labels, or everything decoded in memory."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import numpy as np
from absl import logging

from tljax.errors import RunError, UserError
from tljax.progress import Progress

CHUNK = 1024  # records read at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """All rows of one TFDS split string, as they are stored.

    Attributes:
      builder: prepared, array_record.
      spec: the split string, such as 'train[:80%]'.
      form: of the decoded examples, a `tljax.data.forms.Form`; None where none is decoded.
    """

    builder: Any
    spec: str
    form: Any

    def __len__(self) -> int:
        return len(self._raw)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Labels as stored, (rows,) int32; one pass over the files."""
        parser = self._parser('label')
        labels = np.empty(len(self), np.int32)
        for row, record in self._scan(range(len(self)), f'labels of {self.spec}'):
            labels[row] = parser.deserialize_example_np(record)['label']
        if len(labels) and labels.min() < 0:
            self._unlabelled(int((labels < 0).sum()))
        return labels

    def example(self, row: int) -> tuple[dict[str, np.ndarray], int]:
        """The parts of one decoded example, as `form.parts` has them, and its stored label."""
        try:
            record = self._raw[row]
        except Exception as error:
            self._damaged(row, error)
        parts, label = self._decode(row, record)
        if label < 0:
            self._unlabelled(1)
        return parts, label

    def decoded(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The parts of many examples, (len(rows), ...) each."""
        arrays = {
            name: np.empty((len(rows), *part.shape), part.dtype)
            for name, part in self.form.parts.items()
        }
        for index, parts in enumerate(self.each(rows)):
            for name, value in parts.items():
                arrays[name][index] = value
        return arrays

    def each(self, rows: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        """The parts of many examples, one after the other."""
        label = f'{" and ".join(self.form.parts)} of {self.spec}'
        for row, record in self._scan(rows.tolist(), label):
            yield self._decode(row, record)[0]

    def fitting(self, rows: np.ndarray) -> np.ndarray:
        """The bucket of the form that each of many examples fits into, (len(rows),) uint8."""
        found = np.empty(len(rows), np.uint8)
        scan = self._scan(rows.tolist(), f'lengths of {self.spec}')
        for index, (row, record) in enumerate(scan):
            found[index] = self.form.buckets.of(self._decode(row, record)[0])
        return found

    def stored(self, *names: str) -> Iterator[dict[str, Any]]:
        """These features of all rows in their order, as they are stored."""
        import tensorflow_datasets as tfds

        parser = self._parser(*names)
        skip = dict.fromkeys(names, tfds.decode.SkipDecoding())
        label = f'{" and ".join(names)} of {self.spec}'
        for row, record in self._scan(range(len(self._raw)), label):
            try:
                yield parser.deserialize_example_np(record, decoders=skip)
            except Exception as error:
                self._damaged(row, error)

    @functools.cached_property
    def _raw(self) -> Any:
        from tensorflow_datasets.core.decode import DeserializeMethod

        try:
            return self.builder.as_data_source(
                self.spec, deserialize_method=DeserializeMethod.RAW_BYTES
            )
        except Exception as error:
            self._damaged(0, error)

    @functools.cached_property
    def _both(self) -> Any:
        return self._parser(*self.form.columns, 'label')

    def _parser(self, *names: str) -> Any:
        """Parses these features only: a set's others (masks, boxes) cost nothing."""
        import tensorflow_datasets as tfds

        features = self.builder.info.features
        return tfds.features.FeaturesDict({name: features[name] for name in names})

    def _scan(self, rows: Any, label: str) -> Iterable[tuple[int, bytes]]:
        quiet = logging.get_verbosity() < logging.INFO  # what --quiet sets
        with Progress(len(rows), 'examples', quiet=quiet, label=label) as progress:
            for first in range(0, len(rows), CHUNK):
                chunk = list(rows[first : first + CHUNK])
                try:
                    records = self._raw.__getitems__(chunk)
                except Exception as error:
                    self._damaged(chunk[0], error)
                yield from zip(chunk, records, strict=True)
                progress.update(len(chunk))

    def _decode(self, row: int, record: bytes) -> tuple[dict[str, np.ndarray], int]:
        import tensorflow_datasets as tfds

        skip = {name: tfds.decode.SkipDecoding() for name in self.form.columns}
        try:
            stored = self._both.deserialize_example_np(record, decoders=skip)
            parts = self.form.read(stored)
        except Exception as error:
            self._damaged(row, error)
        return parts, int(stored['label'])

    def _unlabelled(self, count: int) -> NoReturn:
        # TFDS writes -1 where a test set's labels are kept secret.
        raise UserError(
            f'config.data: {count} or more examples of {self.spec!r} of '
            f'{self.builder.info.full_name} have no label. Use another split.'
        )

    def _damaged(self, row: int, error: Exception) -> NoReturn:
        raise RunError(
            f'{self.builder.data_path}: example {row} of {self.spec!r} cannot be read: {error}. '
            'If the files are damaged, delete that folder and prepare the set again.'
        ) from error


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Some examples of a TFDS split, their labels counted from 0 in the order of `label_names`.

    Attributes:
      name: 'train', 'validation' or 'test'.
      records: where its examples are stored.
      rows: which of those, (n,) int32, ascending.
      relabel: stored label to label, (stored classes,) int32.
      in_memory: whether `arrays()` is meant to be used rather than `stream`.
      labelled: whether examples have labels; without, `labels()` are zeros.
    """

    name: str
    records: Records
    rows: np.ndarray
    relabel: np.ndarray
    in_memory: bool
    labelled: bool = True

    def __len__(self) -> int:
        return len(self.rows)

    def labels(self) -> np.ndarray:
        """Labels of all examples, (n,) int32; nothing else is decoded for them."""
        return self.relabel[self.records.labels[self.rows]]

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, decoded once and kept: the parts of the form, such as 'image' (n, height,
        width, channels) uint8, and 'label' (n,) int32. Not to be changed in place."""
        return self._arrays

    @property
    def buckets(self) -> Any:
        """Those of the form."""
        return self.records.form.buckets

    @property
    def at_once(self) -> int:
        """Examples that an evaluation takes at a time, at most: that of the form."""
        return self.records.form.at_once

    @functools.cached_property
    def fitting(self) -> np.ndarray | None:
        """The smallest bucket of the form that each example fits into, (n,) uint8; None where it
        has none. One pass over the files, where the split is not in memory."""
        if self.buckets is None:
            return None
        return self.buckets.of(self.arrays()) if self.in_memory else self.records.fitting(self.rows)

    def source(self) -> 'Source':
        """Random access, decoding as asked; what `stream` reads."""
        return Source(self)

    @functools.cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = self.records.decoded(self.rows)
        if self.labelled:
            arrays['label'] = self.labels()
        for array in arrays.values():
            array.flags.writeable = False
        return arrays


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """`source[i]` is example i of a split: the parts of its form, such as 'image' (height, width,
    channels) uint8, and 'label' () int32. It may be read by several threads."""

    split: Split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        split = self.split
        parts, stored = split.records.example(int(split.rows[index]))
        return {**parts, 'label': split.relabel[stored]} if split.labelled else parts
