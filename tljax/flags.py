"""The command line's flags: defined, parsed, and turned into a config and a workdir."""

import difflib
import re
import sys
from pathlib import Path
from typing import Any

from absl import flags

from tljax.errors import UserError, nearest

USAGE = 'python launch.py COMMAND --config=FILE[:ARG] [--config.key=value ...] --workdir=DIR'
# Of the commands that take no config.
USAGES = {
    'sources': 'python launch.py sources [--task=WORDS] [--architecture=NAME]',
    'export': 'python launch.py export (--workdir=DIR | --source=URI) --output=FILE '
    '[--format=safetensors|npz|orbax|peft] [--scheme=NAME]',
    'average': 'python launch.py average --models=DIR[,DIR...] --workdir=DIR '
    '[--method=uniform|greedy|interpolate(share=0.5)]',
}

FLAGS = flags.FLAGS
# Each flag, and the commands that take it; '' is every command.
OWN_FLAGS = {
    'config': '',
    'workdir': '',
    'quiet': '',
    'cache': '',
    'split': 'evaluate',
    'input': 'predict',
    'prompt': 'predict',
    'words': 'predict',
    'output': 'predict export',
    'format': 'export',
    'scheme': 'export',
    'source': 'export',
    'task': 'sources',
    'architecture': 'sources',
    'models': 'average',
    'sources': 'compare rank',
    'top': 'compare',
    'method': 'average',
    'distributed': '',
    'coordinator': '',
    'num_processes': '',
    'process_id': '',
}

NO_NUMBER = {  # Python's words for it, and ours
    'invalid literal for int() with base 10: ': 'it takes a whole number',
    'could not convert string to float: ': 'it takes a number',
}

# What each command cannot do without; the readers find the config in the workdir.
NEEDED = {
    'average': ('workdir', 'models'),
    'evaluate': ('workdir',),
    'export': (),
    'predict': ('workdir',),
    'sources': (),
}


def define_flags() -> None:
    """Defines the flags; once a process."""
    from ml_collections import config_flags

    if 'workdir' in FLAGS:
        return
    config_flags.DEFINE_config_file(
        'config', None, 'Recipe: a Python file, with an argument after a colon if it takes one.'
    )
    flags.DEFINE_string('workdir', None, 'Directory that everything is written to.')
    flags.DEFINE_bool('quiet', False, 'No progress bar, and nothing but the result.')
    flags.DEFINE_bool('cache', True, "Keep compiled programs in jax's cache on disk.")
    flags.DEFINE_enum(
        'split', 'validation', ['validation', 'test'], 'evaluate: which split to read.'
    )
    flags.DEFINE_string('input', None, 'predict: an image or text file, or a folder of them.')
    flags.DEFINE_string('prompt', None, 'predict: a text that a model of text continues.')
    flags.DEFINE_integer('words', 20, 'predict: how many words --prompt is continued by.')
    flags.DEFINE_string(
        'output', None, "predict: JSON-lines file, '' is the terminal; export: file or directory."
    )
    flags.DEFINE_enum(
        'format', 'safetensors', ['safetensors', 'npz', 'orbax', 'peft'], 'export: of it.'
    )
    flags.DEFINE_string('scheme', '', "export: whose names, such as torchvision; '' is our own.")
    flags.DEFINE_string('source', '', 'export: uri of a source, instead of a workdir.')
    flags.DEFINE_string(
        'sources', '', 'rank, compare: uris with commas between, in the place of rank.sources.'
    )
    flags.DEFINE_integer('top', 0, 'compare --sources: train the first so many; 0 is all.')
    flags.DEFINE_string('task', '', 'sources: only those with these words in task or modality.')
    flags.DEFINE_string('architecture', '', 'sources: only those of this architecture.')
    flags.DEFINE_list('models', None, 'average: workdirs of trained models, with commas between.')
    flags.DEFINE_string(
        'method', 'uniform', "average: uniform, greedy, interpolate(share=0.5) or (share='best')."
    )
    flags.DEFINE_bool('distributed', False, 'One of several processes of a cluster job.')
    flags.DEFINE_string('coordinator', None, "HOST:PORT of process 0; '' is the cluster's own.")
    flags.DEFINE_integer('num_processes', None, 'How many; left out, the cluster tells.')
    flags.DEFINE_integer('process_id', None, 'Which of them this is; likewise.')


