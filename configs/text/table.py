"""Your own texts: a table with a column of texts and one of labels.

    python launch.py compare --config=configs/text/table.py --config.data.dir=FILE \\
        --config.data.text=COLUMN --config.data.label=COLUMN --config.source.uri=URI \\
        --workdir=runs/mine

FILE is CSV, TSV, JSONL or Parquet, or a folder with train, validation and test files; splits that
are missing are drawn. data.text_b is a second text of each row, data.group a column whose rows
stay in one split. The model and its tokenizer are those of the source: any source.uri, such as
config:configs/text/spam.py:source, which is trained first and needs no network. No arguments.
"""

from tljax import config as base


def get_config(arg: str = ''):
    if arg:
        raise ValueError(f'configs/text/table.py takes no argument, not {arg!r}')
    config = base.default()
    config.title = 'Your own texts'
    config.model.name = 'source'
    config.data.name = 'table'
    config.transfer.reset = ('head/.*',)
    config.optim.update(lr=1e-4, weight_decay=1e-2, clip=1.0, warmup_steps=10)
    config.train.update(steps=300, batch_size=16, eval_every=30, save_every=100)
    config.study.update(lr_low=1e-5, lr_high=3e-3)
    return config
