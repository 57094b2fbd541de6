"""Tables of the user's own: formats, encodings, dialects, bad rows, columns of files, groups."""

import csv
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from tljax import config as config_lib
from tljax.data import open_data, prepared
from tljax.data.own import encodings
from tljax.data.own.encodings import encoding_of
from tljax.data.own.files import OPEN, records
from tljax.errors import RunError, UserError

ROWS = [
    (f'line {i}, with "quotes"\nand a break', 'spam' if i % 3 == 0 else 'ham') for i in range(30)
]


@pytest.fixture
def opened(tmp_path):
    """opened(path, key=value, ...) -> split -> examples, and the account."""

    def open_one(path, **changes):
        config = config_lib.default().data
        config.update(name='table', dir=str(path), prepared=str(tmp_path / 'prepared'))
        config.update({'text': 'text', 'label': 'label', **changes})
        builder = prepared.open_set(config)
        examples = {name: list(builder.as_data_source(name)) for name in builder.info.splits}
        return examples, prepared.account_of(builder)

    return open_one


def write_csv(path, rows=ROWS, header=('text', 'label'), encoding='utf-8', **dialect):
    with path.open('w', encoding=encoding, newline='') as file:
        writer = csv.writer(file, **dialect)
        writer.writerows([header, *rows] if header else rows)
    return path


def texts_in(examples):
    return sorted(e['text'].decode() for split in examples.values() for e in split)


FORMATS = {
    'comma.csv': {},
    'semicolon.csv': dict(delimiter=';'),
    'tab.tsv': dict(delimiter='\t'),
    'bar.txt': dict(delimiter='|'),
    'all_quoted.csv': dict(quoting=csv.QUOTE_ALL),
}


@pytest.mark.parametrize('name', FORMATS)
def test_dialects(tmp_path, opened, name):
    examples, account = opened(write_csv(tmp_path / name, **FORMATS[name]))
    assert texts_in(examples) == sorted(text for text, _ in ROWS)
    assert {name: len(rows) for name, rows in examples.items()} == {'train': 24, 'test': 6}
    assert sum(e['label'] for e in examples['test']) == 2  # of ham and spam: spam
    assert account['bad']['count'] == 0


def test_jsonl_and_parquet(tmp_path, opened):
    lines = [
        json.dumps({'text': text, 'label': i % 2 == 0, 'x': [1]})
        for i, (text, _) in enumerate(ROWS)
    ]
    (tmp_path / 'a.jsonl').write_text('\n'.join(lines) + '\n')
    examples, account = opened(tmp_path / 'a.jsonl')
    assert texts_in(examples) == sorted(text for text, _ in ROWS)
    assert account['counts']['train'].keys() == {'false', 'true'}
    table = pyarrow.table({'label': [i % 3 for i in range(30)], 'text': [text for text, _ in ROWS]})
    pyarrow.parquet.write_table(table, tmp_path / 'a.parquet')
    examples, account = opened(tmp_path / 'a.parquet')
    assert texts_in(examples) == sorted(text for text, _ in ROWS)
    assert account['counts']['test'] == {'0': 2, '1': 2, '2': 2}


def test_a_second_text(tmp_path, opened):
    rows = [(f'question {i}', f'answer {i % 7}', i % 2) for i in range(20)]
    path = write_csv(tmp_path / 'a.csv', rows, ('q', 'a', 'label'))
    examples, _ = opened(path, text='q', text_b='a')
    for example in examples['train']:
        number = int(example['text'].split()[1])
        assert example['text_b'].decode() == f'answer {number % 7}'
        assert example['label'] == number % 2


def test_texts_without_labels(tmp_path, opened):
    examples, account = opened(write_csv(tmp_path / 'a.csv'), label='')
    assert examples['train'][0].keys() == {'text', 'where'}
    assert len(examples['test']) == 6
    assert account['bad']['count'] == 0


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'cp1252'])
def test_encodings(tmp_path, opened, encoding):
    rows = [(f'Grüße von Straße {i}, schön naïve café', 'ab'[i % 2]) for i in range(20)]
    examples, account = opened(write_csv(tmp_path / 'a.csv', rows, encoding=encoding))
    assert texts_in(examples) == sorted(text for text, _ in rows)
    guessed = [note for note in account['notes'] if 'guessed' in note]
    assert bool(guessed) == (encoding == 'cp1252')


