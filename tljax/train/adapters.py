"""What a parameter-efficient run trained, saved alone, and put over its source again.

A file holds every leaf that is not the source's bit for bit: what was injected, the head, perhaps
norms. It tells the sha256 of all the others, the backbone that it belongs to.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tljax.errors import UserError
from tljax.models import Model
from tljax.pretrained.readers import open_weights
from tljax.train.injected_models import (
    flat,
    model_of,
    remedy,
    same_injected,
    without_injected,
)
from tljax.transfer import Manifest, peft
from tljax.transfer.manifest import Entry

KEY = 'config.source.peft'
METADATA = 'tljax_peft'
INJECT = 'Inject the same here:'
FORMS = {
    'injected': list,
    'injected_leaves': list,
    'backbone': str,
    'model': dict,
    'example': dict,
    'outputs': int,
}
Leaves = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Saved:
    """A file of trained leaves.

    Attributes:
      file: where it is.
      leaves: path -> array.
      about: `injected` (pairs of `peft.chosen`), `injected_leaves` (paths), `backbone` (sha256 of
        the other leaves), `model`, `example`, `outputs`, `source`.
    """

    file: str
    leaves: dict[str, np.ndarray]
    about: dict[str, Any]


def fingerprint(leaves: Leaves) -> str:
    """Hexadecimal sha256 of leaves: paths, dtypes, shapes and values.

    >>> one = {'a/kernel': np.ones((2, 3), np.float32)}
    >>> fingerprint(one)[:8] == fingerprint({'a/kernel': np.ones((3, 2), np.float32)})[:8]
    False
    """
    digest = hashlib.sha256()
    for path in sorted(leaves):
        leaf = np.asarray(leaves[path])
        digest.update(f'{path} {leaf.dtype} {leaf.shape}\n'.encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def trained(variables: Leaves, loaded: Leaves, injected: Any) -> dict[str, np.ndarray]:
    """The leaves that a file needs: what was injected, and what is not as it was loaded.

    Args:
      variables: path -> array, of the trained model.
      loaded: path -> array, what was taken from the source.
      injected: paths.
    """
    arrays = {path: np.asarray(leaf) for path, leaf in variables.items()}
    return {
        path: leaf
        for path, leaf in arrays.items()
        if path in injected
        or path not in loaded
        or leaf.tobytes() != np.asarray(loaded[path]).astype(leaf.dtype).tobytes()
    }


def save(path: Path, leaves: Leaves, about: Mapping[str, Any]) -> None:
    """Writes a file of trained leaves, safetensors."""
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(leaf) for name, leaf in leaves.items()}
    save_file(contiguous, path, metadata={'format': 'pt', METADATA: json.dumps(about)})


def read(file: str) -> Saved:
    """Reads a file of trained leaves.

    Raises:
      UserError: there is none, or it is another file, or damaged.
    """
    if not Path(file).is_file():
        raise UserError(f'{KEY}: there is no file {file}.')
    weights = open_weights(Path(file))
    try:
        about = json.loads(weights.metadata[METADATA])
        if not all(isinstance(about[key], kind) for key, kind in FORMS.items()):
            raise ValueError
        if not all(isinstance(shape, list) for shape in about['example'].values()):
            raise ValueError
        for pattern, text in about['injected']:
            peft.chosen('full', [(pattern or '.*', text)])
    except (KeyError, TypeError, ValueError, RecursionError, UserError):
        raise UserError(
            f'{KEY}: {file} is no file of `launch.py export --format=peft`. A whole model is given '
            'as config.source.uri.'
        ) from None
    leaves = {name: np.asarray(tensor.read()) for name, tensor in weights.tensors.items()}
    return Saved(file, leaves, about)


def over(
    saved: Saved, model: Model, loaded: Leaves, manifest: Manifest
) -> tuple[dict[str, Any], Manifest]:
    """Puts trained leaves over a source's.

    A model that injects nothing gets them merged into its weights.

    Args:
      saved: of `read`.
      model: the target's.
      loaded: path -> array, the source's leaves fitted to the target.
      manifest: surgery's record of that.

    Returns:
      `loaded` and `manifest` with them.

    Raises:
      UserError: they belong to another backbone, or don't fit the target's model.
    """
    shapes = flat(model.shapes())
    injected = set(model.outline().injected)
    check_backbone(saved, {path: loaded.get(path) for path in shapes.keys() - injected})
    if injected and not same_injected(model_of(saved.about), model):
        raise UserError(
            f'{KEY}: {saved.file} was trained with leaves that were injected in another way, so '
            f'that they would not compute the same. {INJECT} {remedy(saved.about["injected"])}.'
        )
    leaves: Leaves = saved.leaves if injected else merged(saved, loaded)
    given = fitting(saved, leaves, shapes, manifest)
    return {**loaded, **given}, planned(saved, manifest, given)


def check_backbone(saved: Saved, loaded: Leaves) -> None:
    """Raises UserError unless the leaves beside the saved ones are those they were trained with."""
    rest = {path: leaf for path, leaf in loaded.items() if path not in saved.leaves}
    absent = sorted(path for path, leaf in rest.items() if leaf is None)
    if absent:
        raise UserError(
            f'{KEY}: neither the source nor {saved.file} holds the leaf {absent[0]!r}. It was '
            'trained over another architecture, or config.transfer.reset leaves the leaf out.'
        )
    found = fingerprint(rest)
    if found != saved.about['backbone']:
        raise UserError(
            f'{KEY}: {saved.file} belongs to another backbone: it was trained over leaves with '
            f'the sha256 {saved.about["backbone"]}, and those of this source have {found}. Its '
            f'source was {saved.about.get("source")!r}; name it as config.source.uri.'
        )


def merged(saved: Saved, loaded: Leaves) -> dict[str, Any]:
    """The source's and the saved leaves as those of the plain architecture."""
    own = model_of(saved.about)
    absent = sorted(flat(own.shapes()).keys() - {**loaded, **saved.leaves}.keys())
    if absent:
        raise UserError(
            f'{KEY}: {saved.file} says that it belongs to a model with the leaf {absent[0]!r}, '
            'which neither it nor the source holds. Export it again.'
        )
    try:
        leaves = without_injected(own, {**loaded, **saved.leaves})
    except UserError as error:
        raise UserError(f'{KEY}: {error} {INJECT} {remedy(saved.about["injected"])}.') from error
    return {path: np.asarray(leaf) for path, leaf in leaves.items()}


