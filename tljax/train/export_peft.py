"""What a parameter-efficient run trained, written alone."""

from pathlib import Path

from tljax import config as config_lib
from tljax.errors import UserError
from tljax.train import adapters, injected_models, sources
from tljax.train import experiment as experiment_lib
from tljax.train.export import write
from tljax.train.model_dir import load_model
from tljax.train.workdir import held_config

TOLD = ('name', 'title', 'licence', 'training_data', 'uri', 'fingerprint')  # of the source's card


def export(workdir: Path, output: Path, *, quiet: bool = False) -> Path:
    """Writes every leaf that training changed, and the fingerprint of the others.

    Args:
      workdir: of a run whose config injects leaves. Its source is read again, to tell what is its.
      output: a safetensors file; it must not exist. `config.source.peft` takes it.
      quiet: no progress bar.

    Raises:
      UserError: the run injected nothing, or there is no trained model, or the output can't be
        written.
    """
    if output.exists():
        raise UserError(f'--output={output} exists already; name a new file.')
    config = held_config(workdir)
    variables, card = load_model(workdir / 'model')
    own = injected_models.of_card(card)
    if own is None:
        raise UserError(
            f'--format=peft: the run in {workdir} injected nothing, so the whole model was '
            'trained, or its head. Export it with --format=safetensors.'
        )
    experiment = experiment_lib.build(config, sources.load(config, workdir, quiet=quiet))
    # A regulariser's own leaves, such as the source's head, belong to the run and not the model.
    injected, known = own.outline().injected, injected_models.flat(own.shapes())
    flat = {p: leaf for p, leaf in injected_models.flat(variables).items() if p in known}
    leaves = adapters.trained(flat, experiment.loaded, set(injected))
    rest = {path: leaf for path, leaf in flat.items() if path not in leaves}
    about = {
        'injected': injected_models.chosen_by(card),
        'injected_leaves': injected,
        'backbone': adapters.fingerprint(rest),
        'backbone_leaves': len(rest),
        'source': config.source.uri,
        'source_card': {k: v for k, v in (experiment.card or {}).items() if k in TOLD},
        'model': config_lib.plain(config.model),
        'example': card['example'],
        'outputs': card.get('outputs', len(card['label_names'])),
        'label_names': card['label_names'],
        'title': card['title'],
        'data': card['data'],
        'task': card['task'],
        'fingerprint': card['fingerprint'],
    }
    write(output, lambda path: adapters.save(path, leaves, about))
    return output