def test_an_encoding_that_is_given(tmp_path, opened):
    rows = [(f'Привет {i}', 'ab'[i % 2]) for i in range(20)]
    path = write_csv(tmp_path / 'a.csv', rows, encoding='koi8-r')
    examples, _ = opened(path, encoding='koi8-r')
    assert texts_in(examples) == sorted(text for text, _ in rows)
    with pytest.raises(UserError, match='no encoding'):
        opened(path, encoding='koi9')


def test_utf_8_with_some_bad_bytes(tmp_path):
    path = tmp_path / 'a.csv'
    path.write_bytes('text,label\ncafé,a\nnaïve,b\n'.encode() + b'caf\xe9,a\n')
    assert encoding_of(path) == ('utf-8', '')
    rows, _ = records(path, ['text=text'])
    found = list(rows)
    assert [r.values for r in found] == [('café',), ('naïve',), ()]
    assert found[2].where == 'a.csv:4'
    assert 'wrong encoding' in found[2].bad


def test_a_byte_order_mark_where_the_encoding_is_given(tmp_path, opened):
    path = write_csv(tmp_path / 'a.csv', encoding='utf-8-sig')
    examples, _ = opened(path, encoding='utf-8')
    assert texts_in(examples) == sorted(text for text, _ in ROWS)


@pytest.mark.parametrize('encoding', ['utf-16-le', 'utf-16-be'])
def test_utf_16_without_a_mark(tmp_path, opened, encoding):
    examples, account = opened(write_csv(tmp_path / 'a.csv', encoding=encoding))
    assert texts_in(examples) == sorted(text for text, _ in ROWS)
    assert any('guessed' in note for note in account['notes'])


@pytest.mark.parametrize('name', ['a.csv', 'a.jsonl'])
def test_bytes_that_the_encoding_cannot_have(tmp_path, opened, name):
    path = tmp_path / name
    lines = [json.dumps({'text': f't {i}', 'label': i % 2}) for i in range(20)]
    lines = lines if name == 'a.jsonl' else ['text,label', *(f't {i},a' for i in range(20))]
    path.write_bytes('\n'.join(lines).encode('utf-16') + b'x')
    with pytest.raises(UserError, match=rf'config\.data\.encoding: .*{name} is no utf-16'):
        opened(path)
    path.write_text('\n'.join(lines))
    with pytest.raises(UserError, match=rf'config\.data\.encoding: .*{name} is no utf-16'):
        opened(path, encoding='utf-16')


def test_a_delimiter_of_several_characters_is_refused(tmp_path, opened):
    with pytest.raises(UserError, match=r"config\.data\.delimiter is '\|\|'.*one character"):
        opened(write_csv(tmp_path / 'a.csv'), delimiter='||')


def test_a_column_of_texts_alone_may_hold_commas(tmp_path, opened):
    texts = [f'hello, world {i}' if i % 2 else f'hello {i}' for i in range(20)]
    (tmp_path / 'a.csv').write_text('\n'.join(['text', *texts]))
    examples, account = opened(tmp_path / 'a.csv', label='')
    assert texts_in(examples) == sorted(texts)
    assert account['bad']['count'] == 0


@pytest.mark.parametrize('later', ['', 'an inch 5" is '])
def test_a_quotation_mark_too_many_costs_one_row(tmp_path, opened, monkeypatch, later):
    monkeypatch.setattr(encodings, 'SAMPLE', 1000)  # the guess sees clean lines only
    lines = ['text,label', *(f'text {i},{"ab"[i % 2]}' for i in range(300))]
    lines[100] = '"it may have\nlines",a'
    lines[200] = '"' + lines[200]
    lines[220] = later + lines[220]
    (tmp_path / 'a.csv').write_text('\n'.join(lines) + '\n')
    examples, account = opened(tmp_path / 'a.csv')
    assert account['bad']['rows'] == [['a.csv:202', OPEN]]
    assert len(texts_in(examples)) == 299
    assert examples['train'][-1]['where'].startswith(b'a.csv:30')


def test_quotes_that_mean_nothing(tmp_path, opened):
    lines = ['label\ttext'] + [f'{"ab"[i % 2]}\the said "hello {i}' for i in range(21)]
    (tmp_path / 'a.tsv').write_text('\n'.join(lines))
    lines[3] = 'a\t"unfinished'
    (tmp_path / 'b.tsv').write_text('\n'.join(lines))
    for name in ('a.tsv', 'b.tsv'):
        examples, account = opened(tmp_path / name)
        assert len(texts_in(examples)) == 21
        assert account['bad']['count'] == 0
    assert '"unfinished' in texts_in(examples)


