"""What reading a model costs in memory: no second copy of it, not even as mapped pages."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from safetensors.numpy import save_file
from torch_writer import state_dict, write_legacy, write_zip

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
COUNT, SIZE = 30, 500_000  # 60 MB of float32

PROGRAM = """
import sys
import numpy as np
from tljax.pretrained.readers import open_weights

def kilobytes(key):
    lines = open('/proc/self/status').read().splitlines()
    return int(next(line for line in lines if line.startswith(key + ':')).split()[1])

open_weights(sys.argv[2]).tensors['0'].read()  # whatever is imported late
with open('/proc/self/clear_refs', 'w') as file:
    file.write('5')  # forgets the peak
before = kilobytes('VmRSS')
weights = open_weights(sys.argv[1])
leaves = {name: np.array(t.read(), np.float32) for name, t in weights.tensors.items()}
used = (kilobytes('VmHWM') - before) * 1024
model = sum(leaf.nbytes for leaf in leaves.values())
assert all(leaf[-1] == int(name) for name, leaf in leaves.items())
print(used / model)
"""


def write(form, path, arrays):
    tensors, storages = state_dict(arrays, (None,) if form == 'legacy' else ())
    if form == 'safetensors':
        save_file(arrays, path)
    elif form in ('zip', 'deflated'):
        write_zip(path, tensors, storages, deflate=form == 'deflated')
    elif form == 'legacy':
        write_legacy(path, tensors, storages)
    elif form == 'orbax':
        ocp.save(path, arrays)
    elif form == 'h5':
        with h5py.File(path, 'w') as file:
            for name, array in arrays.items():
                file[name] = array
    else:
        with open(path, 'wb') as file:
            np.savez(file, **arrays)
    return path


@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='measured as Linux does')
@pytest.mark.parametrize(
    ('form', 'limit'),
    [
        *(('safetensors', 1.2), ('zip', 1.2), ('deflated', 1.2), ('legacy', 1.2), ('npz', 1.2)),
        ('h5', 1.2),
        ('orbax', 1.5),  # 8 MB are read at once, a good part of a model of 60
    ],
)
def test_peak_memory(tmp_path, form, limit):
    rng = np.random.default_rng(0)
    base = rng.integers(0, 9, SIZE).astype(np.float32)
    arrays = {str(n): base.copy() for n in range(COUNT)}
    for n, array in enumerate(arrays.values()):
        array[-1] = n
    large = write(form, tmp_path / 'large', arrays)
    small = write(form, tmp_path / 'small', {'0': np.zeros(1, np.float32)})
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, str(large), str(small)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert 0.9 < float(done.stdout) < limit
