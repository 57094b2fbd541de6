"""`config.data.name='corpus'`: running text, for language modelling."""

import codecs
import hashlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tljax.data.own import encodings, prepare
from tljax.data.own.rows import Ready, Row
from tljax.errors import UserError

HEADING = re.compile(r'^ = [^=].* = $', re.M)  # of an article, as WikiText marks it
DOCUMENT = 4000  # characters after which a text without headings is cut, at an empty line
SHARES = (('train', 0.8), ('validation', 0.9), ('test', 1.0))


def open_corpus(config: Any) -> Any:
    """The TFDS builder of a text file of the user's, or of a folder of them.

    Args:
      config: the section `config.data`; `dir` is a .txt file, whose first 80 % of documents are
        for training, the next 10 % for validation and the last for test; or a folder with
        train.txt, test.txt and, if there is one, validation.txt.

    Raises:
      UserError: no such file, or as for `prepare.prepare`.
    """
    path = Path(config.dir).expanduser()
    files = files_of(path)
    stats = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f, _ in files]

    def ready(kept: Path) -> Ready:
        import tensorflow_datasets as tfds

        rows, texts = [], []
        notes: list[str] = []
        for file, split in files:
            text, told = text_of(file, config.encoding)
            found = list(documents(text))
            notes.extend(told)
            for n, (line, text) in enumerate(found):
                drawn = split or next(s for s, share in SHARES if n < share * len(found))
                rows.append(Row(f'{file.name}:{line}', '', drawn))
                texts.append(text)
        return Ready(
            rows=rows,
            bad=[''] * len(rows),
            digests=[hashlib.sha256(text.encode()).hexdigest() for text in texts],
            features={'text': tfds.features.Text()},
            example=lambda index: {'text': texts[index]},
            notes=notes,
            labelled=False,
        )

    return prepare.prepare(config, prepare.stamp_of(config, (), stats), ready)


def files_of(path: Path) -> list[tuple[Path, str]]:
    """Files, and the split of each; '' is all of them."""
    if path.is_file():
        return [(path, '')]
    files = [(path / f'{split}.txt', split) for split in ('train', 'validation', 'test')]
    files = [(file, split) for file, split in files if file.is_file()]
    if not {'train', 'test'} <= {split for _, split in files}:
        raise UserError(
            f'config.data.dir={path} is neither a text file nor a folder with train.txt and '
            'test.txt.'
        )
    return files


def text_of(file: Path, encoding: str) -> tuple[str, list[str]]:
    """A file's text, odd bytes replaced, and a note where its encoding was guessed.

    Raises:
      UserError: it cannot be read, or has not the encoding that is asked for.
    """
    notes: list[str] = []
    try:
        if encoding:
            encoding = encodings.with_mark(file, codecs.lookup(encoding).name)
        else:
            encoding, note = encodings.encoding_of(file)
            notes += [note] if note else []
        return file.read_bytes().decode(encoding, 'replace'), notes
    except OSError as error:
        raise UserError(f'config.data.dir={file} cannot be read: {error.strerror}.') from None
    except UnicodeError as error:
        raise UserError(f'config.data.encoding: {file} is no {encoding}: {error}.') from None
    except LookupError:
        raise UserError(f'config.data.encoding: there is no encoding {encoding!r}.') from None


def documents(text: str) -> Iterator[tuple[int, str]]:
    """The documents of a text, each with the line it begins in.

    Articles where there are headings as those of WikiText; else paragraphs together, until they
    have `DOCUMENT` characters.

    >>> list(documents(' = A = \\n\\n one \\n = B = \\n two'))
    [(1, ' = A = \\n\\n one \\n'), (4, ' = B = \\n two')]
    """
    cuts = [match.start() for match in HEADING.finditer(text)]
    if not cuts:
        for match in re.finditer(r'\n\s*\n', text):
            if match.end() - (cuts[-1] if cuts else 0) >= DOCUMENT:
                cuts.append(match.end())
    edges = [0, *(cut for cut in cuts if cut), len(text)]
    line = 1
    for first, last in itertools.pairwise(edges):
        part = text[first:last]
        if part.strip():
            yield line, part
        line += part.count('\n')
