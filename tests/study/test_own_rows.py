"""What is told of the user's own rows: findings, the report, and where their folder is used."""

from tljax import config as config_lib
from tljax.study.compatibility.rows import findings
from tljax.study.report.document import Bullets, Fold, Table
from tljax.study.report.own_data import own_data
from tljax.train import sources


def account(bad=0, imbalance=1.0, notes=()):
    return {
        'where': '/mine',
        'rows': 40,
        'used': 40 - bad,
        'counts': {'train': {'cat': 20, 'dog': 10}, 'test': {'cat': 5, 'dog': 5}},
        'imbalance': imbalance,
        'bad': {
            'count': bad,
            'reasons': {'the same as': bad} if bad else {},
            'rows': [[f'cat/{i}.png', 'the same as: cat/x.png'] for i in range(bad)],
        },
        'ignored': {'.txt': 3},
        'notes': list(notes),
    }


def test_findings():
    assert findings({}) == []
    assert findings(account()) == []
    (bad,) = findings(account(bad=7))
    assert bad.level == 'warning'
    assert bad.what.startswith('7 of 40 rows')
    assert 'cat/4.png' in bad.what
    assert 'cat/5.png' not in bad.what
    assert 'and 2 more' in bad.what
    (skewed,) = findings(account(imbalance=9.0))
    assert (skewed.topic, skewed.level) == ('labels', 'warning')
    (note,) = findings(account(notes=['there is no test split.']))
    assert (note.level, note.what) == ('note', 'There is no test split.')


def test_the_report_lists_rows_that_were_left_out():
    assert own_data({}) == []
    blocks = own_data(account(bad=2))
    counts, rows = (block for block in blocks if isinstance(block, Table))
    assert counts.rows == (('cat', '20', '5'), ('dog', '10', '5'))
    assert rows.rows[1] == ('cat/1.png', 'the same as: cat/x.png')
    assert 'other files were not looked at: .txt (3).' in blocks[-1].items
    many = own_data(account(bad=30))
    assert any(isinstance(block, Fold) for block in many)
    assert isinstance(many[-1], Bullets)


def test_the_users_folder_is_no_place_for_prepared_sets():
    config = config_lib.default()
    config.source.uri = 'config:configs/digits.py:source'
    config.data.update(name='handwritten_digits', dir='/sets', prepared='/own')
    assert sources.config_of(config).data.dir == '/sets'
    config.data.update(name='folder', dir='/my/pictures')
    source = sources.config_of(config)
    assert source.data.dir == ''
    assert source.data.prepared == '/own'
    config.source.uri = 'config:configs/image/folder.py'
    config.data.update(name='handwritten_digits', dir='/sets')
    assert sources.config_of(config).data.dir == ''
