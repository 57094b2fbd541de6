"""Names with arguments: what is read, and what is refused in words."""

import pytest

from tljax import calls
from tljax.errors import UserError


def decayed(stages, *, decay=0.75, blocks=()): ...


def needy(*, rank): ...


KNOWN = {'decayed': decayed, 'needy': needy}


@pytest.mark.parametrize(
    ('text', 'read'),
    [
        ('decayed', ('decayed', {})),
        (' decayed() ', ('decayed', {})),
        ('decayed(decay=-1e-3)', ('decayed', {'decay': -1e-3})),
        ("decayed(blocks=('a', 2))", ('decayed', {'blocks': ('a', 2)})),
        ('needy(rank=8)', ('needy', {'rank': 8})),
    ],
)
def test_what_is_read(text, read):
    assert calls.parse(text, KNOWN, 'key') == read


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('decay', "key: no 'decay'. Did you mean 'decayed'"),
        ('decayed(decays=1)', "no argument 'decays'"),
        ('needy', 'needs rank'),
        ('decayed(0.5)', 'not written as'),
        ('decayed(decay=open("x"))', 'not written as'),
        ('decayed(**{"decay": 1})', 'not written as'),
        ('decayed(decay=', 'not written as'),
        ('os.system(x=1)', 'not written as'),
        (3, 'not written as'),
        ('needy(rank=1, rank=2)', 'not written as'),
        ('(' * 10000, 'not written as'),
    ],
)
def test_what_is_refused(text, said):
    with pytest.raises(UserError) as error:
        calls.parse(text, KNOWN, 'key')
    assert said.lower() in str(error.value).lower()
