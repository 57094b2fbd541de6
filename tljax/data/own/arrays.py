"""`config.data.name='arrays'`: `.npz` and `.npy` files, and arrays handed over in a notebook."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tljax.data.own import prepare
from tljax.data.own.array_kinds import Kind, kind_of
from tljax.data.own.listing import SPLITS
from tljax.data.own.rows import BadRow, Ready, Row
from tljax.data.own.table import plain
from tljax.errors import RunError, UserError, nearest

CONTENT = ('image', 'images', 'x', 'X', 'data', 'text', 'texts', 'audio', 'sounds')
LABELS = ('label', 'labels', 'y', 'Y', 'target', 'targets')
LENGTHS = '__lengths'  # of sounds that lie behind each other in one array
BAD = '__bad__'  # rows that `save_arrays` could not keep


@dataclasses.dataclass(frozen=True)
class Stored:
    """Arrays by name, read when they are asked for.

    Attributes:
      files: name -> .npy file, or None where they are all in one .npz.
      archive: the opened .npz.
    """

    files: Mapping[str, Path]
    archive: Any = None

    def names(self) -> list[str]:
        return list(self.archive.files if self.archive is not None else self.files)

    def get(self, name: str) -> np.ndarray:
        """One array; a .npy file stays on disk until it is used.

        Raises:
          UserError: it holds Python objects, which are never loaded.
          RunError: it is damaged.
        """
        try:
            if self.archive is not None:
                return self.archive[name]
            return np.load(self.files[name], mmap_mode='r', allow_pickle=False)
        except ValueError as error:
            if 'allow_pickle' in str(error) or 'Object arrays' in str(error):
                raise UserError(
                    f'config.data.dir: the array {name!r} holds Python objects (rows of several '
                    'shapes?), which are never loaded. Save it with one shape and a plain dtype.'
                ) from None
            raise RunError(f'config.data.dir: the array {name!r} is damaged: {error}.') from None
        except Exception as error:  # zipfile and zlib raise their own
            raise RunError(f'config.data.dir: the array {name!r} is damaged: {error}.') from None


def open_arrays(config: Any) -> Any:
    """The TFDS builder of arrays of the user's, prepared on the first call.

    `config.data.dir` is an .npz file, an .npy file or a folder of these. `data.image` (or `.text`,
    `.audio`) and `data.label` name arrays; without them usual names are found. Where arrays are
    called x_train and x_test (or train_x), the name is x.

    Args:
      config: the section `config.data`.

    Raises:
      UserError: no such file or array; lengths or shapes that don't fit; and as for
        `prepare.prepare`.
    """
    path = Path(config.dir).expanduser()
    stored, files = stored_at(path)
    stats = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    stamp = prepare.stamp_of(config, (), stats)
    return prepare.prepare(config, stamp, lambda kept: arrays_ready(config, stored, path.name))


def stored_at(path: Path) -> tuple[Stored, list[Path]]:
    """The arrays at a path, and the files that hold them."""
    if path.suffix == '.npz' and path.is_file():
        try:
            return Stored({}, np.load(path, allow_pickle=False)), [path]
        except Exception as error:
            raise RunError(f'config.data.dir={path} is damaged, or no .npz: {error}.') from None
    folder = path if path.is_dir() else path.parent
    files = sorted(folder.glob('*.npy')) if path.is_dir() or path.suffix == '.npy' else []
    if not files or not path.exists():
        raise UserError(
            f'config.data.dir={path}: there are no arrays. Give an .npz file, an .npy file, or a '
            'folder of these.'
        )
    return Stored({file.stem: file for file in files}), files


def arrays_ready(config: Any, stored: Stored, source: str) -> Ready:
    """All rows of the arrays, each looked at."""
    content = found_name(config, stored, 'content', source)
    labels = found_name(config, stored, 'label', source)
    groups = group_names(config, stored, content, source)
    rows: list[Row] = []
    cells: list[tuple[Kind, int]] = []
    for split, name in content.items():
        kind = kind_of(config, name, stored.get(name), lengths_of(stored, name))
        count = len(kind)
        label_S = column(stored, labels.get(split, ''), count, 'label')
        group_S = column(stored, groups.get(split, ''), count, 'group')
        for i in range(count):
            where = f'{source}:{name}[{i}]'
            rows.append(Row(where, label_S[i], split, group_S[i]))
            cells.append((kind, i))
    checked = [check(*cell, row, bool(labels)) for cell, row in zip(cells, rows, strict=True)]
    first = cells[0][0] if cells else None
    if first is None or any(kind.features != first.features for kind, _ in cells):
        raise UserError(f'config.data.dir={config.dir}: its splits have different shapes, or none.')
    check_scales(config, dict(zip((content[row.split] for row in rows), cells, strict=True)))
    return Ready(
        rows=rows,
        bad=[why for why, _ in checked],
        digests=[digest for _, digest in checked],
        features=first.tfds_features(),
        example=lambda index: cells[index][0].example(cells[index][1]),
        notes=sorted({note for kind, _ in cells for note in kind.notes}),
        never=[tuple(str(one).split('\t', 1)) for one in bad_rows(stored)],  # type: ignore[misc]
        labelled=bool(labels),
        rate=first.rate,
    )


def check(kind: Kind, index: int, row: Row, labelled: bool) -> tuple[str, str]:
    """Why a row cannot be used, and what tells its content."""
    if labelled and not row.label:
        return 'no label', ''
    try:
        raw = kind.raw(index)
    except BadRow as error:
        return str(error), ''
    return '', hashlib.sha256(raw).hexdigest()


def bad_rows(stored: Stored) -> Sequence[Any]:
    return stored.get(BAD).tolist() if BAD in stored.names() else ()


def lengths_of(stored: Stored, name: str) -> np.ndarray | None:
    """How long each sound is, where they lie behind each other."""
    return stored.get(name + LENGTHS) if name + LENGTHS in stored.names() else None


def found_name(config: Any, stored: Stored, role: str, source: str) -> dict[str, str]:
    """Split -> name of the array with the content or the labels; {} where labels are missing.

    Raises:
      UserError: no array has the name, or a usual one.
    """
    asked = [config[key] for key in ('image', 'text', 'audio') if config[key]]
    keys = 'data.image, data.text or data.audio'
    if role == 'label':
        asked, keys = [config.label] if config.label else [], 'data.label'
    usual = LABELS if role == 'label' else CONTENT
    for name in asked or usual:
        if found := parts_of(stored, name):
            return found
    if asked:
        hint = nearest(asked[0], stored.names())
        raise UserError(f'config.{keys}: {source} has no array {asked[0]!r}.{hint}')
    if role == 'label' and not config.text:
        raise UserError(
            f'config.data.label: name the array of the labels in {source}: '
            f'{", ".join(stored.names())}.'
        )
    if role == 'label':
        return {}
    raise UserError(
        f'config.{keys}: name the array of what is to be classified in {source}: '
        f'{", ".join(stored.names())}.'
    )


def group_names(
    config: Any, stored: Stored, content: Mapping[str, str], source: str
) -> dict[str, str]:
    """Split -> name of the array with the groups; {} where none are asked for.

    Raises:
      UserError: no array has the name, or not for each split.
    """
    found = parts_of(stored, config.group) if config.group else {}
    for split in content if config.group else ():
        if split not in found:
            which = f' for {split}' if split else ''
            hint = nearest(config.group, stored.names())
            raise UserError(
                f'config.data.group: {source} has no array {config.group!r}{which}.{hint}'
            )
    return found


def check_scales(config: Any, of: Mapping[str, tuple[Kind, int]]) -> None:
    """Checks that arrays of one dtype, by name, are brought to 0..255 in one way.

    Raises:
      UserError: names both, and how they would be.
    """
    first: dict[np.dtype, tuple[str, float]] = {}
    for name, (kind, _) in of.items():
        other, scale = first.setdefault(kind.values.dtype, (name, kind.scale))
        if scale != kind.scale:
            raise UserError(
                f'config.data.dir={config.dir}: by their largest values {other} would be '
                f'multiplied by {scale:g}, and {name} by {kind.scale:g}. Scale both to 0 to 255, '
                'or both to 0 to 1.'
            )


def parts_of(stored: Stored, name: str) -> dict[str, str]:
    """Split -> name of an array: {'': 'x'}, or {'train': 'x_train', 'test': 'x_test'}."""
    names = stored.names()
    if name in names:
        return {'': name}
    found: dict[str, str] = {}
    for word, split in SPLITS.items():
        for option in (f'{name}_{word}', f'{word}_{name}'):
            if option in names:
                found.setdefault(split, option)
    return found


def column(stored: Stored, name: str, count: int, role: str) -> list[str]:
    """Labels or groups as text, (count,); '' for each without an array.

    Raises:
      UserError: another number, or more than one dimension.
    """
    if not name:
        return [''] * count
    values = stored.get(name)
    if values.shape != (count,):
        raise UserError(
            f'config.data.{role}: the array {name!r} has the shape {values.shape}, and there are '
            f'{count} rows: one {role} for each is needed.'
        )
    return [plain(value) for value in values.tolist()]


def save_arrays(path: str | Path, **arrays: Any) -> Path:
    """Keeps arrays from a notebook as an .npz file, for `config.data.dir`.

    Args:
      path: of the file to write.
      **arrays: by name: image, a list of (height, width[, channels]) or one array of them; text, a
        list of str; or audio, a list of (samples,) of any lengths; and label, group. Names may end
        in _train and _test. Images of another shape than most are listed as bad rows.

    Returns:
      The path.

    Raises:
      UserError: lengths that differ.

    >>> import tempfile
    >>> images = np.zeros((4, 8, 8), np.uint8)
    >>> save_arrays(tempfile.mkdtemp() + '/mine.npz', image=images, label=[0, 1, 0, 1]).name
    'mine.npz'
    """
    path = Path(path).with_suffix('.npz')
    counts = {name: len(values) for name, values in arrays.items()}
    kept: dict[str, np.ndarray] = {}
    bad: list[str] = []
    for name, values in arrays.items():
        if isinstance(values, np.ndarray) and values.dtype != object:
            kept[name] = values
            continue
        items = [np.asarray(value) for value in values]
        shapes = [item.shape for item in items]
        if len(set(shapes)) > 1 and all(len(shape) == 1 for shape in shapes):
            kept[name], kept[name + LENGTHS] = (
                np.concatenate(items),
                np.array([len(i) for i in items]),
            )
            continue
        usual = max(set(shapes), key=lambda shape: (shapes.count(shape), shape)) if shapes else ()
        for i, shape in enumerate(shapes):
            if shape != usual:
                bad.append(f'{path.name}:{name}[{i}]\tragged: its shape is {shape}, not {usual}')
        kept[name] = np.stack([i if i.shape == usual else np.zeros(usual, i.dtype) for i in items])
    if bad:
        kept = without(kept, bad, path.name)
        kept[BAD] = np.array(bad)
    for name, count in counts.items():
        for other in counts:
            if _split(name) == _split(other) and counts[other] != count:
                raise UserError(f'{name} has {count} rows, {other} has {counts[other]}.')
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **kept)  # type: ignore[arg-type]
    return path


def without(
    kept: Mapping[str, np.ndarray], bad: Sequence[str], source: str
) -> dict[str, np.ndarray]:
    """The arrays without the rows that are bad in one of the same split."""
    gone: dict[str, set[int]] = {}
    for line in bad:
        name, _, index = line.partition('\t')[0][len(source) + 1 :].partition('[')
        gone.setdefault(_split(name), set()).add(int(index.rstrip(']')))
    return {
        name: np.delete(values, sorted(gone.get(_split(name), ())), axis=0)
        for name, values in kept.items()
    }


def _split(name: str) -> str:
    """The split in the name of an array, '' without."""
    words = name.split('_')
    return next((SPLITS[word] for word in (words[-1], words[0]) if word in SPLITS), '')
