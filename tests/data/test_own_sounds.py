"""Folders and tables of the user's own sounds: WAV and FLAC, rates, channels, bad files."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tljax import config as config_lib
from tljax.data import prepared
from tljax.data.own.rows import BadRow
from tljax.data.own.sounds import plain_sound
from tljax.errors import UserError

REALDATA = Path(os.environ.get('TLJAX_REALDATA', Path(__file__).parents[3] / 'shared' / 'data'))


def tone(frequency, rate=8000, seconds=0.1, channels=1):
    """(samples, channels) float32."""
    t = np.arange(int(rate * seconds)) / rate
    return np.repeat(0.5 * np.sin(2 * np.pi * frequency * t)[:, None], channels, 1).astype('f4')


def encoded(values, rate=8000, form='WAV', subtype='PCM_16'):
    buffer = io.BytesIO()
    soundfile.write(buffer, values, rate, format=form, subtype=subtype)
    return buffer.getvalue()


@pytest.fixture
def opened(tmp_path):
    def open_one(path, **changes):
        config = config_lib.default().data
        config.update(name='folder', dir=str(path), prepared=str(tmp_path / 'prepared'))
        config.update(changes)
        return prepared.open_set(config)

    return open_one


@pytest.fixture
def root(tmp_path):
    for number in range(20):
        name = 'high' if number % 2 else 'low'
        form = 'FLAC' if number % 3 else 'WAV'
        (tmp_path / 'mine' / name).mkdir(parents=True, exist_ok=True)
        file = tmp_path / 'mine' / name / f'{number}.{form.lower()}'
        file.write_bytes(encoded(tone(100 + 37 * number), form=form))
    return tmp_path / 'mine'


@pytest.mark.parametrize(
    ('form', 'subtype', 'error'),
    [
        ('WAV', 'PCM_16', 1),
        ('WAV', 'PCM_U8', 256),
        ('WAV', 'PCM_24', 1),
        ('WAV', 'PCM_32', 1),
        ('WAV', 'FLOAT', 1),
        ('WAV', 'ULAW', 600),
        ('FLAC', 'PCM_16', 1),
        ('FLAC', 'PCM_24', 1),
    ],
)
def test_kinds_of_files(form, subtype, error):
    values = tone(440)
    samples, rate = plain_sound(encoded(values, form=form, subtype=subtype))
    assert rate == 8000
    assert samples.dtype == np.int16
    assert np.abs(samples - values[:, 0] * 32768).max() <= error


def test_channels_are_averaged():
    values = np.concatenate([tone(440), np.zeros((800, 1), 'f4')], 1)
    samples, _ = plain_sound(encoded(values))
    assert np.abs(samples - values[:, 0] * 16384).max() <= 1


@pytest.mark.parametrize('rate', [16000, 4000, 11025])
def test_rates_are_changed(rate):
    samples, found = plain_sound(encoded(tone(440)), rate)
    assert found == rate
    assert len(samples) == pytest.approx(rate * 0.1, abs=1)
    expected = tone(440, rate)[: len(samples), 0] * 32768
    middle = slice(rate // 50, -rate // 50)
    assert np.abs(samples[: len(expected)] - expected)[middle].max() < 200


def test_what_a_low_rate_cannot_hold_is_filtered_out():
    samples, _ = plain_sound(encoded(tone(3000)), 4000)
    assert np.abs(samples[50:-50]).max() < 500


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'empty'),
        (b'hello', 'no sound'),
        (encoded(np.zeros((0, 1), 'f4')), 'no samples'),
        (encoded(np.full((9, 1), np.nan, 'f4'), subtype='FLOAT'), 'not finite'),
        (encoded(np.zeros((601 * 50, 1), 'f4'), rate=50), 'lasts 601 s'),
        (encoded(tone(440), form='FLAC')[:300], 'damaged'),
    ],
)
def test_files_that_are_no_sounds(content, message):
    with pytest.raises(BadRow, match=message):
        plain_sound(content)


def test_a_folder_of_sounds(root, opened):
    builder = opened(root)
    account = prepared.account_of(builder)
    assert account['rate'] == 8000
    assert account['bad']['count'] == 0
    assert builder.info.features['label'].names == ['high', 'low']
    examples = [*builder.as_data_source('train'), *builder.as_data_source('test')]
    assert len(examples) == 20
    for example in examples:
        number = int(Path(example['where'].decode()).stem)
        expected = tone(100 + 37 * number)[:, 0] * 32768
        assert np.abs(example['audio'] - expected).max() <= 1


def test_several_rates(root, opened):
    (root / 'low' / 'other.wav').write_bytes(encoded(tone(999, 16000), 16000))
    with pytest.raises(UserError, match=r'8000 \(.*\), 16000 \(low/other.wav\).*data.rate'):
        opened(root)
    builder = opened(root, rate=8000)
    assert prepared.account_of(builder)['rate'] == 8000


def test_bad_sounds_are_listed(root, opened):
    (root / 'low' / 'torn.flac').write_bytes(encoded(tone(440), form='FLAC')[:300])
    account = prepared.account_of(opened(root))
    ((where, why),) = account['bad']['rows']
    assert where == 'low/torn.flac'
    assert 'damaged' in why
    assert json.dumps(account)


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.exists(), reason='TLJAX_REALDATA is absent')
def test_spoken_digits_of_a_table(opened):
    file = REALDATA / 'speech_digits_de_en' / 'metadata.csv'
    builder = opened(file, name='table', audio='file', label='digit', group='speaker')
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        'train': 560,
        'validation': 140,
        'test': 140,
    }
    assert prepared.account_of(builder)['rate'] == 16000
