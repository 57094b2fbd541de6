"""Finding the source model that `config.source.uri` names, training it first if need be."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from tljax import config as config_lib
from tljax import models, pretrained
from tljax.data.prepared import THE_USERS
from tljax.errors import UserError
from tljax.pretrained import Card, Found, inputs
from tljax.pretrained.load import check_same, guesses
from tljax.pretrained.locations import is_remote
from tljax.train import experiment as experiment_lib
from tljax.train import injected_models
from tljax.train.experiment import Source
from tljax.train.loop import train
from tljax.train.model_dir import load_card, load_model, model_metadata
from tljax.transfer import regularizers
from tljax.transfer.policies import is_from_scratch

CONFIG = 'config:'
OF_SOURCE = 'source'  # as the name of a model: the one that the source has


def load(config: ConfigDict, workdir: Path, *, quiet: bool = False) -> Source | None:
    """Reads the source; a `config:` source is trained first if it isn't there.

    Args:
      config: the target's.
      workdir: the target's; a `config:` source goes to its `source/` unless
        `config.source.workdir` says otherwise.
      quiet: no progress bar.

    Returns:
      The source, or None where `config.source.uri` is '' or the policy 'from_scratch'.

    Raises:
      UserError: there is no such source.
    """
    uri = config.source.uri
    check_keys(config)
    if not uri or is_from_scratch(experiment_lib.policy_of(config)):
        return None
    if is_foreign(uri):
        return foreign(config, quiet)
    directory = path_of(config, workdir)
    if uri.startswith(CONFIG):
        source_config = config_of(config)
        if not (directory / 'card.json').exists():
            experiment_lib.check_fit(config, untrained_shapes(config))
        before = load(source_config, directory.parent, quiet=quiet)
        experiment = experiment_lib.build(source_config, before)
        directory = train(experiment, directory.parent, quiet=quiet)
    variables, card = load_model(directory)
    check_own(config, card, str(directory))
    logging.info('Source: %s.', directory)
    leaves = experiment_lib.flat_variables(variables)
    target = experiment_lib.build(config, None, injected=True).model
    return Source(injected_models.source_leaves(leaves, card, target), card)


def shapes(config: ConfigDict, workdir: Path) -> tuple[dict[str, Any], str] | None:
    """The source's leaves as shapes, without training it, and words on where they are from."""
    uri = config.source.uri
    check_keys(config)
    if not uri or is_from_scratch(experiment_lib.policy_of(config)):
        return None
    if is_foreign(uri):
        found, card = find_foreign(config, quiet=False)
        return found.shapes, account_of(config, found, card)
    directory = path_of(config, workdir)
    if uri.startswith(CONFIG) and not (directory / 'card.json').exists():
        return untrained_shapes(config), f'{uri}, not trained yet'
    own = load_card(directory)
    check_own(config, own, str(directory))
    target = experiment_lib.build(config, None, injected=True).model
    return injected_models.source_leaves(model_metadata(directory), own, target), str(directory)


def check_own(config: ConfigDict, card: Mapping[str, Any], where: str) -> None:
    """Checks that a target's model computes what a model of our own computes.

    Raises:
      UserError: it has other arguments than its shapes show.
    """
    source = dict(card.get('model') or {})
    if source.pop('name', '') != config.model.name:
        return  # another architecture shows in its leaves
    target = experiment_lib.build(config, None)
    check_same(
        config.model.name, source, config.model, target.data.example, target.task.outputs, where
    )


def check_keys(config: ConfigDict) -> None:
    """Raises UserError for keys that nobody would read."""
    if config.source.card and not (config.source.uri and is_foreign(config.source.uri)):
        raise UserError(
            f'config.source.card is {config.source.card!r}, but the source '
            f'{config.source.uri!r} has a card of its own, or is none. Leave the key out.'
        )
    if config.source.uri:
        return
    if config.source.peft:
        raise UserError(
            f'config.source.peft is {config.source.peft!r}, but config.source.uri is empty: such a '
            'file goes over a source. Name the source that it was trained over.'
        )
    default = config_lib.flat(config_lib.default())
    for regularizer in regularizers.parse(config.transfer.regularize):
        if regularizer.of_source:
            raise UserError(
                f'{regularizers.KEY} has {regularizer.name}, which is about a source, and '
                'config.source.uri is empty. Name a source, or leave it out.'
            )
    for key, value in config_lib.flat(config).items():
        if key == 'transfer.regularize':
            continue
        if key.startswith('transfer.') and value != default.get(key):
            raise UserError(
                f'config.{key} is set, but config.source.uri is empty: without a source everything '
                'is trained from scratch. Name a source, or leave the key out.'
            )


