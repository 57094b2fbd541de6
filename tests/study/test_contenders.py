"""Sources to choose from, and the config of each."""

import pytest

from tljax.errors import UserError
from tljax.study import contenders


def test_a_random_contender_has_its_own_model_and_no_uri(small_config):
    config = small_config(rank={'sources': ('random:cifar_resnet(depth=8)', 'random:bit')})
    first, second = contenders.contenders(config)
    assert first.is_random
    assert first.config.model.name == 'cifar_resnet'
    assert first.config.model.depth == 8
    assert second.config.model.name == 'bit'
    assert first.config.source.uri == ''
    assert first.config.transfer.reset == ('head/.*',)
    assert config.model.name == 'convnet'  # the given one is as it was


def test_an_untrained_source_is_the_same_each_time_and_no_seed_of_a_run(small_config):
    config = small_config(rank={'sources': ('random:convnet(widths=(4,), hidden=8)',)})
    (one,) = contenders.contenders(config)
    a, b = contenders.untrained(one.config).leaves, contenders.untrained(one.config).leaves
    assert a.keys() == b.keys()
    assert all((a[path] == b[path]).all() for path in a)


@pytest.mark.parametrize(
    ('sources', 'said'),
    [
        ((), 'config.rank.sources is empty'),
        (('random:bit', 'random:bit'), 'more than once'),
        ((3,), 'takes uris'),
        (('random:cifar_resnett',), "Did you mean 'cifar_resnet'"),
        (('random:bit(',), 'is not written as a name'),
        (('nowhere',), 'nowhere'),
        (('config:configs/absent.py',), 'there is no config file'),
    ],
)
def test_mistakes(small_config, sources, said):
    with pytest.raises(UserError, match=said.replace('(', r'\(')):
        contenders.contenders(small_config(rank={'sources': sources}))


def test_names_are_unique_and_fit_for_folders():
    specs = ['runs/a/model', 'other/a', 'hf://org/name@main', 'url:https://x.org/w.pth#sha256=12']
    names = contenders.unique_names(specs)
    assert len(set(names)) == 4
    assert [name[:2] for name in names[:2]] == ['a-', 'a-']
    assert names[2:] == ['name-main', 'w.pth']
