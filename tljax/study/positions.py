"""Texts as examples of scores: each position with what the head reads there and the next token.

As in structured prediction (Bassignana et al. 2022, Evidence > Intuition: Transferability
Estimation for Encoder Selection). Beside it stands how likely a source's own head finds the texts.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from tljax import mesh as mesh_lib
from tljax import tasks
from tljax.errors import UserError
from tljax.models import merge
from tljax.ranking.likelihood import Likelihood
from tljax.study.compatibility import texts
from tljax.study.extracted import Split
from tljax.train import experiment as experiment_lib
from tljax.train import step as step_lib
from tljax.train.experiment import Experiment, Source
from tljax.train.feed import Feed

SEQUENCES = 1000  # of a split that are read at most
POSITIONS = 4000  # of these sequences that scores look at
BATCH = 32  # sequences at a time at most, and no more than an evaluation takes


def are_asked_for(config: Any) -> bool:
    """Whether the task of a config has a label for each position of a text."""
    return tasks.kind_of(config.task) == 'tokens'


def read(config: Any, source: Source) -> tuple[Experiment, list[Split], int]:
    """A source on the target's training subset and on its validation split.

    Args:
      config: a contender's.
      source: its leaves.

    Returns:
      The experiment, both splits, and the bytes of the features of the first.

    Raises:
      UserError: the source does not fit its model, or the model gives no vector for each token.
    """
    plain = config.copy_and_resolve_references()
    with plain.unlocked():
        plain.transfer.policy = 'full'  # nothing is trained, and what is injected is left out
    plain.transfer.regularize = ()
    experiment = experiment_lib.build(plain, source)
    key, _ = experiment_lib.run_keys(experiment.config.seed)
    variables = jax.jit(experiment.init)(key, experiment.loaded)
    subsets = {'train': experiment.data.subset(experiment.config.seed), 'validation': None}
    splits = [read_split(experiment, variables, *one) for one in subsets.items()]
    return experiment, splits, splits[0].features_NxD.nbytes


def read_split(
    experiment: Experiment, variables: Any, name: str, subset: npt.NDArray[np.integer] | None
) -> Split:
    """One split: some of its sequences, and of their positions some, drawn by the config's seed.

    Args:
      experiment: the source in the target's model.
      variables: its parameters and statistics.
      name: of the split.
      subset: its sequences; None is all.
    """
    mesh = mesh_lib.data_mesh()
    feed = Feed(experiment.data.split(name), mesh, subset)
    rng = np.random.default_rng([experiment.config.seed, len(name)])  # another for each split
    sequences = np.sort(rng.permutation(feed.subset)[:SEQUENCES])
    task = token_task(experiment)
    labels_MxP, real_MxP = map(np.asarray, task.places(read_by(feed, sequences)))
    real = np.flatnonzero(real_MxP)
    drawn = np.sort(rng.permutation(real)[:POSITIONS])
    row_N, place_N = np.divmod(drawn, labels_MxP.shape[1])
    features, nats, words = [], [], []
    run = compiled(experiment)
    size = min(BATCH, len(sequences), feed.at_once)
    size += -size % mesh.size
    for first in range(0, len(sequences), size):
        last = min(first + size, len(sequences))
        batch = np.resize(sequences[first:last], size).astype(np.int32)
        x_BxPxD, nats_B, words_B = jax.device_get(run(variables, *feed.at(batch)))
        own = (row_N >= first) & (row_N < last)
        features.append(x_BxPxD[row_N[own] - first, place_N[own]].astype(np.float32))
        nats.append(nats_B[: last - first])
        words.append(words_B[: last - first])
    # A loss of 0 may come out a little below.
    said = Likelihood(np.minimum(np.concatenate(nats), 0), np.concatenate(words))
    return Split(
        kind=task.kind,
        features_NxD=np.concatenate(features),
        labels_N=labels_MxP[row_N, place_N],
        example_N=row_N,
        examples=len(sequences),
        total=len(feed.subset),
        likelihood=said if has_own_head(experiment) else None,
    )


def read_by(feed: Feed, chosen: npt.NDArray[np.integer]) -> dict[str, jax.Array]:
    """Some examples as a batch."""
    return {name: jnp.asarray(array) for name, array in feed.read(chosen).items()}


def compiled(experiment: Experiment) -> Any:
    """`run(variables, data, indices)`: features (B, L - 1, D), nats and words (B,) of a batch."""
    graph, task = experiment.model.graph(train=False), token_task(experiment)

    @jax.jit
    def run(variables, data, indices):
        batch = experiment.prepare(step_lib.gather(data, indices))
        module = merge(graph, variables['params'], variables['batch_stats'])
        x_BxLxD = module.features(batch)
        if x_BxLxD.ndim != 3:
            raise UserError(
                f'config.model: {experiment.config.model.name} gives one vector a text, and the '
                "next word takes one a token. Use a source such as gpt2 with pool='none'."
            )
        return x_BxLxD[:, :-1], *task.likelihood(module, batch)

    return run


def token_task(experiment: Experiment) -> tasks.TokenTask:
    return cast(tasks.TokenTask, experiment.task)


def has_own_head(experiment: Experiment) -> bool:
    """Whether what says the next token is the source's own, over the tokens that it has learnt."""
    leaves = experiment_lib.flat_variables(experiment.model.shapes())
    return leaves.keys() <= experiment.loaded.keys() and texts.reads_own_tokens(
        experiment.config, experiment.data
    )
