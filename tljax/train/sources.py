"""Finding the source model that `config.source.uri` names, training it first if need be."""

from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from tljax import config as config_lib
from tljax.errors import UserError
from tljax.train import experiment as experiment_lib
from tljax.train.experiment import Source
from tljax.train.loop import train
from tljax.train.model_dir import load_model, model_metadata

CONFIG = 'config:'


def load(config: ConfigDict, workdir: Path, *, quiet: bool = False) -> Source | None:
    """Reads the source; a `config:` source is trained first if it isn't there.

    Args:
      config: the target's.
      workdir: the target's; a `config:` source goes to its `source/` unless
        `config.source.workdir` says otherwise.
      quiet: no progress bar.

    Returns:
      The source, or None where `config.source.uri` is ''.

    Raises:
      UserError: there is no such source.
    """
    uri = config.source.uri
    if not uri:
        check_no_transfer(config)
        return None
    directory = path_of(config, workdir)
    if uri.startswith(CONFIG):
        source_config = config_of(config)
        if not (directory / 'card.json').exists():
            experiment_lib.check_fit(config, untrained_shapes(config))
        before = load(source_config, directory.parent, quiet=quiet)
        experiment = experiment_lib.build(source_config, before)
        directory = train(experiment, directory.parent, quiet=quiet)
    variables, card = load_model(directory)
    logging.info('Source: %s.', directory)
    return Source(experiment_lib.flat_variables(variables), card)


def shapes(config: ConfigDict, workdir: Path) -> tuple[dict[str, Any], str] | None:
    """The source's leaves as shapes, without training it, and words on where they are from."""
    uri = config.source.uri
    if not uri:
        check_no_transfer(config)
        return None
    directory = path_of(config, workdir)
    if uri.startswith(CONFIG) and not (directory / 'card.json').exists():
        return untrained_shapes(config), f'{uri}, not trained yet'
    return model_metadata(directory), str(directory)


def check_no_transfer(config: ConfigDict) -> None:
    """Raises UserError for keys that nobody would read: there is nothing to transfer."""
    default = config_lib.flat(config_lib.default())
    for key, value in config_lib.flat(config).items():
        if key.startswith('transfer.') and value != default.get(key):
            raise UserError(
                f'config.{key} is set, but config.source.uri is empty: without a source everything '
                'is trained from scratch. Name a source, or leave the key out.'
            )


def untrained_shapes(config: ConfigDict) -> dict[str, Any]:
    """The leaves that a `config:` source will have."""
    model = experiment_lib.build(config_of(config), None).model
    return experiment_lib.flat_variables(model.shapes())


def path_of(config: ConfigDict, workdir: Path) -> Path:
    """The model directory that the source has, or will have once it is trained.

    Raises:
      UserError: the uri is of no known kind, or nothing is there.
    """
    uri = config.source.uri
    if uri.startswith(CONFIG):
        return Path(config.source.workdir or workdir / 'source') / 'model'
    scheme, colon, _ = uri.partition(':')
    if colon and '/' not in scheme:
        raise UserError(
            f'config.source.uri: {uri!r} is of no kind that can be read here; it takes a path to '
            "a model or workdir, or 'config:FILE:ARG'."
        )
    for directory in (Path(uri), Path(uri) / 'model'):
        if (directory / 'card.json').exists():
            return directory
    raise UserError(
        f'config.source.uri: no model at {uri!r} (looked for card.json there and in {uri}/model). '
        'Train one first with `launch.py train`, or name a recipe: config:FILE:ARG.'
    )


def config_of(config: ConfigDict) -> ConfigDict:
    """The config that a `config:` source names, its data kept where the target's is."""
    source_config = config_lib.load(config.source.uri.removeprefix(CONFIG))
    source_config.data.dir = source_config.data.dir or config.data.dir
    return source_config
