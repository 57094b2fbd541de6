"""A source's features of the target's examples, and what its own head makes of them.

They come from the frozen prefix of a linear probe: what it reads is kept, and with
`config.prefix.dir` set a later training behind the same backbone finds it there. Texts whose every
position has a label are read by `tljax.study.positions`.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from tljax import models, trees
from tljax.errors import RunError
from tljax.models import Model, merge
from tljax.pretrained.load import input_keys
from tljax.study import positions
from tljax.study.extracted import Extracted, Split
from tljax.study.runs import Arm
from tljax.train import experiment as experiment_lib
from tljax.train import step as step_lib
from tljax.train.experiment import Experiment, Source
from tljax.train.features import FeatureFeed
from tljax.train.feed import Feed
from tljax.transfer import prefix

Array = npt.NDArray[np.float64]
HEAD = 'head/'


def probing(experiment_config: Any) -> Any:
    """The config whose linear probe reads the features: nothing random in front of them."""
    config = experiment_config.copy_and_resolve_references()
    with config.unlocked():
        config.transfer.policy = 'linear_probe'
    config.transfer.regularize = ()
    config.data.augment = ()
    config.prefix.cache = 'on'
    for key, value in config.model.items():
        if 'drop' in key and isinstance(value, float):
            config.model[key] = 0.0
    return config


def extract(config: Any, source: Source) -> Extracted:
    """Runs the target's examples through a source's backbone, once.

    Args:
      config: a contender's.
      source: its leaves.

    Raises:
      UserError: the source does not fit its model, or the model the data.
      RunError: a feature is not a finite number.
    """
    began = time.monotonic()
    read = positions.read if positions.are_asked_for(config) else examples
    experiment, splits, nbytes = read(config, source)
    for split in splits:
        if not np.isfinite(split.features_NxD).all():
            raise RunError(
                f'{config.source.uri or config.model.name}: features are not finite numbers. Check '
                f'that {input_keys(experiment.data.example)} what the source was trained with.'
            )
    shapes = trees.flatten(experiment.model.shapes()['params'])
    params = sum(s.size for path, s in shapes.items() if not path.startswith(HEAD))
    return Extracted(experiment, splits[0], splits[1], time.monotonic() - began, nbytes, params)


def examples(config: Any, source: Source) -> tuple[Experiment, list[Split], int]:
    """What is read of examples that have one label each, and its size in bytes as it is kept."""
    experiment = experiment_lib.build(probing(config), source)
    arm = Arm(experiment, 2)
    seed = experiment.config.seed
    variables = arm.variables(seed)
    pool = arm.pool.of(arm.order(seed)[0])
    _, frozen = arm.programs[0].split(variables['params'])
    ready = arm.runners[0].ready(frozen, variables['batch_stats'], pool, arm.validation)
    assert isinstance(ready.feed, FeatureFeed)
    assert isinstance(ready.validation, FeatureFeed)
    classifier = Classifier.of(experiment, source)
    splits = []
    for feed, kept in ((pool, ready.feed), (arm.validation, ready.validation)):
        floats, count = floating(kept), len(feed.subset)
        split = Split(
            kind=experiment.task.kind,
            features_NxD=flattened(floats),
            labels_N=feed.split.labels()[feed.subset],
            example_N=np.arange(count),
            examples=count,
            total=count,
            probabilities_NxS=classifier.probabilities(feed, floats) if classifier else None,
        )
        splits.append(split)
    return experiment, splits, sum(x.nbytes for x in ready.feed.table.arrays.values())


def floating(feed: FeatureFeed) -> list[np.ndarray]:
    """The features of a feed's examples that are numbers, in their order: labels left out."""
    arrays = feed.table.take(feed.chosen)
    ordered = [arrays[f'feature{n}'] for n in range(len(arrays))]
    return [array for array in ordered if np.issubdtype(array.dtype, np.floating)]


