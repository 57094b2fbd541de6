"""The command line: one short function per command.

Exit status: 0, or 1 if the run failed, or 2 for the user's mistake (one message, no traceback).
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags, logging

from tljax.errors import RunError, UserError, nearest

USAGE = 'python launch.py COMMAND --config=FILE[:ARG] [--config.key=value ...] --workdir=DIR'

FLAGS = flags.FLAGS
# Each flag, and the one command that takes it; '' is every command.
OWN_FLAGS = {
    'config': '',
    'workdir': '',
    'quiet': '',
    'cache': '',
    'split': 'evaluate',
    'input': 'predict',
    'output': 'predict',
    'distributed': '',
    'coordinator': '',
    'num_processes': '',
    'process_id': '',
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
    flags.DEFINE_string('input', None, 'predict: an image file, or a folder of them.')
    flags.DEFINE_string('output', None, "predict: JSON-lines file to write; '' is the terminal.")
    flags.DEFINE_bool('distributed', False, 'One of several processes of a cluster job.')
    flags.DEFINE_string('coordinator', None, "HOST:PORT of process 0; '' is the cluster's own.")
    flags.DEFINE_integer('num_processes', None, 'How many; left out, the cluster tells.')
    flags.DEFINE_integer('process_id', None, 'Which of them this is; likewise.')


def train() -> None:
    """Train one model: from scratch, or from config.source.uri.

    Leaves config.json, splits.json, checkpoints/, metrics.jsonl, tensorboard/ and model/ in the
    workdir. A run that was stopped or killed goes on when the same command is given again.
    """
    from tljax.train import experiment, loop, sources
    from tljax.train import workdir as workdirs

    config, workdir = resolved(), workdir_of()
    workdirs.check(workdir, config, 'train')
    source = sources.load(config, workdir, quiet=FLAGS.quiet)
    model_dir = loop.train(experiment.build(config, source), workdir, quiet=FLAGS.quiet)
    print(f'Model: {model_dir}')


def compare() -> None:
    """Did transfer help, by how much, and is it worth it? Transfer beside scratch, paired.

    Tunes the learning rate of both arms alike, runs both over config.study.seeds seeds and writes
    report/index.html, report/report.md and report/results.json into the workdir.
    """
    from tljax.study import compare as study
    from tljax.study import report

    content = study.compare(resolved(), workdir_of(), command_line(), quiet=FLAGS.quiet)
    print(report.text_summary(content))
    print(f'Report: {workdir_of() / "report" / "index.html"}')


def inspect() -> None:
    """What would be reused and trained: every leaf, without training anything.

    Prints for each leaf whether it is loaded, renamed, resized, reset or unused, frozen or
    trained, at which rate; and the floating-point operations and bytes of a step.
    """
    from tljax.train import inspect as inspection

    print(inspection.describe(resolved(), workdir_of()))


def evaluate() -> None:
    """Measure the trained model of a workdir, on --split=validation or --split=test.

    The test split is read once: its result is kept in the workdir, and shown again from there.
    """
    from tljax.train import serve

    values = serve.evaluate(resolved(), workdir_of(), FLAGS.split)
    print(json.dumps({'split': FLAGS.split, **values}))


def predict() -> None:
    """Predict with the trained model of a workdir: --input is an image file or a folder of them.

    Prints one JSON object a file, or writes them to --output.
    """
    from tljax.train import serve

    if not FLAGS.input:
        raise UserError('predict needs --input=FILE_OR_FOLDER.')
    lines = serve.predict(resolved(), workdir_of(), Path(FLAGS.input))
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    if not FLAGS.output:
        print(text, end='')
        return
    try:
        Path(FLAGS.output).write_text(text)
    except OSError as error:
        raise UserError(f'--output={FLAGS.output} cannot be written: {error.strerror}.') from error


# These find the config in the workdir, where --config is left out.
READERS = ('evaluate', 'predict')

COMMANDS: dict[str, Callable[[], None]] = {
    'train': train,
    'compare': compare,
    'inspect': inspect,
    'evaluate': evaluate,
    'predict': predict,
}


def main(argv: list[str]) -> int:
    """Runs the command that `argv` names; returns the exit status."""
    try:
        command = command_of(argv)
        if command is None:
            return 0
        parse([argv[0], *argv[2:]], argv[1])
        set_up_logging()
        set_up_jax()
        command()
    except UserError as error:
        return fail(2, error)
    except RunError as error:
        return fail(1, error)
    except KeyboardInterrupt:
        return fail(1, 'stopped by Ctrl-C.')
    except OSError as error:
        if error.errno is None:
            raise
        return fail(1, f'{error.strerror}: {error.filename or ""}')
    return 0


def fail(status: int, message: Any) -> int:
    print(f'tljax: {message}', file=sys.stderr)
    return status


def command_of(argv: list[str]) -> Callable[[], None] | None:
    """The command that the first argument names; None where help was all that was asked for.

    Raises:
      UserError: there is no such command.
    """
    name = argv[1] if len(argv) > 1 else '--help'
    if name in ('-h', '--help', '--helpfull', 'help'):
        print(overview())
        return None
    if name not in COMMANDS:
        raise UserError(f'no command {name!r}.{nearest(name, COMMANDS)}\nUsage: {USAGE}')
    if any(word in ('-h', '--help', '--helpfull') for word in argv[2:]):
        print(help_of(name))
        return None
    return COMMANDS[name]


def overview() -> str:
    """`launch.py --help`."""
    lines = [f'  {name:10}{(f.__doc__ or "").splitlines()[0]}' for name, f in COMMANDS.items()]
    return '\n'.join(
        [
            'tljax: transfer learning, and the measure of whether it helped.',
            '',
            f'Usage: {USAGE}',
            '',
            *lines,
            '',
            'launch.py COMMAND --help tells more. A first one, which needs no network:',
            '  python launch.py compare --config=configs/digits.py --workdir=runs/digits',
        ]
    )


def help_of(name: str) -> str:
    """`launch.py COMMAND --help`: the command's docstring, its flags and the config's keys."""
    import inspect as introspection

    from tljax import config as config_lib

    define_flags()
    shown = [flag for flag in OWN_FLAGS if OWN_FLAGS[flag] in ('', name)]
    usage = USAGE.replace('COMMAND', name)
    lines = [introspection.getdoc(COMMANDS[name]) or '', '', f'Usage: {usage}', '', 'Flags:']
    lines += [f'  --{f:15}{FLAGS[f].help} (default: {FLAGS[f].default})' for f in shown]
    lines += ['', 'Config keys and defaults (--config.KEY=VALUE):']
    lines += [
        f'  {key:24}{value!r}' for key, value in config_lib.flat(config_lib.default()).items()
    ]
    return '\n'.join(lines)


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
        raise UserError(str(error)) from error
    except (AttributeError, KeyError) as error:
        raise UserError(f'unknown config key: {tidy(error)}') from error
    if rest:
        raise UserError(f'unexpected argument {rest[0]!r}.\nUsage: {USAGE}')
    for name, owner in OWN_FLAGS.items():
        if owner not in ('', command) and FLAGS[name].present:
            raise UserError(f'--{name} belongs to the command {owner}; {command} does not read it.')
    for name in ('workdir', 'config'):
        if FLAGS[name].value is None and not (name == 'config' and command in READERS):
            raise UserError(f'--{name} is missing.\nUsage: {USAGE}')


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


def tidy(error: BaseException) -> str:
    """The first lines of a library's message, on one line."""
    words = str(error.args[0] if error.args else error).replace('\\n', '\n').replace("\\'", "'")
    return ' '.join(line.strip(" '") for line in words.splitlines() if line.strip(" '")) + '.'


