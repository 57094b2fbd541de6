"""A source that was taught shuffled labels: rank must see it, and compare must not call it help."""

import dataclasses

import numpy as np
import pytest

from tljax import config as config_lib
from tljax.data.split import Split
from tljax.study import compare, rank, ranked
from tljax.train import experiment as experiment_lib
from tljax.train import loop

pytestmark = pytest.mark.slow


class Shuffled(Split):
    """Each example with another one's label."""

    def labels(self):
        return np.random.default_rng(0).permutation(super().labels())


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """Two models of printed digits, one of them taught nonsense."""
    config = config_lib.load('configs/digits.py:source')
    config.train.steps = 600
    data = experiment_lib.build(config, None).data
    split = data.split('train')
    parts = {f.name: getattr(split, f.name) for f in dataclasses.fields(split)}
    nonsense = dataclasses.replace(data, splits={**data.splits, 'train': Shuffled(**parts)})
    found = {}
    for name, taught in (('true', data), ('shuffled', nonsense)):
        found[name] = tmp_path_factory.mktemp('sources') / name
        loop.train(experiment_lib.build(config, None, data=taught), found[name], quiet=True)
    return found


@pytest.fixture
def target(one_device):
    config = config_lib.load('configs/digits.py')
    config.source.uri = ''
    config.data.shots = 10
    config.train.update(steps=100, batch_size=20)
    config.study.update(seeds=5, trials=3, eval_points=2)
    return config


def test_it_ranks_last_or_is_flagged(sources, target, tmp_path):
    target.rank.update(sources=tuple(map(str, sources.values())), scores=('logme',))
    content = ranked.results(rank.rank(target, tmp_path, quiet=True), 'rank')
    names = [one['name'] for one in content['sources']]
    assert names == ['true', 'shuffled']
    good, bad = content['sources']
    assert good['lift']['low'] > 0
    assert bad['behind']['low'] > 0
    assert bad['lift']['low'] <= 0
    assert 'Not shown to be better' in bad['warnings'][0]
    assert content['recommendation']['source'] == 'true'


def test_comparing_it_with_scratch_finds_no_help(sources, target, tmp_path):
    target.source.uri = str(sources['shuffled'])
    target.transfer.reset = ('head/.*',)
    content = compare.compare(target, tmp_path, 'compare', quiet=True)
    assert content['verdict']['name'] in ('harmful', 'equivalent')
