"""What is said of a flag that is wrong."""

import pytest

from tljax.flags import in_words, unknown_key


@pytest.mark.parametrize(
    ('word', 'said'),
    [
        ('--config.train.stepz=5', "unknown config key train.stepz. Did you mean 'train.steps'?"),
        ('--config.stepz=5', "unknown config key stepz. Did you mean 'train.steps'?"),
        ('--config.tarin.steps=5', "unknown config key tarin.steps. Did you mean 'train.steps'?"),
        ('--config.model.hiden=5', "unknown config key model.hiden. Did you mean 'model.hidden'?"),
        ('--noconfig.train.zz', 'unknown config key train.zz. Did you mean '),
        ('--config.zebra.q=1', "unknown config key zebra.q. Known: 'data.audio', "),
        ('--config.train.steps.x=5', 'unknown config key train.steps.x. Did you mean '),
        ('--config.train.steps=5', ''),
        ('--config.train=5', ''),
    ],
)
def test_an_unknown_key_is_named_whole(word, said):
    told = unknown_key(['launch.py', '--config=configs/digits.py', '--config.optim.lr=1', word])
    assert told.startswith(said)
    assert bool(told) == bool(said)


def test_a_value_that_is_no_number_is_told_with_its_flag():
    with pytest.raises(ValueError, match='float') as no_number:
        float('fast')
    told = in_words(ValueError(f'flag --config.optim.lr=fast: {no_number.value}'))
    assert told == "flag --config.optim.lr=fast: it takes a number, not 'fast'."
    assert in_words(ValueError('another')) == 'another'
