"""Which tokenizer a config names."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tljax import config as config_lib
from tljax.data import prepared
from tljax.data.split import Records
from tljax.data.text import tokenizer as tokenizers
from tljax.data.text.form import text_of
from tljax.data.text.tokenizer import Tokenizer
from tljax.errors import UserError

DEFAULT = 'bpe(4096)'  # from scratch; `tljax.pretrained.inputs` refuses it with a source
LENGTH = 128  # tokens an example, where nobody says
CONFIG = 'config:'


def tokenizer_of(config: Any, builder: Any) -> Tokenizer:
    """The tokenizer that `config.data.tokenizer` names.

    Args:
      config: the section `config.data`.
      builder: of the set, whose training split 'bpe(N)' is trained on.

    Raises:
      UserError: there is none of this name, or the other recipe has its source's.
    """
    asked = config.tokenizer or DEFAULT
    if asked.startswith(CONFIG):
        recipe = config_lib.load(asked.removeprefix(CONFIG))
        other = recipe.data
        if recipe.source.uri and not other.tokenizer:
            raise UserError(
                f'config.data.tokenizer: {asked} has that of its own source, '
                f'{recipe.source.uri!r}. Name the file of that one.'
            )
        other.prepared = other.prepared or config.prepared
        if not {config.name, other.name} & prepared.THE_USERS.keys():
            other.dir = other.dir or config.dir
        return tokenizer_of(other, prepared.open_set(other))
    if bpe := re.fullmatch(r'bpe\((\d+)\)', asked):
        return tokenizers.trained(corpus(builder, config.train), int(bpe[1]))
    return tokenizers.read(Path(asked).expanduser())


def corpus(builder: Any, spec: str) -> Iterator[str]:
    """The texts of a TFDS split, in the order in which they are stored."""
    features = builder.info.features
    if 'text' not in features:
        raise UserError(f'config.data.tokenizer: {builder.info.full_name} has no texts.')
    names = [name for name in ('text', 'text_b') if name in features]
    for stored in Records(builder, spec, None).stored(*names):
        yield from (text_of(stored[name]) for name in names)
