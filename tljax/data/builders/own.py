"""Data of the user's own as TFDS sets: `folder`, `table` and `arrays`."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

Shard = Callable[[], Iterator[tuple[int, dict[str, Any]]]]


@dataclasses.dataclass(eq=False, kw_only=True)
class Content(tfds.core.BuilderConfig):
    """What a set of the user's consists of; its name is part of the set's full name.

    Attributes:
      features: of an example.
      shards: split -> what yields the examples of each file, in order.
    """

    features: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    shards: Mapping[str, Sequence[Shard]] = dataclasses.field(default_factory=dict, repr=False)


class Own(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Written file by file in the order of the rows, so that memory holds one file at a time.

    TFDS's GeneratorBasedBuilder collects a whole split before it writes any of it.
    """

    VERSION = tfds.core.Version('1.0.0')

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=self.builder_config.description,
            features=tfds.features.FeaturesDict(dict(self.builder_config.features)),
            supervised_keys=None,
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager) -> Mapping[str, Sequence[Shard]]:
        return self.builder_config.shards


class Folder(Own):
    """Images or sounds in a folder for each class."""


class Table(Own):
    """Rows of a CSV, TSV, JSONL or Parquet file."""


class Arrays(Own):
    """NumPy arrays."""


class Renamed(Own):
    """A TFDS set's features under other names, examined and divided as the user's own data."""
