"""Results to write reports about, and reading them. Every number in here is made up."""

import html.parser
import math

import numpy as np
import pytest

from tljax.study.report import comparison as report

X = [0, 32, 96, 224, 512, 1056, 2144, 3200, 4256, 5312, 6400]
# Mean and spread of the final accuracies; the differences decide the verdict.
ENDS = {
    'helpful': (0.862, 0.828, 0.012),
    'harmful': (0.801, 0.836, 0.011),
    'equivalent': (0.9634, 0.9631, 0.0035),
    'undecided': (0.838, 0.829, 0.028),
}
SENTENCES = {
    'helpful': 'Transfer ends better than scratch by 0.0378 (10 paired seeds).',
    'harmful': 'Transfer ends worse than scratch by 0.0389 (10 paired seeds).',
    'equivalent': 'Transfer and scratch end equal to within 0.01 (10 paired seeds).',
    'undecided': 'Whether transfer or scratch ends better is open (10 paired seeds). '
    'About 21 more seeds would settle it, if the gap and its spread stay as they are.',
}


def measure(values, note=''):
    """Mean and a Student interval: another kind than the real one, but of the same form."""
    values = np.asarray(values, float)
    n = len(values)
    half = 2.262 * values.std(ddof=1) / math.sqrt(n) if n > 1 else None
    mean = float(values.mean())
    low, high = (None, None) if half is None else (float(mean - half), float(mean + half))
    return {'mean': mean, 'low': low, 'high': high, 'n': n, 'note': note}


def curves(start, ends, halfway, rng):
    """(seeds, len(X)) accuracies that rise from `start` to each seed's end."""
    x = np.array(X, float)
    rise = x / (x + halfway) * (X[-1] + halfway) / X[-1]
    noise = rng.normal(0, 0.012, (len(ends), len(X)))
    return np.clip(start + (ends[:, None] - start) * rise + noise, 0, 1)


def arm(start, ends, halfway, lr, rng):
    values = curves(start, ends, halfway, rng)
    bands = [measure(column) for column in values.T]
    trials = zip(
        (0.0003, 0.000949, 0.003, 0.00949, 0.03), (0.61, 0.74, 0.83, 0.81, 0.42), strict=True
    )
    return {
        'final': measure(ends),
        'finals': ends.tolist(),
        'seconds': measure(rng.normal(1.31, 0.04, len(ends))),
        'examples': X[-1],
        'lr': lr,
        'trials': [{'lr': rate, 'validation': value} for rate, value in trials],
        'curve': {'x': X} | {key: [b[key] for b in bands] for key in ('mean', 'low', 'high')},
        'asymptote': measure((values[:, -1] - 0.1) / 0.9, 'final at budget'),
    }, values


def made_up(verdict='helpful', seeds=10):
    """Made-up results of a comparison that ends in this verdict."""
    rng = np.random.default_rng(7)
    top, bottom, spread = ENDS[verdict]
    shared = rng.normal(0, 0.015, seeds)
    ends = [mean + shared + rng.normal(0, spread, seeds) / 2 for mean in (top, bottom)]
    # Centred, so that the differences between the arms are those of the table above.
    ends = [end - end.mean() + mean for end, mean in zip(ends, (top, bottom), strict=True)]
    transfer, t = arm(0.565, ends[0], 350.0, 0.00949, rng)
    scratch, s = arm(0.112, ends[1], 500.0, 0.003, rng)
    area = np.trapezoid(t, X, axis=1) / np.trapezoid(s - 0.1, X, axis=1) - np.trapezoid(
        s, X, axis=1
    ) / np.trapezoid(s - 0.1, X, axis=1)
    measures = {
        'jumpstart': measure((t - s)[:, 0] / 0.9),
        'probe_jumpstart': measure(rng.normal(0.21, 0.05, seeds)),
        'slope': measure(rng.normal(-0.04, 0.01, seeds), 'from 32 to 2144 examples, 6 evaluations'),
        'speedup_50': measure(rng.normal(9.1, 1.5, seeds), 'transfer < 32 examples, at least this'),
        'speedup_80': measure(rng.normal(3.2, 0.7, seeds)),
        'speedup_95': measure(
            rng.normal(2.1, 0.6, seeds), 'scratch > 6400 examples in 2 of 10 seeds'
        ),
        'asymptote': measure((t - s)[:, -1] / 0.9, 'transfer: plateau, scratch: final at budget'),
        'area_ratio': measure(area, 'mean of m_T - m_S over x 0.09'),
        'negative_transfer_gap': measure((ends[1] - ends[0]) / 0.9),
    }
    return {
        'verdict': {
            'name': verdict,
            'sentence': SENTENCES[verdict],
            'more_seeds': 21 if verdict == 'undecided' else None,
        },
        'title': 'Made up: printed digits to handwritten digits',
        'question': 'Does a model trained on printed digits help on handwritten ones?',
        'arms': {'transfer': transfer, 'scratch': scratch},
        'measures': measures,
        'metric': {'name': 'accuracy', 'chance': 0.1, 'ceiling': 1.0, 'higher_is_better': True},
        **provenance(seeds),
    }


