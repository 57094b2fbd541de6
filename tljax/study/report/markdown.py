"""A report as Markdown (CommonMark with tables), to be read raw or rendered."""

import re
from collections.abc import Mapping

from tljax.study.report.document import (
    Block,
    Bullets,
    Code,
    Document,
    Fold,
    Paragraph,
    Picture,
    Table,
)

# Only what would be read as markup: a reader of the raw file should not stumble over backslashes.
# Code of our own sentences stays code; what of a name or a path has other characters is escaped.
CODE = re.compile(r'(?<![\w`\\])(`[A-Za-z][\w.=/ -]*`)(?![\w`])')
SPECIAL = re.compile(r'[\\`*|]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|~(?=~)')
STARTS_BLOCK = re.compile(r'^(?=#{1,6}(\s|$)|[-+](\s|$)|-+$|=+$|>)')


def markdown(document: Document, pictures: Mapping[str, str]) -> str:
    """The report as Markdown.

    Args:
      document: the report.
      pictures: file name of each picture, relative to where the text will lie.
    """
    lines = [f'# {escape(document.sentence)}', '']
    lines += [f'**{document.verdict.capitalize()}.** {escape(document.title)}', '']
    if document.question:
        lines += [escape(document.question), '']
    for paragraph in document.meaning:
        lines += [escape(paragraph), '']
    for answer in document.answers:
        lines.append(
            f'- **{escape(answer.question)}** {escape(answer.answer)}: {escape(answer.detail)}.'
        )
    lines.append('')
    for section in document.sections:
        lines += [f'## {escape(section.title)}', '']
        for block in section.blocks:
            lines += [*_block(block, pictures), '']
    return '\n'.join(lines).rstrip() + '\n'


def escape(text: str) -> str:
    """Plain text as Markdown, on one line, that shows the same characters, and `code` as code.

    >>> escape('speedup_50 of *all* <b>')
    'speedup_50 of \\\\*all\\\\* &lt;b>'
    >>> escape('`launch.py compare` measures a `*`')
    '`launch.py compare` measures a \\\\`\\\\*\\\\`'
    """
    line = ' '.join(text.split())
    line = line.replace('&', '&amp;').replace('<', '&lt;')
    line = ''.join(
        part if CODE.fullmatch(part) else SPECIAL.sub(lambda match: '\\' + match.group(), part)
        for part in CODE.split(line)
    )
    if re.match(r'\d+[.)]\s', line):
        return re.sub(r'^(\d+)', r'\1\\', line)
    return STARTS_BLOCK.sub(r'\\', line)


def _block(block: Block, pictures: Mapping[str, str]) -> list[str]:
    match block:
        case Paragraph(text):
            return [escape(text)]
        case Bullets(items):
            return [f'- {escape(item)}' for item in items]
        case Code(label, text):
            fence = '`' * max([3, *(len(run) + 1 for run in re.findall('`+', text))])
            return [f'{escape(label)}:', '', fence, *text.splitlines(), fence]
        case Table():
            return _table(block)
        case Picture(name, alt, caption):
            shown = escape(alt).replace('[', r'\[').replace(']', r'\]')
            return [f'![{shown}]({pictures[name]})', '', f'*{escape(caption)}*']
        case Fold(summary, blocks):
            lines = [f'### {escape(summary)}', '']
            for inner in blocks:
                lines += [*_block(inner, pictures), '']
            return lines[:-1]


def _table(table: Table) -> list[str]:
    rules = ['---:' if i in table.numbers else '---' for i in range(len(table.head))]
    rows = [table.head, *table.rows]
    lines = ['| ' + ' | '.join(escape(cell) for cell in row) + ' |' for row in rows]
    lines.insert(1, '| ' + ' | '.join(rules) + ' |')
    return [f'**{escape(table.caption)}**', '', *lines]