def resolved() -> Any:
    """The config of the command line, completed and checked; else the one the workdir holds."""
    from tljax import config as config_lib

    if FLAGS.config is not None:
        return config_lib.resolve(FLAGS.config)
    from tljax.train.workdir import held_config

    return held_config(workdir_of())


def workdir_of() -> Path:
    return Path(FLAGS.workdir)


def command_line() -> str:
    """The command as it was typed."""
    import shlex

    return shlex.join(['python', *sys.argv])


def set_up_logging() -> None:
    """Our own notices on stderr, other libraries' only from errors on."""
    import logging as python_logging

    ours = str(Path(__file__).parent)

    def is_news(record: python_logging.LogRecord) -> bool:
        return record.levelno >= python_logging.ERROR or record.pathname.startswith(ours)

    logging.use_absl_handler()
    handler = logging.get_absl_handler()
    handler.setFormatter(python_logging.Formatter('%(message)s'))
    handler.addFilter(is_news)
    logging.set_verbosity(logging.WARNING if FLAGS.quiet else logging.INFO)
    logging.set_stderrthreshold('info')
    sys.unraisablehook = quiet_about_closed_loops


def quiet_about_closed_loops(unraisable: Any) -> None:
    """Prints what a thread could not raise, unless it is the echo of a failed save.

    After a full disk TensorStore's threads report to an event loop that Orbax has closed already;
    the failure itself is raised, and told, where the save was waited for.
    """
    if str(unraisable.exc_value) != 'Event loop is closed':
        sys.__unraisablehook__(unraisable)


def set_up_jax() -> None:
    """Compilation cache, and the other processes of a cluster job."""
    import jax

    if FLAGS.cache:
        home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
        if getattr(jax.config, 'jax_compilation_cache_dir', None) is None:
            jax.config.update('jax_compilation_cache_dir', str(home / 'tljax' / 'compiled'))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
    else:
        jax.config.update('jax_enable_compilation_cache', False)
    if FLAGS.distributed:
        try:
            jax.distributed.initialize(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f'--distributed: {error} Where no cluster is recognised (Slurm, Open MPI, TPU, '
                'Kubernetes), give --coordinator, --num_processes and --process_id.'
            ) from error
        if jax.process_index():
            FLAGS['quiet'].value = True