def untrained_shapes(config: ConfigDict) -> dict[str, Any]:
    """The leaves that a `config:` source will have."""
    model = experiment_lib.build(config_of(config), None).model
    return experiment_lib.flat_variables(model.shapes())


def is_foreign(uri: str) -> bool:
    """Whether a uri names weights that tljax did not write itself."""
    return not uri.startswith(CONFIG) and inputs.model_at(uri) is None


def find_foreign(config: ConfigDict, *, quiet: bool) -> tuple[Found, Card]:
    """Identifies somebody else's weights, and checks that the target's model is the same one."""
    source = config.source
    if is_remote(source.uri):
        experiment_lib.build(config, None)  # what is wrong with the rest is told before a download
    found, card = pretrained.find(source.uri, config.model.name, source.card, quiet=quiet)
    pretrained.check_arguments(found, config.model)
    return found, card


def foreign(config: ConfigDict, quiet: bool) -> Source:
    """Reads somebody else's weights."""
    found, card = find_foreign(config, quiet=quiet)
    logging.info('Source: %s.', account_of(config, found, card).replace('\n', '\n  '))
    return Source(found.read(), {**card.to_json(), 'uri': config.source.uri})


def account_of(config: ConfigDict, found: Found, card: Card) -> str:
    """Words on a foreign source: its file, scheme, card, and where the target's data differs."""
    skipped = Counter(found.skipped.values())
    lines = [
        f'{found.weights.files[0]} ({found.weights.format}, {found.scheme} names, '
        f'{len(found.shapes)} leaves)',
        f'card {card.name}; licence {card.licence}; trained on {card.training_data}',
    ]
    lines += [f'{count} tensors not read: {reason}' for reason, count in skipped.items()]
    lines += [guesses(found)] if found.guessed else []
    lines += inputs.differences(config, card)
    return '\n'.join(lines)


def model_of(uri: str, *, quiet: bool = False) -> dict[str, Any]:
    """`config.model` of a source: its architecture, with the arguments that its weights show.

    Args:
      uri: as `config.source.uri`, not ''.
      quiet: no progress bar for a download.

    Raises:
      UserError: there is no such source, or it cannot be told what model it is.
    """
    if uri.startswith(CONFIG):
        return dict(config_lib.load(uri.removeprefix(CONFIG)).model)
    if is_foreign(uri):
        found, _ = pretrained.find(uri, quiet=quiet)
        return models.arguments(found.model, **found.arguments)
    directory = inputs.model_at(uri)
    assert directory is not None
    card = load_card(directory)
    if 'name' not in card.get('model', {}):
        raise UserError(f'The card of {directory} does not tell what model it is. Name it.')
    return dict(card['model'])


def with_model(config: ConfigDict, *, quiet: bool = False) -> ConfigDict:
    """The config with its source's model where `config.model.name` is 'source'.

    Args:
      config: of `tljax.config.resolve`; not changed. What else `config.model` holds is left out.
      quiet: no progress bar for a download.

    Raises:
      UserError: as for `model_of`, or `config.source.uri` is ''.
    """
    if config.model.name != OF_SOURCE:
        return config
    if not config.source.uri:
        raise UserError(
            f'config.model.name is {OF_SOURCE!r}, but config.source.uri is empty: name a source, '
            'or the model.'
        )
    full = config.copy_and_resolve_references()
    full.model = ConfigDict(model_of(config.source.uri, quiet=quiet))
    return full


def path_of(config: ConfigDict, workdir: Path) -> Path:
    """The model directory of our own that the source has, or will have once it is trained."""
    uri = config.source.uri
    if uri.startswith(CONFIG):
        return Path(config.source.workdir or workdir / 'source') / 'model'
    found = inputs.model_at(uri)
    assert found is not None
    return found


def config_of(config: ConfigDict) -> ConfigDict:
    """The config that a `config:` source names, its data kept where the target's is."""
    source_config = config_lib.load(config.source.uri.removeprefix(CONFIG))
    source_config.data.prepared = source_config.data.prepared or config.data.prepared
    if not {config.data.name, source_config.data.name} & THE_USERS.keys():
        source_config.data.dir = source_config.data.dir or config.data.dir
    return inputs.applied(source_config)
