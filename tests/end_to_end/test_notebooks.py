"""Every notebook runs from top to bottom."""

import os
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / 'notebooks').glob('*.ipynb'))


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # the notebook tools' own, in this process
@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(launch, path, tmp_path, monkeypatch):
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    monkeypatch.delenv('XLA_FLAGS', raising=False)  # it computes more than it compiles
    for name, value in launch.env.items():
        monkeypatch.setenv(name, value)
    (tmp_path / 'notebooks').mkdir()
    root = path.parents[1]
    for name in ('launch.py', 'configs'):
        os.symlink(root / name, tmp_path / name)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={'metadata': {'path': str(tmp_path / 'notebooks')}}
    )
    client.execute()
    text = '\n'.join(
        output.get('text', '') for cell in notebook.cells for output in cell.get('outputs', [])
    )
    assert 'Transfer ends' in text or 'equivalent' in text or 'open' in text
    assert (tmp_path / 'runs' / 'notebook' / 'report' / 'index.html').exists()
