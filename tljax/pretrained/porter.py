"""Foreign names to ours and back: a porter is a table, and this is what reads such tables."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from tljax.errors import UserError
from tljax.pretrained.transforms import TRANSFORMS

Shape = tuple[int, ...]
NUMBER = re.compile(r'\{(\w+?)([+-]\d+)?(?::0(\d))?\}')


@dataclasses.dataclass(frozen=True)
class Template:
    r"""A name with numbers in it, such as 'layer{s}.{b}.conv1.weight'; `{s+1}` is one more,
    and `{s:02}` has at least two digits.

    >>> Template('stages.{s}.weight').match('stages.2.weight')
    {'s': 2}
    >>> Template('backbone/stage{s+1}/kernel').fill({'s': 2})
    'backbone/stage3/kernel'
    >>> Template('block{s+1}/unit{b+1:02}').fill({'s': 0, 'b': 4})
    'block1/unit05'
    """

    text: str

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        pattern, end = '', 0
        seen: set[str] = set()
        for found in NUMBER.finditer(self.text):
            name = found[1]
            pattern += re.escape(self.text[end : found.start()])
            pattern += f'(?P={name})' if name in seen else rf'(?P<{name}>\d+)'
            seen.add(name)
            end = found.end()
        return re.compile(pattern + re.escape(self.text[end:]))

    def match(self, name: str) -> dict[str, int] | None:
        """The numbers in `name`, or None if it is no such name."""
        found = self._regex.fullmatch(name)
        if not found:
            return None
        offsets = {part[1]: int(part[2] or 0) for part in NUMBER.finditer(self.text)}
        return {key: int(value) - offsets[key] for key, value in found.groupdict().items()}

    def fill(self, numbers: Mapping[str, int]) -> str:
        """The name with these numbers."""
        return NUMBER.sub(
            lambda m: str(numbers[m[1]] + int(m[2] or 0)).zfill(int(m[3] or 0)), self.text
        )


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a porter's table.

    Attributes:
      theirs: template of their name.
      ours: template of our path, or several where one tensor of theirs is several leaves.
      transform: a name of `tljax.pretrained.transforms.TRANSFORMS`.
    """

    theirs: str
    ours: str | tuple[str, ...]
    transform: str = 'same'

    @cached_property
    def their_template(self) -> Template:
        return Template(self.theirs)

    @cached_property
    def our_templates(self) -> tuple[Template, ...]:
        paths = (self.ours,) if isinstance(self.ours, str) else self.ours
        return tuple(Template(path) for path in paths)


def batch_norm_rows(theirs: str, ours: str) -> tuple[Row, ...]:
    """PyTorch's names of a batch normalisation's four leaves.

    >>> batch_norm_rows('bn1', 'backbone/norm')[2]
    Row(theirs='bn1.running_mean', ours='backbone/norm/mean', transform='same')
    """
    names = {'weight': 'scale', 'bias': 'bias', 'running_mean': 'mean', 'running_var': 'var'}
    return tuple(Row(f'{theirs}.{a}', f'{ours}/{b}') for a, b in names.items())


def norm_rows(theirs: str, ours: str) -> tuple[Row, ...]:
    """PyTorch's names of a layer or group normalisation's leaves."""
    return (Row(f'{theirs}.weight', f'{ours}/scale'), Row(f'{theirs}.bias', f'{ours}/bias'))


def linear_rows(theirs: str, ours: str) -> tuple[Row, ...]:
    """PyTorch's names of a linear layer's leaves."""
    return (
        Row(f'{theirs}.weight', f'{ours}/kernel', 'linear'),
        Row(f'{theirs}.bias', f'{ours}/bias'),
    )


BATCHES = (r'.*\.num_batches_tracked', 'counts batches; nothing reads it where momentum is fixed')


