"""A trained model of the next word continues a text."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from tljax.errors import UserError
from tljax.train import step as step_lib
from tljax.train.serve import trained


def continued(config: ConfigDict, workdir: Path, prompt: str, words: int) -> dict[str, Any]:
    """What the model of a workdir says next: the likeliest token, again and again.

    Of a long text it sees the last `config.data.length` tokens.

    Args:
      config: of the trained model.
      workdir: holds it.
      prompt: may be empty.
      words: how many more.

    Returns:
      'prompt' and 'continuation'.

    Raises:
      UserError: no trained model, or it is none of the next word.
    """
    experiment, variables = trained(config, workdir)
    form = experiment.data.form
    if 'words' not in form.parts:
        raise UserError('--prompt is for models of the next word; give this one --input.')
    library, length = form.tokenizer.made(), form.length
    tokens = library.encode(prompt, add_special_tokens=False).ids
    known = [form.tokenizer.start, *tokens]
    step = jax.jit(
        step_lib.make_predict_step(experiment.model, experiment.task, experiment.prepare)
    )
    places = np.arange(length, dtype=np.int32)[None]
    said = ''
    for _ in range(8 * max(words, 0)):  # a word is seldom of so many tokens
        seen = known[-length:]
        row = np.zeros((1, length), np.int32)
        row[0, : len(seen)] = seen
        here = (places < len(seen)).astype(np.int32)
        batch = {'tokens': row, 'segments': here, 'positions': places, 'words': here}
        found = step(variables['params'], variables['batch_stats'], batch)
        known.append(int(np.asarray(found['logits'])[0, len(seen) - 1].argmax()))
        whole = library.decode(known[1:])
        said = whole[len(library.decode(tokens)) :]
        if len(said.split()) > words:
            said = said[: len(said) - len(said.split()[-1])]
            break
    return {'prompt': prompt, 'continuation': said}
