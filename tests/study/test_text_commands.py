"""The commands on models of texts, as functions: what a user would run after `train`."""

import json

import numpy as np
import pytest
import small_texts

from tljax import trees
from tljax.errors import UserError
from tljax.pretrained import inputs
from tljax.study import contest, rank, ranked, tune
from tljax.study.report import contest as report
from tljax.train import experiment as experiment_lib
from tljax.train import inspect, loop, serve, sources
from tljax.train.average import average
from tljax.train.export import FORMATS, export
from tljax.train.model_dir import load_model

pytestmark = pytest.mark.slow
TASKS = small_texts.TASKS
# Every command on the next word, which is least like pictures; on classes too in the matrix.
SAMPLE = [pytest.param(TASKS[0], marks=pytest.mark.matrix), TASKS[1]]


@pytest.fixture(scope='module', autouse=True)
def quickly():
    with small_texts.quickly():
        yield


@pytest.fixture(scope='module')
def texts(tmp_path_factory):
    directory = tmp_path_factory.mktemp('texts')
    small_texts.write(directory)
    return directory


@pytest.fixture(scope='module')
def trained(texts, tmp_path_factory):
    """trained(task, lr) -> workdir of a source, and of a model trained from it, once each."""
    done = {}

    def run(config):
        source = sources.load(config, texts)
        workdir = tmp_path_factory.mktemp('run')
        loop.train(experiment_lib.build(config, source), workdir, quiet=True)
        return workdir

    def make(task, lr=0.1):
        if task not in done:
            done[task] = run(config_of(texts, task, '', data__shots=0))
        if (task, lr) not in done:
            done[task, lr] = run(config_of(texts, task, done[task], optim__lr=lr))
        return done[task], done[task, lr]

    return make


def config_of(texts, task, source, policy='full', **keys):
    config = small_texts.config_of(task, texts, policy, source__uri=str(source), **keys)
    if source:
        config.data.tokenizer, config.data.length = '', 0
    return inputs.applied(config)


def leaves_of(workdir):
    variables, _ = load_model(workdir / 'model')
    return trees.flatten(variables['params'])


@pytest.mark.parametrize('task', SAMPLE)
def test_evaluate_and_inspect(texts, trained, task):
    source, workdir = trained(task)
    config = config_of(texts, task, source)
    found = serve.evaluate(config, workdir, 'validation')
    assert np.isfinite([found[name] for name in ('loss', 'accuracy')]).all()
    history = (workdir / 'metrics.jsonl').read_text().splitlines()
    last = json.loads(history[-1])
    assert found['loss'] == pytest.approx(last['validation/loss'], rel=1e-5)
    test = serve.evaluate(config, workdir, 'test')
    assert serve.evaluate(config, workdir, 'test') == test

    said = inspect.describe(config_of(texts, task, source, 'surgical(block="last")'), texts)
    assert 'Example: tokens int32[16]' in said
    assert ('Classes: ham, spam.' in said) == (task == 'classification')
    assert ('8 labels a class' in said) == (task == 'classification')
    assert 'backbone/block0/mlp/up/kernel' in said


@pytest.mark.parametrize('task', TASKS)
def test_average(trained, task, tmp_path):
    source, one = trained(task)
    _, other = trained(task, 0.05)
    record = average([one, other], 'uniform', tmp_path / 'soup')
    assert np.isfinite(record['validation'])
    mean = {path: (leaf + leaves_of(other)[path]) / 2 for path, leaf in leaves_of(one).items()}
    for path, leaf in leaves_of(tmp_path / 'soup').items():
        np.testing.assert_allclose(leaf, mean[path], rtol=1e-6, atol=1e-7, err_msg=path)
    # Its tokenizer goes on with it.
    tokenizers = [(d / 'model' / 'tokenizer.json').read_text() for d in (source, tmp_path / 'soup')]
    assert tokenizers[0] == tokenizers[1]
    greedy = average([one, other], 'greedy', tmp_path / 'greedy')
    task_metric = [entry['validation'] for entry in greedy['models']]
    assert greedy['validation'] >= max(task_metric)


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize('task', TASKS)
def test_an_export_is_a_source_with_its_tokenizer(texts, trained, task, form, tmp_path):
    source, workdir = trained(task)
    output = export(workdir, tmp_path / form / 'out', form)
    config = config_of(texts, task, output, 'linear_probe' if task == 'classification' else 'full')
    assert config.data.length == small_texts.LENGTH
    source = sources.load(config, tmp_path)
    experiment = experiment_lib.build(config, source)
    for path, leaf in leaves_of(workdir).items():
        np.testing.assert_array_equal(experiment.loaded[path], leaf, err_msg=path, strict=True)
    text = (workdir / 'model' / 'tokenizer.json').read_text()
    assert json.loads(experiment.data.form.tokenizer.text) == json.loads(text)


def test_an_export_without_its_tokenizer_is_no_source(texts, trained, tmp_path):
    _, workdir = trained('classification')
    output = export(workdir, tmp_path / 'out.safetensors', 'safetensors')
    (tmp_path / 'tokenizer.json').write_text('{}')
    with pytest.raises(UserError, match='a folder of its own'):
        export(workdir, tmp_path / 'other.safetensors', 'safetensors')
    (tmp_path / 'tokenizer.json').unlink()
    with pytest.raises(UserError, match=r'that of the source .* is not known'):
        config_of(texts, 'classification', output)


