"""The page and the Markdown: safe against any text, self-contained, accessible."""

import re

import pytest

from tljax.study.report import comparison as report
from tljax.study.report import markdown, page_style, sections

NASTY = '<script>alert("x")</script>\'&amp; | `a` *b* _c_ [d](http://e)\n# f'
pytestmark = pytest.mark.usefixtures('short_pictures')


def nasty(value):
    """Every text (and key of a free dict) with markup of both languages behind it."""
    if isinstance(value, str):
        return value and value + NASTY  # a note that is not there stays away
    if isinstance(value, dict):
        return {key: nasty(item) for key, item in value.items()}
    return [nasty(item) for item in value] if isinstance(value, list) else value


def injected(results):
    poisoned = nasty(results)
    poisoned['verdict']['name'] = results['verdict']['name']
    for entry, clean in zip(
        poisoned['manifest']['entries'], results['manifest']['entries'], strict=True
    ):
        entry['action'] = clean['action']  # the order of the groups is not at stake here
    return poisoned


def test_no_text_becomes_markup(written, real_pictures, made_up, tmp_path):
    clean, _ = written(made_up(), tmp_path / 'clean')
    page, text = written(injected(made_up()), tmp_path / 'nasty')
    tags, expected = ([tag for tag, _ in p.elements] for p in (page, clean))
    # Notes of several lines become several spans; nothing else may change.
    assert [t for t in tags if t != 'span'] == [t for t in expected if t != 'span']
    assert page.text.count('<script>alert("x")</script>') > 50  # shown as text
    outside_code = re.sub(r'^(`{3,}).*?^\1$', '', text, flags=re.DOTALL | re.MULTILINE)
    assert '<' not in outside_code
    assert '](http' not in outside_code.replace(r'\](http', '')
    assert not re.search(r'^# f', outside_code, flags=re.MULTILINE)


def test_markdown_tables_keep_their_columns(written, made_up, tmp_path):
    _, text = written(injected(made_up()), tmp_path)
    outside_code = re.sub(r'^(`{3,}).*?^\1$', '', text, flags=re.DOTALL | re.MULTILINE)
    widths = []
    for line in outside_code.splitlines():
        if line.startswith('| '):
            widths.append(len(re.findall(r'(?<!\\)\|', line)))
        elif widths:
            assert len(set(widths)) == 1, line
            widths = []
    assert '| --- |' in outside_code


def test_code_fence_is_longer_than_any_inside():
    block = markdown._block(sections.Bullets(('a',)), {})
    assert block == ['- a']
    lines = markdown._block(report.sections.provenance.Code('Command', 'a ```` b'), {})
    assert lines[2:] == ['`````', 'a ```` b', '`````']


def test_page_opens_offline_without_scripts(written, made_up, tmp_path):
    page, _ = written(made_up(), tmp_path)
    assert not {tag for tag, _ in page.elements} & {'script', 'link', 'iframe', 'object', 'base'}
    for _, attributes in page.elements:
        assert not any(name.startswith('on') or name == 'href' for name in attributes)
        assert attributes.get('src', 'data:').startswith('data:image/svg+xml;base64,') or (
            'src' not in attributes
        )
    assert 'url(' not in page_style.CSS
    assert '@import' not in page_style.CSS
    policy = next(a['content'] for t, a in page.elements if 'http-equiv' in a and t == 'meta')
    assert policy.startswith("default-src 'none'")


def test_page_is_accessible(written, made_up, tmp_path):
    page, _ = written(made_up(), tmp_path)
    elements = page.elements
    assert ('html', {'lang': 'en'}) in elements
    pictures = [attributes for tag, attributes in elements if tag == 'img']
    assert len(pictures) == 2
    assert '0.563 against 0.110' in pictures[0]['alt']
    assert 'Negative transfer gap: \u22120.038' in pictures[1]['alt'].replace('\u00a0', ' ')
    scopes = [attributes.get('scope') for tag, attributes in elements if tag == 'th']
    assert set(scopes) == {'col', 'row'}
    tags = [tag for tag, _ in elements]
    assert tags.count('caption') == tags.count('table') > 5
    headings = {a['id'] for t, a in elements if t == 'h2'}
    assert headings == {a['aria-labelledby'] for t, a in elements if t == 'section'}


def test_text_has_contrast():
    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    colours = re.findall(r'--(ink|quiet|accent): (#[0-9a-f]{6})', page_style.CSS)
    assert len(colours) == 7  # ink, quiet, and an accent for each verdict and for none
    for name, colour in colours:  # on white; white on the accents of the badges
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5, (name, colour)


def test_markdown_shows_the_pictures_beside_it(written, made_up, tmp_path):
    _, text = written(made_up(), tmp_path)
    names = re.findall(r'^!\[.*\]\(([^)]*)\)$', text, flags=re.MULTILINE)
    assert names == ['learning_curves.png', 'paired_finals.png']
    for name in names:
        assert (tmp_path / name).read_bytes().startswith(b'\x89PNG')
