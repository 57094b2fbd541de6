"""Training: stopped in every way and gone on with, on several devices, streamed."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from tljax import trees
from tljax.train.model_dir import load_model

LONG = (
    '--config=configs/digits.py:source',
    '--config.train.steps=2000',
    '--config.train.save_every=100',
    '--config.train.eval_every=400',
    '--config.model.widths=(8, 16)',
    '--config.model.dropout=0.2',
    '--config.model.norm=batch',
)
SHORT = (
    '--config=configs/digits.py:zero_to_four',
    '--config.train.steps=30',
    '--config.train.save_every=10',
    '--config.train.eval_every=15',
)


def leaves(workdir: Path) -> dict[str, np.ndarray]:
    variables, _ = load_model(workdir / 'model')
    flat = trees.flatten(variables['params']) | trees.flatten(variables['batch_stats'])
    return {path: np.asarray(leaf) for path, leaf in flat.items()}


def assert_equal_bit_for_bit(one: Path, other: Path):
    a, b = leaves(one), leaves(other)
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_array_equal(a[path], b[path], err_msg=path)


def metrics(workdir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != 'seconds'} for line in lines]


@pytest.fixture(scope='module')
def undisturbed(launch, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp('undisturbed') / 'run'
    launch.ok('train', *LONG, f'--workdir={workdir}', '--quiet')
    return workdir


def test_a_run_leaves_what_is_promised(undisturbed):
    for name in ('config.json', 'splits.json', 'metrics.jsonl', 'model/card.json'):
        assert (undisturbed / name).stat().st_size > 0, name
    assert sorted(int(path.name) for path in (undisturbed / 'checkpoints').iterdir())[-2:] == [
        1900,
        2000,
    ]
    assert list((undisturbed / 'tensorboard').glob('events.out.tfevents.*'))
    card = json.loads((undisturbed / 'model' / 'card.json').read_text())
    assert card['examples'] == 2000 * 64
    last = metrics(undisturbed)[-1]
    assert last['step'] == 2000
    assert last['validation/accuracy'] > 0.9


@pytest.mark.parametrize(
    ('number', 'step'),
    [
        pytest.param(signal.SIGKILL, 400, id='kill'),
        pytest.param(signal.SIGTERM, 700, id='term', marks=pytest.mark.matrix),
        pytest.param(signal.SIGINT, 900, id='ctrl-c', marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_ends_with_the_same_parameters(launch, undisturbed, tmp_path, number, step):
    workdir = tmp_path / 'run'
    arguments = ('train', *LONG, f'--workdir={workdir}', '--quiet')
    checkpoint = workdir / 'checkpoints' / str(step)
    stopped = launch.stopped(*arguments, when=checkpoint.exists, number=number)
    assert not (workdir / 'model').exists()
    if number == signal.SIGKILL:
        assert stopped.returncode == -signal.SIGKILL
    else:
        assert stopped.returncode == 1
        assert 'the same command goes on from there' in stopped.stderr
        saved = max(int(path.name) for path in (workdir / 'checkpoints').iterdir())
        assert f'stopped at step {saved} of 2000' in stopped.stderr
    launch.ok(*arguments)
    assert_equal_bit_for_bit(workdir, undisturbed)
    assert metrics(workdir) == metrics(undisturbed)


def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_used(
    launch, undisturbed, tmp_path
):
    workdir = tmp_path / 'run'
    shutil.copytree(undisturbed, workdir)
    shutil.rmtree(workdir / 'model')
    for file in (workdir / 'checkpoints' / '2000').rglob('*'):
        if file.is_file() and file.parent.name == 'd':
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    done = launch.ok('train', *LONG, f'--workdir={workdir}')
    assert 'damaged' in done.stderr
    assert 'checkpoints/2000' in done.stderr
    assert_equal_bit_for_bit(workdir, undisturbed)


def test_a_changed_config_is_refused_with_its_keys(launch, undisturbed):
    said = launch.refused(
        'train', *LONG, '--config.optim.lr=0.5', f'--workdir={undisturbed}', '--quiet'
    )
    assert 'optim.lr: 0.001 -> 0.5' in said


def test_a_finished_run_is_not_trained_again(launch, undisturbed):
    before = (undisturbed / 'model' / 'card.json').stat().st_mtime_ns
    done = launch.ok('train', *LONG, f'--workdir={undisturbed}')
    assert 'trained already' in done.stderr
    assert (undisturbed / 'model' / 'card.json').stat().st_mtime_ns == before


@pytest.fixture(scope='module')
def short(launch, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp('short') / 'run'
    launch.ok('train', *SHORT, f'--workdir={workdir}', '--quiet')
    return workdir


@pytest.mark.slow
def test_four_devices_give_the_result_of_one(launch, short, tmp_path):
    flags = f'{launch.env.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=4'
    launch.ok('train', *SHORT, f'--workdir={tmp_path / "run"}', XLA_FLAGS=flags)
    one, four = leaves(short), leaves(tmp_path / 'run')
    for path in one:
        np.testing.assert_allclose(one[path], four[path], rtol=2e-3, atol=2e-4, err_msg=path)


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(launch, short, tmp_path):
    import socket
    import subprocess

    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    arguments = (
        *('train', *SHORT, f'--workdir={tmp_path / "run"}', '--distributed'),
        *(f'--coordinator=localhost:{port}', '--num_processes=2'),
    )
    processes = [
        subprocess.Popen(launch.command(*arguments, f'--process_id={index}'), env=launch.env)
        for index in range(2)
    ]
    assert [process.wait(timeout=180) for process in processes] == [0, 0]
    one, two = leaves(short), leaves(tmp_path / 'run')
    for path in one:
        np.testing.assert_allclose(one[path], two[path], rtol=2e-3, atol=2e-4, err_msg=path)
    assert [m['step'] for m in metrics(tmp_path / 'run')] == [m['step'] for m in metrics(short)]


@pytest.mark.matrix
def test_streamed_data_gives_the_same_parameters(launch, short, tmp_path):
    workdir = tmp_path / 'run'
    launch.ok('train', *SHORT, '--config.data.in_memory=off', f'--workdir={workdir}')
    assert_equal_bit_for_bit(short, workdir)


def test_a_batch_that_devices_cannot_share_is_refused(launch, tmp_path):
    done = launch(
        'train',
        *SHORT,
        '--config.train.batch_size=30',
        f'--workdir={tmp_path / "run"}',
        XLA_FLAGS='--xla_force_host_platform_device_count=4',
    )
    assert done.returncode == 2
    assert 'use a multiple of 4, such as 28' in done.stderr


@pytest.mark.slow
def test_phases_change_what_is_trained_and_resume(launch, tmp_path):
    arguments = (
        'train',
        '--config=configs/digits.py:new_classes',
        '--config.transfer.policy=lp_ft',
        '--config.train.steps=60',
        '--config.train.save_every=20',
        '--config.train.keep=5',
    )
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    source = f'--config.source.workdir={tmp_path / "source"}'
    launch.ok(*arguments, source, f'--workdir={whole}')
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / 'model')
    for step in ('40', '60'):
        shutil.rmtree(parts / 'checkpoints' / step)
    assert (parts / 'checkpoints' / '20').exists()  # within the first phase
    launch.ok(*arguments, source, f'--workdir={parts}')
    assert_equal_bit_for_bit(whole, parts)


def test_non_finite_loss_stops_with_step_rate_and_checkpoint(launch, tmp_path):
    said = launch.refused(
        'train', *SHORT, '--config.optim.lr=1e30', f'--workdir={tmp_path / "run"}', status=1
    )
    assert 'non-finite at step' in said
    assert 'config.optim.lr = 1e+30' in said
    assert 'Last good checkpoint' in said


def test_evaluate_reads_the_test_split_once(launch, short):
    arguments = ('evaluate', SHORT[0], *SHORT[1:], f'--workdir={short}', '--quiet')
    first = json.loads(launch.ok(*arguments, '--split=test').stdout)
    assert first['split'] == 'test'
    assert 0.2 < first['accuracy'] <= 1
    kept = short / 'evaluation-test.json'
    content = json.loads(kept.read_text())
    content['accuracy'] = 0.123  # what was kept is what is shown
    kept.write_text(json.dumps(content))
    assert json.loads(launch.ok(*arguments, '--split=test').stdout)['accuracy'] == 0.123
    validation = json.loads(launch.ok(*arguments).stdout)
    assert validation['accuracy'] == metrics(short)[-1]['validation/accuracy']


def test_predict_names_a_class_for_every_file(launch, short, tmp_path):
    import cv2
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = np.flatnonzero(digits.target < 5)[:40]
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for index in small:
        picture = np.round(digits.images[index] * 255 / 16).astype(np.uint8)
        cv2.imwrite(str(folder / f'{index:04}.png'), picture)
    output = tmp_path / 'out.jsonl'
    launch.ok('predict', *SHORT, f'--workdir={short}', f'--input={folder}', f'--output={output}')
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [Path(line['file']).stem for line in lines] == [f'{index:04}' for index in small]
    hits = [line['label'] == str(digits.target[i]) for line, i in zip(lines, small, strict=True)]
    assert np.mean(hits) > 0.7  # chance is 0.2; thirty steps reach about 0.9
    torn = folder / 'torn.png'
    torn.write_bytes((folder / f'{small[0]:04}.png').read_bytes()[:60])
    arguments = ('predict', *SHORT, f'--workdir={short}', f'--output={output}')
    said = launch.refused(*arguments, f'--input={folder}', status=1)
    assert said.strip().splitlines() == [
        f'tljax: 1 of the 41 files in {folder} could not be read; the "error" of each says why.'
    ]
    *others, last = map(json.loads, output.read_text().splitlines())
    assert [line['label'] for line in others] == [line['label'] for line in lines]
    assert last.keys() == {'file', 'error'}
    assert last['file'] == str(torn)
    assert 'torn.png: it is no image' in launch.refused(*arguments, f'--input={torn}')
