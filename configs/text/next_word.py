"""The next word: a small GPT-2 from general English to a narrower text.

    python launch.py compare --config=configs/text/next_word.py --workdir=runs/next_word
    python launch.py train --config=configs/text/next_word.py --workdir=runs/next_word_1
    python launch.py predict --config=configs/text/next_word.py --workdir=runs/next_word_1 \\
        --prompt='Returns the'

Arguments (after a colon):
  ''           target: docstrings of NumPy and SciPy, 128 sequences; the source is trained first, on
               Python's own documentation. Both are real English that every installation holds;
               neither needs a network.
  source       that source.
  real         target: tinyshakespeare, 128 sequences. Texts are those of the shared data, in the
               directory that the environment variable TLJAX_REALDATA names (text/corpora).
  wikitext     its source: WikiText-2's validation part.

`data.shots` is here the number of sequences of `data.length` tokens. Metrics are by word: see
tljax/tasks/language_modelling.py.
"""

import os

from tljax import config as base
from tljax.models import arguments

SOURCE_SEED = 1000  # none of a study's: a fresh head must not be the source's own fresh head
VARIANTS = ('', 'source', 'real', 'wikitext')
VOCABULARY = 2048


def get_config(arg: str = ''):
    if arg not in VARIANTS:
        raise ValueError(f'configs/text/next_word.py has no {arg!r}; it takes one of {VARIANTS}')
    config = base.default()
    config.task.update(name='language_modelling', metric='log_perplexity')
    config.model = arguments(
        'gpt2',
        **dict(width=96, layers=2, heads=4, vocabulary=VOCABULARY, positions=128),
        **dict(tied=False, dropout=0.0, attention_dropout=0.0),
    )
    config.optim.update(lr=3e-3, weight_decay=1e-2, clip=1.0, warmup_steps=150)
    config.study.update(lr_low=3e-4, lr_high=3e-3, eval_points=6)
    config.train.batch_size = 8
    config.data.length = 64
    if arg in ('source', 'wikitext'):
        config.seed = SOURCE_SEED
        config.data.tokenizer = f'bpe({VOCABULARY})'
        config.data.holdout = 0.05
        config.train.update(steps=1500, eval_every=500, save_every=500)
    else:
        config.data.shots = 128
        config.optim.warmup_steps = 30
        config.train.update(steps=150, eval_every=25, save_every=50)
    if arg == '':
        config.title = "Python's documentation to NumPy's and SciPy's"
        config.data.update(name='package_docs', train='train[:10%]', test='test[:5%]')
        config.data.holdout = 0.1
        config.source.uri = 'config:configs/text/next_word.py:source'
    elif arg == 'source':
        config.title = "Python's documentation"
        config.data.name = 'python_docs'
    elif arg == 'real':
        config.title = 'WikiText-2 to tinyshakespeare'
        corpus(config, 'tinyshakespeare.txt')
        config.data.holdout = 0.04
        config.source.uri = 'config:configs/text/next_word.py:wikitext'
    else:
        config.title = 'WikiText-2 (validation part)'
        corpus(config, 'wikitext2_valid.txt')
    return config


def corpus(config, name):
    """A text of the shared data."""
    root = os.environ.get('TLJAX_REALDATA', '../shared/data')
    config.data.update(name='corpus', dir=os.path.join(root, 'text', 'corpora', name))
