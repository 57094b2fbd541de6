"""A workdir: one process at a time, and what a second one is told."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from tljax import config as config_lib
from tljax.errors import UserError
from tljax.train import lock
from tljax.train.workdir import check, check_trained, claim, write_json

HOLDER = """
import sys, time
from pathlib import Path
from tljax.train import lock
lock.hold(Path(sys.argv[1]), 'train')
print('held', flush=True)
time.sleep(600)
"""


@pytest.fixture
def config():
    full = config_lib.default()
    full.model.name, full.data.name = 'convnet', 'handwritten_digits'
    return full


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path."""
    command = [sys.executable, '-c', HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == 'held\n'
        yield process
        process.kill()


def test_a_workdir_in_use_is_refused_until_its_process_dies(tmp_path, config, holder):
    for refuses in (check, claim):
        with pytest.raises(UserError, match='in use by process') as told:
            refuses(tmp_path, config, 'train')
        assert f'process {holder.pid} on ' in str(told.value)
        assert '`launch.py train`' in str(told.value)
    assert not (tmp_path / 'config.json').exists()
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    check(tmp_path, config, 'train')
    claim(tmp_path, config, 'train')
    assert json.loads((tmp_path / lock.FILE).read_text())['process'] == os.getpid()


def test_one_process_may_claim_again_and_keeps_its_lock(tmp_path, config):
    for _ in range(2):
        claim(tmp_path, config, 'train')
        check(tmp_path, config, 'train')
    other = (
        'import sys; from pathlib import Path; from tljax.train import lock; '
        'lock.check(Path(sys.argv[1]))'
    )
    done = subprocess.run([sys.executable, '-c', other, tmp_path], capture_output=True, text=True)
    assert f'in use by process {os.getpid()} ' in done.stderr


def test_a_workdir_that_was_deleted_is_locked_anew(tmp_path, config):
    workdir = tmp_path / 'run'
    claim(workdir, config, 'train')
    shutil.rmtree(workdir)
    claim(workdir, config, 'tune')
    assert json.loads((workdir / lock.FILE).read_text())['command'] == 'tune'


def test_a_link_in_the_place_of_the_lock_is_not_written_through(tmp_path, config):
    precious = tmp_path / 'precious'
    precious.write_text('mine')
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / lock.FILE).symlink_to(precious)
    with pytest.raises(UserError, match='cannot be written'):
        claim(tmp_path / 'run', config, 'train')
    assert precious.read_text() == 'mine'


def test_two_processes_that_write_one_file_leave_it_whole(tmp_path, monkeypatch):
    replace = os.replace

    def meanwhile(partial, path):
        monkeypatch.setattr(os, 'replace', replace)
        monkeypatch.setattr(os, 'getpid', lambda: 1)
        write_json(path, {'of': 'another'})
        replace(partial, path)

    monkeypatch.setattr(os, 'replace', meanwhile)
    write_json(tmp_path / 'a.json', {'of': 'this'})
    assert json.loads((tmp_path / 'a.json').read_text()) == {'of': 'this'}
    assert [path.name for path in tmp_path.iterdir()] == ['a.json']


def test_without_locks_on_the_file_system_a_run_goes_on(tmp_path, config, monkeypatch):
    def none(*_):
        raise OSError(37, 'No locks available')

    monkeypatch.setattr(lock.fcntl, 'lockf', none)
    check(tmp_path, config, 'train')
    claim(tmp_path, config, 'train')
    assert (tmp_path / 'config.json').exists()


@pytest.mark.parametrize('command', ['train', 'compare'])
def test_what_studies_alone_read_is_no_other_run(tmp_path, config, command):
    claim(tmp_path, config, command)
    config.study.seeds, config.rank.by, config.tune.budget = 7, 'knn', 100
    if command == 'train':
        check(tmp_path, config, command)
    config.optim.lr = 0.5
    with pytest.raises(UserError, match=r'optim.lr: 0.001 -> 0.5') as told:
        check(tmp_path, config, command)
    assert ('study.seeds' in str(told.value)) == (command == 'compare')


def test_a_reader_of_a_model_may_leave_the_config_out(tmp_path, config):
    claim(tmp_path, config, 'train')
    check_trained(tmp_path, config)
    config.train.steps += 1
    with pytest.raises(UserError, match='or leave --config out'):
        check_trained(tmp_path, config)
    with pytest.raises(UserError, match='or run with the old values'):
        check(tmp_path, config, 'train')
