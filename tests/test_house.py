"""The house: no file imports from a floor above its own, and launch.py --help loads little."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    'errors': 0,
    'progress': 0,
    'trees': 0,
    'mesh': 0,
    'config': 0,
    'calls': 0,
    'models': 1,
    'data': 1,
    'tasks': 1,
    'pretrained': 2,
    'ranking': 2,
    'transfer': 2,
    'train': 3,
    'study': 4,
    'flags': 5,
    'process': 5,
    'cli': 5,
}
FILES = sorted((ROOT / 'tljax').rglob('*.py'))


def imported(path: Path) -> set[str]:
    """The rooms of tljax that a file imports from, anywhere in it."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == 'tljax':
            rooms |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or '').startswith('tljax.'):
            rooms.add(str(node.module).split('.')[1])
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith('tljax.')]
            rooms |= {name.split('.')[1] for name in names}
    return rooms - {'__version__'}


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_from_its_own_floor_or_lower(path):
    room = path.relative_to(ROOT / 'tljax').parts[0].removesuffix('.py')
    if room == '__init__':
        return
    above = {other for other in imported(path) if FLOORS[other] > FLOORS[room]}
    assert not above, f'{room} (floor {FLOORS[room]}) imports from {above}'


def test_every_room_has_a_floor():
    rooms = {p.relative_to(ROOT / 'tljax').parts[0].removesuffix('.py') for p in FILES}
    assert rooms - {'__init__'} == FLOORS.keys()


@pytest.mark.parametrize('words', [['--help'], ['compare', '--help']])
def test_help_loads_nothing_heavy(words):
    program = (
        'import sys; from tljax.cli import main; '
        f'status = main(["launch.py", *{words!r}]); '
        'heavy = {"jax", "flax", "orbax", "tensorflow_datasets", "matplotlib", "scipy"}; '
        'loaded = heavy & set(sys.modules); '
        'assert not loaded, loaded; sys.exit(status)'
    )
    done = subprocess.run(
        [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