def provenance(seeds):
    """Everything about the made-up results but their numbers."""
    leaves = [
        ('conv1/kernel', [3, 3, 1, 32]),
        ('conv1/bias', [32]),
        ('conv2/kernel', [3, 3, 32, 64]),
    ]
    entries = [
        entry(f'backbone/{path}', 'loaded', f'backbone/{path}', shape) for path, shape in leaves
    ]
    entries.append(entry('backbone/norm/scale', 'renamed', 'backbone/bn/scale', [64]))
    entries.append(entry('backbone/position', 'resized', 'backbone/position', [64, 32]))
    entries.append(entry('head/kernel', 'reset', '', [64, 10]))
    entries.append(entry('', 'unused', 'head/kernel', [64, 5]))
    return {
        'cost': {
            'transfer_seconds': 1.31,
            'scratch_seconds': 1.3,
            'pretraining_seconds': 7.8,
            'pretraining_examples': 38400,
            'with_pretraining_seconds': 9.11,
            'break_even_tasks': 9,
            'note': 'A task saves 0.90 s, by reaching the end of scratch sooner.',
        },
        'manifest': {'entries': entries},
        'source': {
            'title': 'Printed digits',
            'data': 'printed_digits',
            'steps': 600,
            'seconds': 7.8,
            'config': {'optim': {'lr': 0.003}},
            'source': None,
        },
        'data': {
            'name': 'handwritten_digits',
            'shots': 4,
            'train': 40,
            'validation': 239,
            'test': 600,
            'classes': [str(digit) for digit in range(10)],
            'synthetic': 'the source images are rendered from fonts; no person wrote them.',
        },
        'command': 'python launch.py compare --config=configs/digits.py --workdir=runs/digits',
        'config': {'data': {'name': 'handwritten_digits', 'shots': 4}, 'study': {'delta': 0.01}},
        'fingerprint': '3f9a0c' * 10 + 'beef',
        'versions': {'python': '3.11.9', 'jax': '0.10.2', 'flax': '0.12.8'},
        'seeds': list(range(seeds)),
        'devices': '1 x cpu (cpu)',
        'seconds_total': 71.2,
        'notes': ['Curves are measured on validation, finals on the test split, read once.'],
    }


def entry(path, action, source_path, shape):
    return {
        'path': path,
        'action': action,
        'source_path': source_path,
        'shape': shape,
        'source_shape': [49, 32] if action == 'resized' else None if action == 'reset' else shape,
        'dtype': 'float32',
        'note': 'bicubic, 7 x 7 to 8 x 8' if action == 'resized' else '',
        'how': '',
    }


@pytest.fixture(name='made_up')
def made_up_fixture():
    """The function that makes results up: `made_up(verdict='helpful', seeds=10)`."""
    return made_up


VOID = {'meta', 'img', 'br'}  # elements without an end


@pytest.fixture
def real_pictures():
    """Asked for by tests that need the pictures themselves; the others get short ones."""


@pytest.fixture
def short_pictures(request, monkeypatch):
    if 'real_pictures' not in request.fixturenames:
        short = {'svg': b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'png': b'\x89PNG'}
        for name in report.PICTURES:
            monkeypatch.setitem(report.PICTURES, name, lambda results, form: short[form])


class Reader(html.parser.HTMLParser):
    """Reads a page as strictly as is needed: every element closed, in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.words, self.hidden = [], [], [], ''
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if 'style' not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return ' '.join(' '.join(self.words).replace('\u00a0', ' ').split())


@pytest.fixture
def written():
    """Writes a report and gives its page, read, and its Markdown."""

    def write_and_read(results, directory):
        index = report.write(results, directory)
        return Reader(index.read_text('utf-8')), (directory / 'report.md').read_text('utf-8')

    return write_and_read