def test_a_file_without_header(tmp_path, opened):
    examples, _ = opened(write_csv(tmp_path / 'a.csv', header=None), text='#0', label='#1')
    assert texts_in(examples) == sorted(text for text, _ in ROWS)


def test_bad_rows_are_listed_with_their_line(tmp_path, opened):
    lines = [
        'text,label',
        '"two',
        'lines",a',
        'b,b,b',
        ' ,a',
        'no label,',
        '',
        'again,a',
        'again,a',
    ]
    lines += ['torn,a', 'torn,b', *(f'good {i},{"ab"[i % 2]}' for i in range(20))]
    (tmp_path / 'mine.csv').write_text('\n'.join(lines))
    _, account = opened(tmp_path / 'mine.csv')
    assert dict(account['bad']['rows']) == {
        'mine.csv:4': 'ragged: it has 3 fields, not 2',
        'mine.csv:5': 'empty text',
        'mine.csv:6': 'no label',
        'mine.csv:9': 'the same as: mine.csv:8',
        'mine.csv:10': 'the same under another label: mine.csv:11 (b)',
        'mine.csv:11': 'the same under another label: mine.csv:10 (a)',
    }
    assert account['rows'] == 28
    with pytest.raises(UserError, match=r'mine\.csv:5: empty text'):
        opened(tmp_path / 'mine.csv', on_error='refuse')


def test_bad_lines_of_json(tmp_path, opened):
    lines = [json.dumps({'text': f't {i}', 'label': i % 2}) for i in range(20)]
    lines += ['{"text": "x"', '{"text": "no label"}', '[1]', '{"text": null, "label": 1}']
    lines += [json.dumps({'text': 'lone \ud800', 'label': 1})]
    (tmp_path / 'a.jsonl').write_text('\n'.join(lines))
    _, account = opened(tmp_path / 'a.jsonl')
    bad = dict(account['bad']['rows'])
    assert list(bad) == [f'a.jsonl:{n}' for n in range(21, 26)]
    assert bad['a.jsonl:21'].startswith('no JSON')
    assert bad['a.jsonl:22'] == 'ragged: it has no label'
    assert bad['a.jsonl:24'] == 'empty text'
    assert 'wrong encoding' in bad['a.jsonl:25']


def test_json_that_holds_lists_or_is_nested_without_end(tmp_path, opened):
    lines = [json.dumps({'text': f't {i}', 'label': i % 2}) for i in range(20)]
    lines += ['[' * 100_000, json.dumps({'text': 'two labels', 'label': ['a', 'b']})]
    lines += [json.dumps({'text': {'en': 'a'}, 'label': 1})]
    (tmp_path / 'a.jsonl').write_text('\n'.join(lines))
    _, account = opened(tmp_path / 'a.jsonl')
    assert account['bad']['rows'] == [
        ['a.jsonl:21', 'no JSON: it is nested too deeply'],
        ['a.jsonl:22', 'no single value: its label is a list'],
        ['a.jsonl:23', 'no single value: its text is a dict'],
    ]


def test_a_column_that_is_there_twice_is_refused(tmp_path, opened):
    rows = [(f't {i}', 'ab'[i % 2], 'cd'[i % 2]) for i in range(20)]
    names = ('text', 'label', 'label')
    table = pyarrow.Table.from_arrays(list(map(pyarrow.array, zip(*rows, strict=True))), names)
    pyarrow.parquet.write_table(table, tmp_path / 'a.parquet')
    for path in (write_csv(tmp_path / 'a.csv', rows, names), tmp_path / 'a.parquet'):
        with pytest.raises(UserError, match=r"config\.data\.label='label': .* has 2 such columns"):
            opened(path)


def test_parquet_files_whose_content_is_damaged(tmp_path, opened):
    path = tmp_path / 'a.parquet'
    texts = [f'text {i} ' * 50 for i in range(30)]
    pyarrow.parquet.write_table(pyarrow.table({'text': texts, 'label': ['a', 'b'] * 15}), path)
    content = bytearray(path.read_bytes())
    content[200:400] = b'U' * 200
    path.write_bytes(content)
    with pytest.raises(RunError, match=r'a\.parquet is damaged'):
        opened(path)


