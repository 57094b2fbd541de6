"""A report as one HTML file: no scripts, nothing fetched, pictures inside."""

import base64
import re
from collections.abc import Mapping
from html import escape as escape_html

from tljax.study.report.document import (
    Answer,
    Block,
    Bullets,
    Code,
    Document,
    Fold,
    Paragraph,
    Picture,
    Section,
    Table,
)
from tljax.study.report.page_style import CSS

INTERVAL = re.compile(r' \[(\S+), (\S+)\]')


def html(document: Document, pictures: Mapping[str, bytes]) -> str:
    """The report as a page that opens offline.

    Args:
      document: the report.
      pictures: SVG bytes by the name of the picture.
    """
    meaning = ''.join(f'<p>{escape(text)}</p>\n' for text in document.meaning)
    question = f'<p class="question">{escape(document.question)}</p>\n' if document.question else ''
    answers = ''.join(_answer(answer) for answer in document.answers)
    sections = ''.join(
        _section(index, section, pictures) for index, section in enumerate(document.sections, 1)
    )
    # The policy forbids everything but what is in the file: should text ever escape its element,
    # it can neither run nor load.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light">\n'
        f'<title>{escape(document.title)}: {escape(document.verdict)}</title>\n'
        f'<style>\n{CSS}</style>\n</head>\n<body>\n<main>\n'
        f'<header class="verdict {escape(document.verdict)}">\n'
        f'<p class="label"><span class="badge">{escape(document.verdict.capitalize())}</span> '
        f'<span>{escape(document.title)}</span></p>\n'
        f'<h1>{escape(document.sentence)}</h1>\n{question}</header>\n'
        f'<div class="meaning">\n{meaning}</div>\n'
        f'<dl class="answers">\n{answers}</dl>\n{sections}</main>\n</body>\n</html>\n'
    )


def escape(text: str) -> str:
    """Text as HTML; an interval stays on one line, and so does a number with its per cent sign.

    >>> escape('0.8 [0.7, 0.9] & more') == '0.8\\u00a0[0.7,\\u00a00.9] &amp; more'
    True
    """
    text = INTERVAL.sub('\u00a0[\\1,\u00a0\\2]', text).replace(' %', '\u00a0%')
    return escape_html(text)


def _answer(answer: Answer) -> str:
    return (
        f'<div><dt>{escape(answer.question)}</dt>'
        f'<dd class="answer">{escape(answer.answer)}</dd>'
        f'<dd class="detail">{escape(answer.detail)}</dd></div>\n'
    )


def _section(index: int, section: Section, pictures: Mapping[str, bytes]) -> str:
    blocks = ''.join(_block(block, pictures) for block in section.blocks)
    return (
        f'<section aria-labelledby="section-{index}">\n'
        f'<h2 id="section-{index}">{escape(section.title)}</h2>\n{blocks}</section>\n'
    )


def _block(block: Block, pictures: Mapping[str, bytes]) -> str:
    match block:
        case Paragraph(text):
            return f'<p>{escape(text)}</p>\n'
        case Bullets(items):
            lines = ''.join(f'<li>{escape(item)}</li>\n' for item in items)
            return f'<ul>\n{lines}</ul>\n'
        case Code(label, text):
            return f'<pre aria-label="{escape(label)}"><code>{escape(text)}</code></pre>\n'
        case Table():
            return _table(block)
        case Picture(name, alt, caption):
            data = base64.b64encode(pictures[name]).decode()
            return (
                f'<figure>\n<img src="data:image/svg+xml;base64,{data}" alt="{escape(alt)}">\n'
                f'<figcaption>{escape(caption)}</figcaption>\n</figure>\n'
            )
        case Fold(summary, blocks):
            inner = ''.join(_block(item, pictures) for item in blocks)
            return f'<details>\n<summary>{escape(summary)}</summary>\n{inner}</details>\n'


def _table(table: Table) -> str:
    """A table in a region that can be scrolled sideways, with the keyboard too."""
    head = ''.join(
        f'<th scope="col"{_classes(table, i)}>{escape(name)}</th>'
        for i, name in enumerate(table.head)
    )
    rows = ''.join(f'<tr>{_row(table, row)}</tr>\n' for row in table.rows)
    caption = escape(table.caption)
    return (
        f'<div class="table" role="region" aria-label="{caption}" tabindex="0">\n'
        f'<table>\n<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n'
        f'<tbody>\n{rows}</tbody>\n</table>\n</div>\n'
    )


def _row(table: Table, row: tuple[str, ...]) -> str:
    first = f'<th scope="row"{_classes(table, 0)}>{_cell(table, 0, row[0])}</th>'
    rest = (f'<td{_classes(table, i)}>{_cell(table, i, row[i])}</td>' for i in range(1, len(row)))
    return first + ''.join(rest)


def _classes(table: Table, column: int) -> str:
    if column in table.numbers:
        return ' class="number"'
    return ' class="prose"' if column in table.prose else ''


def _cell(table: Table, column: int, text: str) -> str:
    """A cell's text; lines after the first one are notes on it."""
    if column in table.code:
        return f'<code>{escape(text)}</code>' if text else ''
    first, *notes = text.splitlines() or ['']
    return escape(first) + ''.join(f'<span class="note">{escape(note)}</span>' for note in notes)
