"""Finding prepared TFDS sets, and preparing our own. Nothing is ever downloaded here."""

import contextlib
import errno
import importlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any

from absl import logging

from tljax.errors import RunError, UserError, nearest

OURS = {
    'handwritten_digits': 'tljax.data.builders.handwritten_digits:HandwrittenDigits',
    'package_docs': 'tljax.data.builders.documentation:PackageDocs',
    'printed_digits': 'tljax.data.builders.printed_digits:PrintedDigits',
    'python_docs': 'tljax.data.builders.documentation:PythonDocs',
    'synthetic_mail': 'tljax.data.builders.synthetic_mail:SyntheticMail',
    'synthetic_spam': 'tljax.data.builders.synthetic_mail:SyntheticSpam',
}
# Sets of the user's own: `config.data.dir` is where they are, not where prepared sets are kept.
THE_USERS = {
    'arrays': 'tljax.data.own.arrays:open_arrays',
    'corpus': 'tljax.data.own.corpus:open_corpus',
    'folder': 'tljax.data.own.folder:open_folder',
    'table': 'tljax.data.own.table:open_table',
}


def open_set(config: Any) -> Any:
    """The TFDS builder of `config.data`, whoever's set it is.

    Raises:
      UserError: as for `open_builder`, or the user's data cannot be used.
      RunError: as for `open_builder`.
    """
    for key, unread in (('split', config.name != 'table'), ('group', config.name == 'corpus')):
        if config[key] and unread:
            raise UserError(
                f'config.data.{key} is {config[key]!r}, and of config.data.name={config.name!r} it '
                'is not read: rows would be divided without it. Leave it out, or make a table.'
            )
    if config.name not in THE_USERS:
        builder = open_builder(config.name, config.dir)
        if not any(config[key] for key in ('text', 'text_b', 'image', 'label', 'group')):
            return builder
        from tljax.data.own.foreign import open_columns

        return open_columns(config, builder)
    if not config.dir:
        raise UserError(
            f'config.data.dir is empty: config.data.name={config.name!r} needs the path of your '
            'data there.'
        )
    module, _, attribute = THE_USERS[config.name].partition(':')
    return getattr(importlib.import_module(module), attribute)(config)


def own_validation(own: bool, splits: Any) -> str:
    """The validation split that the user's own data comes with; '' for any other set."""
    return 'validation' if own and 'validation' in splits else ''


def account_of(builder: Any) -> dict[str, Any]:
    """What became of the rows of the user's own data; {} for any other set."""
    file = Path(builder.data_path) / 'account.json'
    return json.loads(file.read_text(encoding='utf-8')) if file.exists() else {}


def open_builder(name: str, directory: str) -> Any:
    """The TFDS builder of a set that is prepared with random access; ours are prepared first.

    Args:
      name: of `config.data.name`: 'tfds:NAME' or one of ours.
      directory: of `config.data.dir`; '' is TFDS's own default.

    Raises:
      UserError: no such set; not prepared; prepared in another form; the folder can't be written.
      RunError: no space left to prepare it.
    """
    directory = os.path.expanduser(directory)
    ours = name.removeprefix('tfds:')
    if ours in OURS:
        return _ours(ours, directory)
    if name.startswith('tfds:'):
        return _foreign(name.removeprefix('tfds:'), directory)
    raise UserError(
        f'config.data.name: there is no data set {name!r}.{nearest(name, [*OURS, *THE_USERS])} '
        f"A set of TensorFlow Datasets is written as 'tfds:NAME', here 'tfds:{name}'."
    )


def _ours(name: str, directory: str) -> Any:
    import tensorflow_datasets as tfds

    module, _, attribute = OURS[name].partition(':')
    cls = getattr(importlib.import_module(module), attribute)
    where = directory or str(tfds.core.constants.DATA_DIR)

    def construct() -> Any:
        try:
            return cls(data_dir=where, file_format='array_record')
        except OSError:
            raise
        except Exception as error:
            raise RunError(damaged(name, where, error)) from error

    path = Path(construct().data_path)
    try:
        if not is_prepared(path):
            logging.info('Preparing %s in %s, once: a few seconds', name, path)
            _prepare(construct(), tfds)
    except OSError as error:
        if is_prepared(path):  # another process was faster: its folder stood in the way of ours
            return construct()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f'No space is left in {where} to prepare {name}.') from None
        raise UserError(
            f'config.data.dir: {name} cannot be prepared in {where}: {error.strerror or error}. '
            'Set data.dir to a folder that can be written.'
        ) from None
    return construct()