def test_parquet_texts_that_are_no_utf_8(tmp_path, opened):
    texts = [f'text {i}'.encode() for i in range(20)]
    texts[3] = b'caf\xe9'
    binary = pyarrow.array(texts, pyarrow.binary())
    column = pyarrow.Array.from_buffers(pyarrow.string(), 20, binary.buffers())
    table = pyarrow.table({'text': column, 'label': ['a', 'b'] * 10})
    pyarrow.parquet.write_table(table, tmp_path / 'a.parquet')
    _, account = opened(tmp_path / 'a.parquet')
    assert account['bad']['rows'] == [['a.parquet:row 4', 'wrong encoding: its bytes are no utf-8']]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(label='labels'), r"config\.data\.label='labels'.*Did you mean 'label'"),
        (dict(text=''), 'none is set'),
        (dict(image='text'), 'text, image is set'),
        (dict(text='', image='text', label=''), r'config\.data\.label is empty'),
        (dict(label='text'), 'these are no classes'),
    ],
)
def test_columns_that_do_not_fit(tmp_path, opened, changes, message):
    rows = [(f't {i}', 'ab'[i % 2]) for i in range(40)]
    with pytest.raises(UserError, match=message):
        opened(write_csv(tmp_path / 'a.csv', rows), **changes)


def test_files_that_are_no_tables(tmp_path, opened):
    (tmp_path / 'a.xlsx').touch()
    with pytest.raises(UserError, match='no table that can be read'):
        opened(tmp_path / 'a.xlsx')
    with pytest.raises(UserError, match='does not exist'):
        opened(tmp_path / 'b.csv')
    with pytest.raises(UserError, match='one file for each split'):
        opened(tmp_path)
    (tmp_path / 'a.parquet').write_bytes(b'PAR1 no')
    with pytest.raises(RunError, match='damaged'):
        opened(tmp_path / 'a.parquet')


def test_a_file_for_each_split(tmp_path, opened):
    for number, name in enumerate(('train', 'dev', 'test')):
        rows = [(f'{name} {i}', 'ab'[i % 2]) for i in range(10 + number)]
        write_csv(tmp_path / f'{name}.csv', rows)
    examples, _ = opened(tmp_path)
    assert {name: len(rows) for name, rows in examples.items()} == {
        'train': 10,
        'validation': 11,
        'test': 12,
    }
    assert all(e['text'].startswith(b'dev') for e in examples['validation'])


def test_a_split_of_which_nothing_is_left(tmp_path, opened):
    write_csv(tmp_path / 'train.csv', [(f't {i}', 'ab'[i % 2]) for i in range(30)])
    write_csv(tmp_path / 'test.csv', [(f'u {i}', 'cd'[i % 2]) for i in range(10)])
    with pytest.raises(
        UserError, match=r"no rows of test are left:\n  test\.csv:2: .*training: 'c'"
    ):
        opened(tmp_path)