@pytest.mark.parametrize('task', SAMPLE)
def test_tune(texts, trained, task, tmp_path):
    source, _ = trained(task)
    second = 'linear_probe' if task == 'classification' else 'bitfit'
    keys = dict(
        tune__policies=('full', second),
        tune__lrs=2,
        tune__lr_low=0.01,
        tune__lr_high=0.1,
        tune__weight_decays=(0.0,),
        tune__eval_points=2,
        task__metric='auc' if task == 'classification' else 'perplexity',
    )
    content = tune.tune(config_of(texts, task, source, **keys), tmp_path, 'tune', quiet=True)
    candidates = content['candidates']
    assert {one['policy'] for one in candidates} == {'full', second}
    last = max(one['round'] for one in candidates)
    ends = [one['validation'][-1] for one in candidates if one['round'] == last]
    best = max if content['metric']['higher_is_better'] else min
    assert np.isfinite(ends).all()
    assert candidates[content['best']]['validation'][-1] == best(ends)
    assert (tmp_path / 'report' / 'index.html').exists()


def test_rank_classification(texts, trained, tmp_path):
    source, _ = trained('classification')
    sizes = 'width=8, layers=2, heads=2, hidden=12, vocabulary=270, positions=16, types=0'
    config = small_texts.config_of(
        'classification',
        texts,
        source__uri='',
        rank__sources=(str(source), f"random:bert({sizes}, pool='mean')"),
        rank__scores=('logme', 'knn', 'leep'),
        rank__resamples=4,
    )
    content = ranked.results(rank.rank(config, tmp_path, quiet=True), 'rank')
    assert len(content['sources']) == 2
    for one in content['sources']:
        assert np.isfinite(one['scores']['logme'])
        assert 0 <= one['probe']['mean'] <= 1
        assert one['width'] == 8
    own = next(one for one in content['sources'] if one['uri'] == str(source))
    assert own['scores']['leep'] is not None  # its own head has two classes


@pytest.fixture(scope='module')
def two_tokenizers(texts, trained, tmp_path_factory):
    """The uris of two sources for the next word whose tokens are others, and a config for them."""
    first, _ = trained('language_modelling')
    other = tmp_path_factory.mktemp('other')
    prose = ' '.join(small_texts.WORDS['spam'].split()[::-1])
    notes = [f' = {number} = \n\n {prose}\n' for number in range(20)]
    (other / 'notes.txt').write_text('\n'.join(notes))
    config = config_of(other, 'language_modelling', '', data__shots=0)
    second = other / 'run'
    loop.train(experiment_lib.build(config, None), second, quiet=True)
    keys = dict(rank__sources=(str(first), str(second)), rank__resamples=4, source__uri='')
    target = small_texts.config_of('language_modelling', texts, data__tokenizer='', **keys)
    return str(first), str(second), target


def test_rank_of_the_next_word_by_sources_of_two_tokenizers(two_tokenizers, tmp_path):
    first, second, config = two_tokenizers
    config.rank.scores = ('logme', 'ridge_loo')
    content = ranked.results(rank.rank(config, tmp_path, quiet=True), 'rank')
    assert content['by'] == 'log_likelihood'
    assert (content['kind'], content['examples']) == ('tokens', 8)
    for one in content['sources']:
        assert -40 < one['scores']['log_likelihood'] < 0
        assert one['lift']['low'] <= one['lift']['mean'] <= one['lift']['high']
        assert one['worst'] != 'disqualified'
    (told,) = content['together']
    assert content['comparable'] == ['log_likelihood']
    assert content['agreement'] == {'logme': None, 'ridge_loo': None}
    assert told['level'] == 'warning'
    assert 'compare only sources of one tokenizer' in told['why']
    assert 'log_likelihood is by word and compares all of them' in told['why']
    # A tokenizer that is asked for by the config is not that of the second.
    config = config.copy_and_resolve_references()
    config.data.tokenizer = f'{first}/model'
    content = ranked.results(rank.rank(config, tmp_path / 'one', quiet=True), 'rank')
    assert [one['worst'] == 'disqualified' for one in content['sources']] == [False, True]
    assert content['sources'][1]['uri'] == second
    assert content['sources'][1]['scores']['log_likelihood'] is None
    assert 'was trained with another' in ' '.join(content['sources'][1]['warnings'])


def test_compare_trains_ranked_sources_of_the_next_word(two_tokenizers, tmp_path):
    *_, config = two_tokenizers
    config.study.update(seeds=2, trials=1, eval_points=3)
    config.rank.update(scores=('logme',), untrained=False)
    with config.unlocked():
        config.transfer.policy = 'bitfit'
    content = contest.contest(config, tmp_path, 'compare', quiet=True)
    assert (content['trained'], content['by']) == (2, 'log_likelihood')
    assert content['worth']['logme'] is content['worth']['probe'] is None  # of other tokens each
    assert content['worth']['log_likelihood']['regret']['mean'] >= 0
    assert np.isfinite([one['transfer']['mean'] for one in content['sources']]).all()
    report.write(content, tmp_path / 'report')
