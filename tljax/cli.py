"""The command line: one short function per command.

Exit status: 0, or 1 if the run failed, or 2 for the user's mistake (one message, no traceback).
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tljax.errors import RunError, UserError, nearest
from tljax.flags import (
    FLAGS,
    OWN_FLAGS,
    USAGE,
    USAGES,
    command_line,
    define_flags,
    parse,
    resolved,
    workdir_of,
)
from tljax.process import keep_memory, set_up_jax, set_up_logging


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
    report/index.html, report/report.md and report/results.json into the workdir. With --sources
    they are ranked, the first --top of them compared, and the ranking judged by what came out.
    """
    from tljax.study import compare as study
    from tljax.study import report

    if FLAGS.sources:
        contest()
        return
    if FLAGS.top:
        raise UserError('--top goes with --sources: it is how many of the ranked ones are trained.')
    content = study.compare(resolved(), workdir_of(), command_line(), quiet=FLAGS.quiet)
    print(report.text_summary(content))
    print(f'Report: {workdir_of() / "report" / "index.html"}')


def contest() -> None:
    """`compare --sources`."""
    from tljax.study import contest as study
    from tljax.study.report import contest as report

    config, workdir = resolved(applied=False), workdir_of()
    content = study.contest(config, workdir, command_line(), FLAGS.top, quiet=FLAGS.quiet)
    report.write(content, workdir / 'report')
    print(report.text_summary(content))
    print(f'Report: {workdir / "report" / "index.html"}')


def tune() -> None:
    """Which policy, learning rate and weight decay? Searched within a budget, on validation only.

    Successive halving over config.tune; learning rates come from a range test of each policy.
    Writes report/index.html, report/report.md and report/results.json into the workdir: train
    beside validation for each candidate, which of them overfitted, and what to train.
    """
    from tljax.study import tune as search
    from tljax.study.report import tuning

    content = search.tune(resolved(), workdir_of(), command_line(), quiet=FLAGS.quiet)
    print(tuning.text_summary(content))
    print(f'Report: {workdir_of() / "report" / "index.html"}')


def rank() -> None:
    """Which source should I start from? config.rank.sources in order, none of them trained.

    Scores the features of the target's labelled examples, and writes report/index.html,
    report/report.md and report/results.json into the workdir.
    """
    from tljax.study import rank as study
    from tljax.study import ranked
    from tljax.study.report import ranking as report

    found = study.rank(resolved(applied=False), workdir_of(), quiet=FLAGS.quiet)
    content = ranked.results(found, command_line())
    report.write(content, workdir_of() / 'report')
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
    """Predict with the trained model of a workdir: --input is an image or text file, or a folder.

    Prints one JSON object a file, or writes them to --output; a file of a folder that cannot be
    read has an "error", and the exit status is then 1. A model of the next word continues
    --prompt instead, by the likeliest token each time.
    """
    from tljax.train import serve

    if bool(FLAGS.input) == (FLAGS.prompt is not None):
        raise UserError('predict needs --input=FILE_OR_FOLDER, or --prompt=TEXT.')
    if FLAGS.prompt is not None:
        from tljax.train import continuing

        lines = [continuing.continued(resolved(), workdir_of(), FLAGS.prompt, FLAGS.words)]
    else:
        lines = serve.predict(resolved(), workdir_of(), Path(FLAGS.input))
    write_lines(lines, FLAGS.output)
    if bad := sum('error' in line for line in lines):
        raise RunError(
            f'{bad} of the {len(lines)} files in {FLAGS.input} could not be read; the "error" of '
            'each says why.'
        )


def write_lines(lines: Sequence[Mapping[str, Any]], output: str | None) -> None:
    """JSON lines, into a file or onto the terminal.

    Raises:
      UserError: the file cannot be written.
    """
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    if not output:
        print(text, end='')
        return
    try:
        Path(output).write_text(text)
    except OSError as error:
        raise UserError(f'--output={output} cannot be written: {error.strerror}.') from error


def sources() -> None:
    """The shelf: open models whose weights are known here, and where they live.

    --task and --architecture choose among them. Any of their uris can be config.source.uri;
    weights that are not on the shelf can be read too.
    """
    from tljax.pretrained import shelf

    print(shelf.table(FLAGS.task, FLAGS.architecture))


def export() -> None:
    """Write a trained model, or a --source, for others: --format, --scheme, --output.

    Reading the file again (as config.source.uri) gives the same numbers bit for bit. What LoRA and
    its like injected is merged into the weights; --format=peft writes that alone, with the head,
    and config.source.peft puts it over the source that it was trained over.
    """
    from tljax.train import export as exporting

    if not FLAGS.output:
        raise UserError('export needs --output=FILE.')
    if bool(FLAGS.source) == bool(FLAGS.workdir):
        raise UserError('export needs either --workdir=DIR, of a trained model, or --source=URI.')
    if FLAGS.format == 'peft':
        from tljax.train import export_peft

        if FLAGS.source or FLAGS.scheme:
            raise UserError('--format=peft takes --workdir=DIR, and no --source or --scheme.')
        output = export_peft.export(workdir_of(), Path(FLAGS.output), quiet=FLAGS.quiet)
        print(f'Exported: {output} ({output.stat().st_size:,} bytes)')
        return
    model = FLAGS.source or workdir_of()
    output = exporting.export(model, Path(FLAGS.output), FLAGS.format, FLAGS.scheme)
    print(f'Exported: {output}')


def average() -> None:
    """Average trained models into one: --models=DIR,DIR... --method=uniform|greedy|interpolate.

    Soups of models that began from the same weights, or WiSE-FT: --method='interpolate(share=0.5)'
    of one model goes half the way from what it began from. Only validation is read. The workdir is
    then one of a trained model, for evaluate, predict, export and config.source.uri.
    """
    from tljax.train import average as averages

    models = [Path(model) for model in FLAGS.models]
    print(averages.summary(averages.average(models, FLAGS.method, workdir_of())))
    print(f'Model: {workdir_of() / "model"}')


COMMANDS: dict[str, Callable[[], None]] = {
    'train': train,
    'compare': compare,
    'rank': rank,
    'tune': tune,
    'inspect': inspect,
    'evaluate': evaluate,
    'predict': predict,
    'sources': sources,
    'export': export,
    'average': average,
}


def main(argv: list[str]) -> int:
    """Runs the command that `argv` names; returns the exit status."""
    try:
        command = command_of(argv)
        if command is None:
            return 0
        parse([argv[0], *argv[2:]], argv[1])
        set_up_logging()
        keep_memory()
        set_up_jax()
        command()
    except UserError as error:
        return fail(2, error)
    except RunError as error:
        return fail(1, error)
    except KeyboardInterrupt:
        return fail(1, 'stopped by Ctrl-C.')
    except BrokenPipeError:  # as in `launch.py sources | head`
        sys.stderr.close()
        return 0
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
    shown = [f for f, owner in OWN_FLAGS.items() if not owner or name in owner.split()]
    usage = USAGES.get(name) or USAGE.replace('COMMAND', name)
    lines = [introspection.getdoc(COMMANDS[name]) or '', '', f'Usage: {usage}', '', 'Flags:']
    lines += [f'  --{f:15}{FLAGS[f].help} (default: {FLAGS[f].default})' for f in shown]
    if name in USAGES:
        return '\n'.join(line for line in lines if not line.startswith('  --config '))
    lines += ['', 'Config keys and defaults (--config.KEY=VALUE):']
    lines += [
        f'  {key:24}{value!r}' for key, value in config_lib.flat(config_lib.default()).items()
    ]
    return '\n'.join(lines)