def test_a_column_of_splits(tmp_path, opened):
    rows = [(f't {i}', 'ab'[i % 2], ('train', 'Val', 'TEST')[i // 10]) for i in range(30)]
    path = write_csv(tmp_path / 'a.csv', rows, ('text', 'label', 'part'))
    examples, _ = opened(path, split='part')
    assert [int(e['text'].split()[1]) for e in examples['test']] == list(range(20, 30))
    rows[3] = ('t 3', 'a', 'elsewhere')
    _, account = opened(write_csv(path, rows, ('text', 'label', 'part')), split='part')
    assert account['bad']['rows'] == [['a.csv:5', "unknown split: 'elsewhere'"]]


def test_groups(tmp_path, opened):
    rows = [(f't {i}', 'ab'[i % 2], f'person {i // 5}') for i in range(100)]
    path = write_csv(tmp_path / 'a.csv', rows, ('text', 'label', 'who'))
    examples, _ = opened(path, group='who')
    people = [{int(e['text'].split()[1]) // 5 for e in rows} for rows in examples.values()]
    assert len(examples) == 3
    assert sum(map(len, people)) == len(set.union(*people)) == 20
    assert len(examples['test']) == 20


def test_a_number_of_validation_rows_keeps_groups_whole(tmp_path, opened):
    rows = [(f't {i}', 'ab'[i % 2], f'person {i // 5}') for i in range(100)]
    path = write_csv(tmp_path / 'a.csv', rows, ('text', 'label', 'who'))
    examples, _ = opened(path, group='who', holdout=20.0)
    people = [{int(e['text'].split()[1]) // 5 for e in rows} for rows in examples.values()]
    assert examples.keys() == {'train', 'validation', 'test'}
    assert sum(map(len, people)) == len(set.union(*people)) == 20
    assert len(examples['validation']) == 20


def test_splits_that_would_cut_groups_are_refused(tmp_path):
    rows = [(f't {i}', 'ab'[i % 2], f'person {i // 5}') for i in range(100)]
    config = config_lib.default().data
    config.update(name='table', prepared=str(tmp_path / 'prepared'), tokenizer='bpe(300)')
    config.dir = str(write_csv(tmp_path / 'a.csv', rows, ('text', 'label', 'who')))
    config.update(text='text', label='label', group='who', holdout=0)
    assert open_data(config, 0).split('train')
    config.update(train='train[:80%]', validation='train[80%:]')
    with pytest.raises(UserError, match=r'config\.data\.train=.*config\.data\.validation=.*group'):
        open_data(config, 0)


def test_groups_that_cannot_be_divided(tmp_path, opened):
    rows = [(f't {i}', 'ab'[i % 2], 'abab'[i % 2]) for i in range(40)]
    path = write_csv(tmp_path / 'a.csv', rows, ('text', 'label', 'who'))
    with pytest.raises(UserError, match=r'cannot be divided|all be of one class'):
        opened(path, group='who')


def test_groups_in_splits_of_the_users_are_told(tmp_path, opened):
    for number, name in enumerate(('train', 'test')):
        rows = [(f'{name} {i}', 'ab'[i % 2], f'p{i + 5 * number}') for i in range(10)]
        write_csv(tmp_path / f'{name}.csv', rows, ('text', 'label', 'who'))
    _, account = opened(tmp_path, group='who')
    assert any('5 groups are in train and in test' in note for note in account['notes'])


def test_columns_of_image_files(tmp_path, opened):
    rng = np.random.default_rng(0)
    (tmp_path / 'pictures').mkdir()
    for i in range(20):
        pixels = rng.integers(0, 256, (5, 5, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / 'pictures' / f'{i}.png')
    rows = [(f'pictures/{i}.png', i % 2) for i in range(21)]
    examples, account = opened(
        write_csv(tmp_path / 'a.csv', rows, ('file', 'label')), text='', image='file'
    )
    assert examples['train'][0]['image'].shape == (5, 5, 3)
    assert account['bad']['rows'] == [['a.csv:22', 'it cannot be read: No such file or directory']]


def test_pictures_that_were_changed_under_a_table_are_read_again(tmp_path, opened):
    def draw(size):
        for i in range(10):
            pixels = np.random.default_rng(i).integers(0, 256, (size, 5, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f'{i}.png')

    path = write_csv(
        tmp_path / 'a.csv', [(f'{i}.png', i % 2) for i in range(10)], ('file', 'label')
    )
    for size in (5, 6):
        draw(size)
        examples, _ = opened(path, text='', image='file')
        assert examples['train'][0]['image'].shape == (size, 5, 3)


def test_paths_that_no_file_can_have(tmp_path, opened):
    rows = [(f'{i}.png', i % 2) for i in range(10)] + [('a\0.png', 1)]
    for i in range(10):
        pixels = np.random.default_rng(i).integers(0, 256, (5, 5, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'{i}.png')
    path = write_csv(tmp_path / 'a.csv', rows, ('file', 'label'))
    _, account = opened(path, text='', image='file')
    assert account['bad']['rows'] == [['a.csv:12', 'it cannot be read: its path is none']]


def test_a_small_class_that_the_drawn_test_lacks(tmp_path, opened):
    rows = [(f't {i}', 'a' if i < 2 else 'b') for i in range(30)]
    path = write_csv(tmp_path / 'a.csv', rows)
    with pytest.raises(UserError, match=r'config\.data\.test_share=0\.2: .*6 test rows.*one class'):
        opened(path)


def test_numbers_are_ordered_by_value(tmp_path, opened):
    rows = [(f't {i}', (2, 10, 1)[i % 3]) for i in range(30)]
    _, account = opened(write_csv(tmp_path / 'a.csv', rows))
    assert list(account['counts']['train']) == ['1', '2', '10']