def flattened(floats: Sequence[np.ndarray]) -> Array:
    """(N, D): the mean of maps over their places, side by side."""
    parts = [x.reshape(len(x), -1, x.shape[-1]).mean(1, dtype=np.float64) for x in floats]
    return np.concatenate(parts, 1)


@dataclasses.dataclass(frozen=True)
class Classifier:
    """The source's own model, its head included.

    Attributes:
      experiment: of the target, for its data and preprocessing.
      model: of the source.
      variables: of the source.
    """

    experiment: Experiment
    model: Model
    variables: Mapping[str, Any]

    @classmethod
    def of(cls, experiment: Experiment, source: Source) -> 'Classifier | None':
        """None where the source has no classes, or its head is another than the model's."""
        heads = [leaf for path, leaf in source.leaves.items() if path.startswith(HEAD)]
        if not heads or source.card.get('name') == 'random':
            return None
        outputs = max(heads, key=lambda leaf: leaf.ndim).shape[-1]
        if outputs < 2:
            return None
        example = experiment.data.example
        model = models.build(experiment.config.model, example, outputs)
        shapes = experiment_lib.flat_variables(model.shapes())
        known = {p: source.leaves.get(p, experiment.loaded.get(p)) for p in shapes}
        if any(leaf is None or leaf.shape != shapes[p].shape for p, leaf in known.items()):
            return None
        variables = {
            kind: trees.map_with_path(lambda path, _: known[path], tree)
            for kind, tree in model.shapes().items()
        }
        return cls(experiment, model, variables)

    def probabilities(self, feed: Feed, floats: Sequence[np.ndarray]) -> Array:
        """(N, S): behind features that are known, if they are what its head reads; else anew.

        Args:
          feed: the examples.
          floats: what is kept of them.
        """
        size = feed.eval_batch
        chosen = np.resize(feed.subset, size)
        data, indices = feed.at(chosen.astype(np.int32))
        cut = self.cut(size)
        head, rest = self.halves()
        alike = [x.shape[1:] for x in floats] == [f.shape for f in cut.features]
        if alike:
            first = jax.jit(lambda rest, data, i: cut.prefix(rest, step_lib.gather(data, i)))(
                rest, data, indices
            )
            rows = np.arange(size) % len(feed.subset)
            pairs = zip(first, floats, strict=True)
            alike = all(np.allclose(a, b[rows], rtol=1e-3, atol=1e-3) for a, b in pairs)
        folded = jax.jit(cut.fold)(rest)

        @jax.jit
        def behind(values):
            return jax.nn.softmax(cut.suffix(head, folded, values))

        @jax.jit
        def whole(data, indices):
            return behind(cut.prefix(rest, step_lib.gather(data, indices)))

        parts = []
        for begin in range(0, len(feed.subset), size):
            rows = np.arange(begin, begin + size) % len(feed.subset)
            if alike:
                parts.append(behind([x[rows] for x in floats]))
            else:
                parts.append(whole(*feed.at(feed.subset[rows].astype(np.int32))))
        return np.concatenate(jax.device_get(parts))[: len(feed.subset)].astype(np.float64)

    def halves(self) -> tuple[Any, Any]:
        """The head, and everything else."""
        params = self.variables['params']
        heads = {path: path.startswith(HEAD) for path in trees.flatten(params)}
        head, backbone = trees.partition(params, heads)
        return head, (backbone, self.variables['batch_stats'])

    def cut(self, size: int) -> prefix.Cut:
        """Logits of a batch, cut where the head begins."""
        graph = self.model.graph(train=False)
        head, rest = self.halves()

        def logits(head: Any, rest: Any, batch: Any) -> jax.Array:
            backbone, stats = rest
            module = merge(graph, trees.combine(head, backbone), stats)
            return module(self.experiment.prepare(batch))

        example = self.experiment.data.example
        batch = {k: jax.ShapeDtypeStruct((size, *s.shape), s.dtype) for k, s in example.items()}
        return prefix.cut(logits, head, rest, batch)