def damaged(name: str, where: str, error: Exception) -> str:
    """The message for a folder that TFDS can't make sense of."""
    return (
        f'{name} in {where or "the default folder of TFDS"} is damaged: {first_paragraph(error)} '
        "Delete the set's folder there and prepare it again."
    )


def is_prepared(path: Path) -> bool:
    """Whether a TFDS folder is complete: TFDS renames it into place when it is."""
    return (path / 'dataset_info.json').exists()


def _prepare(builder: Any, tfds: Any) -> None:
    # TFDS prints to stdout, which is for results, and draws bars for a second's work.
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
    finally:
        tfds.enable_progress_bar()


def _foreign(name: str, directory: str) -> Any:
    from tensorflow_datasets.core import read_only_builder, registered

    # Anything more, such as a namespace (huggingface:...), could lead TFDS to the network.
    if not re.fullmatch(r'\w+(/[\w.+-]+)?(:[\d.*]+)?', name):
        raise UserError(
            f"config.data.name=tfds:{name} is not of the form 'tfds:NAME', 'tfds:NAME/CONFIG' or "
            "'tfds:NAME/CONFIG:VERSION'."
        )
    try:
        # From files, so that builders whose code needs TensorFlow can be read without it.
        builder = read_only_builder.builder_from_files(name, data_dir=directory or None)
    except registered.DatasetNotFoundError:
        raise UserError(_missing(name, directory)) from None
    except ValueError as error:
        raise UserError(f'config.data.name=tfds:{name}: {first_paragraph(error)}') from None
    except Exception as error:
        raise RunError(damaged(f'tfds:{name}', directory, error)) from error
    formats = {form.value for form in builder.info.available_file_formats()}
    if 'array_record' not in formats:
        held = ', '.join(sorted(formats)) or 'no files of examples'
        raise UserError(
            f'config.data.name=tfds:{name}: {builder.data_path} holds it as {held}, which cannot '
            'be read in random order. Prepare it once more, in another folder, and set '
            f'config.data.dir to that:\n  {_how_to(name, "FOLDER")}'
        )
    return builder


def _missing(name: str, directory: str) -> str:
    """The message for a set that is not prepared: what, where looked, how big, how to."""
    import tensorflow_datasets as tfds

    where, size, note = directory or str(tfds.core.constants.DATA_DIR), '', ''
    try:
        unseen = io.StringIO()  # TFDS prints a banner if the builder wants TensorFlow
        with contextlib.redirect_stdout(unseen), contextlib.redirect_stderr(unseen):
            builder = tfds.builder(name, data_dir=directory or None)
        where = str(builder.data_path)
        # Sizes of registered downloads: those of every config and version, so an upper bound.
        total = sum(info.size or 0 for info in builder.url_infos.values())
        size = f' Its downloads are at most {_readable(total)}.' if total else ''
    except tfds.core.registered.DatasetNotFoundError:
        base = name.partition('/')[0].partition(':')[0]
        known = tfds.list_builders(with_community_datasets=False)
        return (
            f'config.data.name=tfds:{name}: no such set is prepared in {where}, and TensorFlow '
            f'Datasets knows none of this name.{nearest(base, known)} (Some sets are known only '
            'where TensorFlow is installed.)'
        )
    except ImportError:
        note = " Its builder needs TensorFlow (pip install 'tljax[prepare]'); reading it does not."
    except (ValueError, AssertionError) as error:
        return f'config.data.name=tfds:{name}: {first_paragraph(error)}'
    return (
        f'config.data.name=tfds:{name} is not prepared: nothing was found in {where}. '
        f'It is not downloaded without being asked for.{size}{note} To prepare it, run\n  '
        f'{_how_to(name, directory)}'
    )


def _how_to(name: str, directory: str) -> str:
    place = f', data_dir={directory!r}' if directory else ''
    return (
        'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder({name!r}, file_format='array_record'{place}).download_and_prepare()\""
    )


def _readable(size: float) -> str:
    return f'{size / 1e9:.1f} GB' if size >= 1e9 else f'{size / 1e6:.1f} MB'


def first_paragraph(error: Exception) -> str:
    """The part of a library's message before its lists and examples, as one sentence."""
    text = ' '.join(str(error).strip().split('\n\n')[0].split())
    text = text.partition(' Here are ')[0]
    return re.sub(r'^Failed to construct dataset .*?\}": ', '', text).rstrip('.:') + '.'