@dataclasses.dataclass(frozen=True)
class Scheme:
    """One way that files name an architecture's tensors.

    Attributes:
      name: such as 'torchvision'.
      model: of `tljax.models`.
      rows: the table; the first that matches a name wins.
      skipped: (expression, reason): tensors that are not read.
      prefixes: may stand before any name, such as 'module.'.
      backbone_prefix: stands before the names of the backbone where the file has a head too, as in
        'bert.encoder...' beside 'classifier.weight'.
      fixed: arguments of the model that files of this scheme imply.
      tell: the file's shapes -> arguments that they tell, and those of our leaves don't.
    """

    name: str
    model: str
    rows: tuple[Row, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    prefixes: tuple[str, ...] = ('module.',)
    backbone_prefix: str = ''
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tell: Callable[[Mapping[str, Shape]], dict[str, Any]] = lambda shapes: {}

    def stripped(self, name: str) -> Iterator[str]:
        """The name, then without one prefix, two, ..."""
        yield name
        for prefix in (*self.prefixes, self.backbone_prefix):
            if prefix and name.startswith(prefix):
                yield from self.stripped(name.removeprefix(prefix))

    def find(self, name: str) -> tuple[Row, dict[str, int]] | None:
        """The row for one of their names, and the numbers in it."""
        for bare in self.stripped(name):
            for row in self.rows:
                numbers = row.their_template.match(bare)
                if numbers is not None:
                    return row, numbers
        return None

    def reason_to_skip(self, name: str) -> str | None:
        for bare in self.stripped(name):
            for pattern, reason in self.skipped:
                if re.fullmatch(pattern, bare):
                    return reason
        return None


@dataclasses.dataclass(frozen=True)
class Part:
    """Where one of our leaves comes from: part `index` of a transformed tensor of theirs."""

    name: str
    row: Row
    index: int


@dataclasses.dataclass(frozen=True)
class Match:
    """A file's names read by a scheme.

    Attributes:
      leaves: our path -> where it comes from.
      skipped: their name -> why it is not read.
      unread: names that no row and no skip rule knows.
      faults: what else is wrong: two tensors for one leaf, or a tensor of the wrong rank.
    """

    scheme: Scheme
    leaves: dict[str, Part]
    skipped: dict[str, str]
    unread: list[str]
    faults: list[str]

    def shapes(self, theirs: Mapping[str, Shape]) -> dict[str, Shape]:
        """Shapes of our leaves, from those of the file's tensors."""
        return {path: tuple(leaf.shape) for path, leaf in self.read(stand_ins(theirs)).items()}

    def read(self, tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Our leaves as views of their tensors, if those are arrays."""
        return {path: part_of(part, tensors[part.name]) for path, part in self.leaves.items()}


def part_of(part: Part, array: np.ndarray) -> np.ndarray:
    """One leaf of ours out of a tensor of theirs; a view."""
    return TRANSFORMS[part.row.transform].to_ours(array)[part.index]


def stand_ins(shapes: Mapping[str, Shape]) -> dict[str, np.ndarray]:
    """Arrays of these shapes that take no memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


def match(scheme: Scheme, shapes: Mapping[str, Shape]) -> Match:
    """Reads a file's names by a scheme's table; decides nothing about completeness.

    >>> rows = (*batch_norm_rows('bn{n}', 'backbone/norm{n}'), *linear_rows('fc', 'head'))
    >>> shapes = {'module.bn1.weight': (8,), 'fc.weight': (10, 8), 'ema': ()}
    >>> found = match(Scheme('torchvision', 'resnet', rows), shapes)
    >>> found.shapes(shapes), found.unread
    ({'backbone/norm1/scale': (8,), 'head/kernel': (8, 10)}, ['ema'])
    """
    found = Match(scheme, {}, {}, [], [])
    for name, shape in shapes.items():
        hit = scheme.find(name)
        if hit is None:
            reason = scheme.reason_to_skip(name)
            if reason is None:
                found.unread.append(name)
            else:
                found.skipped[name] = reason
            continue
        row, numbers = hit
        transform = TRANSFORMS[row.transform]
        try:
            if transform.rank not in (None, len(shape)):
                raise ValueError(f'its shape is {shape}, of rank {transform.rank} was expected')
            transform.to_ours(np.broadcast_to(np.float32(0), shape))
        except ValueError as error:
            found.faults.append(f'{name}: {error}')
            continue
        for index, template in enumerate(row.our_templates):
            path = template.fill(numbers)
            if path in found.leaves:
                found.faults.append(f'{name} and {found.leaves[path].name} are both {path}')
            found.leaves[path] = Part(name, row, index)
    return found


def unport(
    leaves: Mapping[str, np.ndarray], scheme: Scheme, arguments: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Our leaves under a scheme's names and in its layouts: the inverse of `match` and `read`.

    Args:
      leaves: path -> array, parameters and batch statistics together.
      scheme: to write in.
      arguments: of the model; some layouts need its number of heads.

    Raises:
      UserError: a leaf that the scheme has no name for.
    """
    headed = any(not path.startswith('backbone/') for path in leaves)
    prefix = scheme.backbone_prefix if headed else ''
    made: dict[str, np.ndarray] = {}
    done: set[str] = set()
    for path in leaves:
        if path in done:
            continue
        for row, numbers, index in rows_for(scheme, path):
            paths = [template.fill(numbers) for template in row.our_templates]
            if index == 0 and all(p in leaves for p in paths):
                name = row.their_template.fill(numbers)
                parts = [np.asarray(leaves[p]) for p in paths]
                inside = path.startswith('backbone/')
                made[prefix + name if inside else name] = TRANSFORMS[row.transform].to_theirs(
                    parts, arguments
                )
                done.update(paths)
                break
    homeless = [path for path in leaves if path not in done]
    if homeless:
        raise UserError(
            f'the scheme {scheme.name} has no name for {len(homeless)} leaves, such as '
            f'{", ".join(homeless[:3])}. Export in our own names: leave --scheme out.'
        )
    return made


def rows_for(scheme: Scheme, path: str) -> Iterator[tuple[Row, dict[str, int], int]]:
    """The rows that could write a leaf, with the numbers in its path and its part."""
    for row in scheme.rows:
        for index, template in enumerate(row.our_templates):
            numbers = template.match(path)
            if numbers is not None:
                yield row, numbers, index