def parse(argv: list[str], command: str) -> None:
    """Parses the flags.

    Raises:
      UserError: an unknown flag or config key, a value of the wrong type, a bad config file.
    """
    define_flags()
    argv = [found_config(word) for word in joined(argv)]
    try:
        rest = FLAGS(argv)[1:]
    except (flags.Error, OSError, ValueError, TypeError) as error:
        raise UserError(in_words(error)) from error
    except (AttributeError, KeyError) as error:
        raise UserError(unknown_key(argv) or f'unknown config key: {tidy(error)}') from error
    if rest:
        raise UserError(f'unexpected argument {rest[0]!r}.\nUsage: {USAGES.get(command, USAGE)}')
    for name, owner in OWN_FLAGS.items():
        if owner and command not in owner.split() and FLAGS[name].present:
            owners = ' and '.join(owner.split())
            raise UserError(
                f'--{name} belongs to the command {owners}; {command} does not read it.'
            )
    if command in USAGES and FLAGS.config is not None:
        raise UserError(f'{command} reads no --config.\nUsage: {USAGES[command]}')
    for name in NEEDED.get(command, ('workdir', 'config')):
        if FLAGS[name].value is None:
            raise UserError(f'--{name} is missing.\nUsage: {USAGES.get(command, USAGE)}')


def joined(argv: list[str]) -> list[str]:
    """`--config FILE` as one word, `--config=FILE`."""
    words = list(argv)
    for index in range(len(words) - 1):
        if words[index] in ('--config', '-config'):
            words[index : index + 2] = [f'--config={words[index + 1]}', '']
    return [word for word in words if word]


def found_config(word: str) -> str:
    """A `--config=FILE` with the path that the file was found at; any other word as it is.

    The recipe is tried here first, since ml_collections' own errors are tracebacks.
    """
    from tljax import config as config_lib

    flag, equals, spec = word.partition('=')
    if not equals or flag.lstrip('-') != 'config':
        return word
    config_lib.read(spec)
    file, colon, argument = spec.partition(':')
    return f'--config={config_lib.path_of(file)}{colon}{argument}'


def in_words(error: BaseException) -> str:
    """A message about a flag, with Python's words for what is no number in plain ones.

    >>> in_words(ValueError("flag --n=x: invalid literal for int() with base 10: 'x'"))
    "flag --n=x: it takes a whole number, not 'x'."
    """
    for python, plain in NO_NUMBER.items():
        before, found, value = str(error).partition(python)
        if found:
            return f'{before}{plain}, not {value}.'
    return str(error)


def unknown_key(argv: list[str]) -> str:
    """What to say of the first --config.KEY that the recipe has not; '' if it has all."""
    from tljax import config as config_lib

    asked = [found[1] for word in argv if (found := re.match(r'--?(?:no)?config\.([^=\[]+)', word))]
    spec = next((word.partition('=')[2] for word in argv if re.match('--?config=', word)), '')
    try:
        known = list(config_lib.flat(config_lib.read(spec))) if spec else []
    except (TypeError, ValueError):  # no config at all
        known = []
    for key in asked if known else ():
        if not any(f'{k}.'.startswith(f'{key}.') for k in known):
            return f'unknown config key {key}.{like_key(key, known)}'
    return ''


def like_key(key: str, known: list[str]) -> str:
    """Suggests keys like one that is unknown, those first whose last part is like its last.

    >>> like_key('stepz', ['train.steps', 'tune.trials'])
    " Did you mean 'train.steps'?"
    """
    names = {k.rpartition('.')[2] for k in known}
    like = difflib.get_close_matches(key.rpartition('.')[2], names, 1, 0.75)
    near = [k for k in known if k.rpartition('.')[2] in like]
    best = [k for k in near if k.startswith(f'{key.partition(".")[0]}.')] or near
    if len(best) == 1:
        return f' Did you mean {best[0]!r}?'
    return nearest(key, best or known)


def tidy(error: BaseException) -> str:
    """The first lines of a library's message, on one line."""
    words = str(error.args[0] if error.args else error).replace('\\n', '\n').replace("\\'", "'")
    return ' '.join(line.strip(" '") for line in words.splitlines() if line.strip(" '")) + '.'


def resolved(applied: bool = True) -> Any:
    """The config of the command line, completed and checked; else the one the workdir holds.

    Args:
      applied: whether what the source's card says of its input is in it.
    """
    from tljax import config as config_lib

    if FLAGS.config is not None:
        from tljax.pretrained import inputs
        from tljax.train import sources

        config = config_lib.resolve(FLAGS.config)
        if FLAGS.sources:
            config.rank.sources = split_calls(FLAGS.sources)
        if not applied:
            return config
        return inputs.applied(sources.with_model(config, quiet=FLAGS.quiet))
    from tljax.train.workdir import held_config

    return held_config(workdir_of())


def split_calls(text: str) -> tuple[str, ...]:
    """Words between commas, except those inside parentheses.

    >>> split_calls('runs/cars,random:resnet(depth=18, width=64)')
    ('runs/cars', 'random:resnet(depth=18, width=64)')
    """
    words, depth = [''], 0
    for letter in text:
        depth += (letter == '(') - (letter == ')')
        if letter == ',' and depth <= 0:
            words.append('')
        else:
            words[-1] += letter
    return tuple(word.strip() for word in words)


def workdir_of() -> Path:
    return Path(FLAGS.workdir)


def command_line() -> str:
    """The command as it was typed."""
    import shlex

    return shlex.join(['python', *sys.argv])
