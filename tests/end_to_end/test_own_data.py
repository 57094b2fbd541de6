"""Data of the user's own, as a user runs it: folders of images, killed and gone on with."""

import json
import signal

import numpy as np
import pytest
from PIL import Image

FOLDER = '--config=configs/image/folder.py'
SMALL = (
    '--config.model.name=convnet',
    '--config.transfer.reset=()',
    '--config.data.image_size=8',
    '--config.train.steps=2',
    '--config.train.batch_size=8',
    '--config.train.eval_every=1',
    '--config.study.seeds=2',
    '--config.study.trials=1',
    '--config.study.eval_points=2',
)


def fill(root, count):
    """root/NAME/I.png, half of each of two classes, all different."""
    rng = np.random.default_rng(0)
    for name in ('cat', 'dog'):
        (root / name).mkdir(parents=True)
    for i in range(count):
        pixels = rng.integers(0, 256, (9, 9, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / ('cat', 'dog')[i % 2] / f'{i:05}.png')


@pytest.mark.slow
def test_train_and_predict(launch, tmp_path):
    fill(tmp_path / 'mine', 60)
    (tmp_path / 'mine' / 'cat' / 'torn.png').write_bytes(b'no')
    clear = np.zeros((9, 9, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / 'mine' / 'cat' / 'clear.png')
    arguments = (FOLDER, f'--config.data.dir={tmp_path}/mine', *SMALL)
    done = launch.ok('train', *arguments, f'--workdir={tmp_path}/run')
    assert '1 of 62 rows are left out: it is no image (1)' in done.stderr
    out = launch.ok(
        'predict', *arguments, f'--workdir={tmp_path}/run', f'--input={tmp_path}/mine/dog'
    ).stdout
    assert len(out.splitlines()) == 30
    assert json.loads(out.splitlines()[0])['label'] in ('cat', 'dog')
    assert json.loads((tmp_path / 'run' / 'splits.json').read_text())['test']['count'] == 12
    (tmp_path / 'mine' / 'dog').rename(tmp_path / 'mine' / 'hound')
    told = launch.refused(
        'predict', *arguments, f'--workdir={tmp_path}/run', f'--input={tmp_path}/mine/cat'
    )
    assert 'learnt cat, dog' in told
    told = launch.refused(
        'train', *arguments, '--config.data.on_error=refuse', f'--workdir={tmp_path}/other'
    )
    assert 'cat/torn.png: it is no image' in told


@pytest.mark.slow
def test_killed_and_gone_on_with(launch, tmp_path):
    fill(tmp_path / 'mine', 3000)

    def arguments(place):
        data = (f'--config.data.dir={tmp_path}/mine', f'--config.data.prepared={tmp_path}/{place}')
        return ('inspect', FOLDER, *data, *SMALL, f'--workdir={tmp_path}/run')

    parts = lambda: list((tmp_path / 'first').glob('unfinished/*/*[0-9].json'))  # noqa: E731
    launch.stopped(*arguments('first'), when=lambda: len(parts()) > 1, number=signal.SIGKILL)
    before = {file: file.stat().st_mtime_ns for file in parts()}
    assert before
    done = launch.stopped(
        *arguments('first'), when=lambda: len(parts()) > len(before), number=signal.SIGKILL
    )
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert done.returncode == -signal.SIGKILL
    launch.ok(*arguments('first'))
    launch.ok(*arguments('second'))
    one, two = (
        sorted(p.name for p in (tmp_path / place / 'folder').iterdir())
        for place in ('first', 'second')
    )
    assert one == two
    assert not parts()
