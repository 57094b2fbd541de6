"""The commands on models of texts, as functions: what a user would run after `train`."""

import json

import numpy as np
import pytest
import small_texts

from tljax import trees
from tljax.errors import UserError
from tljax.pretrained import inputs
from tljax.study import rank, ranked, tune
from tljax.train import experiment as experiment_lib
from tljax.train import inspect, loop, serve, sources
from tljax.train.average import average
from tljax.train.export import FORMATS, export
from tljax.train.model_dir import load_model

pytestmark = pytest.mark.slow
TASKS = small_texts.TASKS


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


@pytest.mark.parametrize('task', TASKS)
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


@pytest.mark.parametrize('task', TASKS)
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


def test_rank_has_no_score_for_the_next_word(texts, trained, tmp_path):
    source, _ = trained('language_modelling')
    config = small_texts.config_of('language_modelling', texts, rank__sources=(str(source),))
    with pytest.raises(UserError, match=r'logme is not defined for labels for a sequence.*compare'):
        rank.rank(config, tmp_path, quiet=True)
