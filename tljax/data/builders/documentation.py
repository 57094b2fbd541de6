"""Documentation that lies on every computer with Python: real English, no network needed."""

import ast
import importlib.util
import inspect
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

SHORTEST = 200  # characters of a docstring that is kept
EVERY = 5  # each fifth file is test: no file is in both splits


def docstrings(file: Path) -> Iterator[str]:
    """The docstrings in a Python file, which is parsed and not run."""
    try:
        tree = ast.parse(file.read_text(encoding='utf-8'))
    except (SyntaxError, ValueError, OSError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = inspect.cleandoc(ast.get_docstring(node, clean=False) or '')
            if len(text) >= SHORTEST:
                yield text


class PythonDocs(tfds.core.GeneratorBasedBuilder):
    """Real English: Python's language reference (pydoc_data) and docstrings of its own library.

    Written by Python's authors (PSF licence), as found in the Python that prepares the set, so
    that another version of Python gives slightly other documents. A document is a topic or a
    docstring of 200 characters or more. Test is each fifth file.
    """

    VERSION = tfds.core.Version('1.0.0')

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=self.__doc__,
            features=tfds.features.FeaturesDict({'text': tfds.features.Text()}),
            supervised_keys=None,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ('train', 'test')}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        seen: set[str] = set()
        key = 0
        for number, texts in enumerate(self.files()):
            for text in texts:
                if text in seen:  # over both splits: the same docstring stands in many places
                    continue
                seen.add(text)
                if (number % EVERY == EVERY - 1) == (split == 'test'):
                    yield key, {'text': text}
                    key += 1

    def files(self) -> Iterator[Iterator[str]]:
        """The documents of each file."""
        from pydoc_data.topics import topics

        for text in topics.values():
            yield iter([text])
        library = Path(sysconfig.get_paths()['stdlib'])
        for file in sorted([*library.glob('*.py'), *library.glob('[a-z]*/*.py')]):
            if not {'test', 'tests', 'site-packages', 'idlelib', 'lib2to3'} & set(file.parts):
                yield docstrings(file)


class PackageDocs(PythonDocs):
    """Real English, of a narrow kind: the docstrings of NumPy and SciPy, in the style of numpydoc.

    Written by their authors (BSD licences), as found in the installed versions, so that others
    give slightly other documents. A document is a docstring of 200 characters or more. Test is
    each fifth file.
    """

    PACKAGES: ClassVar[tuple[str, ...]] = ('numpy', 'scipy')

    def files(self) -> Iterator[Iterator[str]]:
        """The documents of each file."""
        for name in self.PACKAGES:
            found = importlib.util.find_spec(name)
            assert found is not None
            assert found.submodule_search_locations
            root = Path(found.submodule_search_locations[0])
            for file in sorted(root.rglob('*.py')):
                if 'tests' not in file.parts:
                    yield docstrings(file)