def fitting(saved: Saved, leaves: Leaves, shapes: Leaves, manifest: Manifest) -> dict[str, Any]:
    """The leaves that the target takes; another head's are left where surgery resets it.

    Raises:
      UserError: the target has no such leaf, or another shape of it.
    """
    reset = {entry.path for entry in manifest.entries if entry.action == 'reset'}
    given = {}
    for path, leaf in leaves.items():
        if path in shapes and tuple(shapes[path].shape) == tuple(leaf.shape):
            given[path] = leaf
        elif path not in shapes or path not in reset:
            has = f'{tuple(shapes[path].shape)}' if path in shapes else 'no such leaf'
            raise UserError(
                f'{KEY}: {saved.file} holds {path!r} of shape {tuple(leaf.shape)}, and this model '
                f'has {has}. Inject the same: {remedy(saved.about["injected"])}; for another head, '
                "reset it: config.transfer.reset=('head/.*',)."
            )
    return given


def planned(saved: Saved, manifest: Manifest, given: Leaves) -> Manifest:
    """The manifest, with the leaves from the file told as loaded."""
    note = f'from {Path(saved.file).name}'

    def entry_of(entry: Entry) -> Entry:
        if entry.action == 'unused' or entry.path not in saved.leaves or entry.path not in given:
            return entry
        return dataclasses.replace(
            entry,
            action='loaded',
            source_path=entry.path,
            source_shape=entry.shape,
            note=note,
            how='',
        )

    return Manifest(tuple(map(entry_of, manifest.entries)))


def told(file: str, manifest: Manifest, shapes: Leaves) -> Manifest:
    """The manifest, with the file's leaves told as loaded, by shapes alone.

    Raises:
      UserError: there is no such file, or its leaves don't fit.
    """
    saved = read(file)
    plain = {p: x for p, x in saved.leaves.items() if p not in saved.about['injected_leaves']}
    merges = not any(path in shapes for path in saved.about['injected_leaves'])
    return planned(
        saved, manifest, fitting(saved, plain if merges else saved.leaves, shapes, manifest)
    )
