"""Examples that a test has in common with what was learnt from."""

import dataclasses
import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tljax.data import Data, Split
from tljax.data.duplicates import Match, pictures, texts
from tljax.data.splits import random_keys
from tljax.data.text.form import text_of
from tljax.data.text.packing import Packed
from tljax.errors import UserError
from tljax.study.compatibility.about import About
from tljax.study.compatibility.finding import Finding

# A source that has seen more of the test examples than this is no longer judged by them.
TOO_MANY = 0.05
TEXTS = 2000  # of a split that are compared at most: about 1 ms each, more for long ones
SHOWN = 3  # pairs in a sentence
LISTED = 50  # pairs in a finding's examples
# How names of TFDS sets begin that were drawn from the pictures of a larger one.
DRAWN_FROM = {
    'stanford_dogs': 'imagenet',  # Khosla et al. 2011: pictures and boxes are ImageNet's
    'imagenette': 'imagenet',
    'imagewoof': 'imagenet',
    'imagewang': 'imagenet',
    'imagenet2012': 'imagenet',
    'imagenet_resized': 'imagenet',
    'downsampled_imagenet': 'imagenet',
}


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """Examples of a split that are compared.

    Attributes:
      name: of the split, in words.
      rows_N: their rows in the TFDS split string `spec`.
      labels_N: of each; zeros without labels.
      total: examples in the split.
      prints: of the pictures, or the texts themselves.
      what: they are: see `unit`.
      near: whether those that are only alike are looked for.
    """

    name: str
    spec: str
    rows_N: np.ndarray
    labels_N: np.ndarray
    total: int
    prints: Any
    what: str
    near: bool

    def place(self, position: int) -> str:
        """An example in words, such as `'test'[7]`."""
        return f'{self.spec!r}[{self.rows_N[position]}]'


def positions(count: int, most: int) -> np.ndarray:
    """`most` of `count` positions, ascending, drawn by a fixed seed; all if there are fewer."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.argsort(random_keys(count, 0, 'leakage'), kind='stable')[:most])


def unit(data: Data) -> str:
    """What is compared of a set: 'pictures', 'texts', or of texts without labels the 'documents'
    that sequences are packed from; '' for anything else."""
    if 'image' in data.example:
        return 'pictures'
    if 'tokens' not in data.example:
        return ''
    return 'texts' if 'label' in data.example else 'documents'


@functools.lru_cache(maxsize=8)  # a target's splits are compared with every source's
def sample(split: Split, form: Any, most: int, near: bool, what: str = 'pictures') -> Sample:
    """Reads examples of a split and takes their prints.

    Args:
      split: any.
      form: in which pictures are decoded: what is compared must have been cut alike.
      most: of more examples so many are drawn.
      near: whether those that are only alike are to be found too.
      what: of `unit`.

    Raises:
      UserError: `near`, and the library for it is not installed.
    """
    if what != 'pictures':
        return of_texts(split, min(most, TEXTS), near, what)
    chosen = positions(len(split), most)
    rows = split.rows[chosen]
    images: Iterable[np.ndarray]
    if split.records.form == form and split.in_memory:
        kept = split.arrays()['image']
        images = (kept[position] for position in chosen)
    else:
        scale = 'stretch' if form.scale == 'none' else form.scale
        form = dataclasses.replace(form, scale=scale)
        records = dataclasses.replace(split.records, form=form)
        images = (parts['image'] for parts in records.each(rows))  # all at once may be gigabytes
    prints = pictures.prints(images, near)
    labels, spec = split.labels()[chosen], split.records.spec
    return Sample(split.name, spec, rows, labels, len(split), prints, what, near)


def of_texts(split: Split, most: int, near: bool, what: str) -> Sample:
    """The same of texts as they are stored, whatever the tokenizer."""
    rows, records = split.rows, split.records
    labels = split.labels()
    if isinstance(records, Packed):
        rows = records.sources
        labels = np.zeros(len(rows), np.int32)
    chosen = positions(len(rows), most)
    names = [name for name in ('text', 'text_b') if name in records.builder.info.features]
    wanted, found = set(rows[chosen].tolist()), []
    for row, stored in enumerate(records.stored(*names)):
        if row in wanted:
            found.append('\n'.join(text_of(stored[name]) for name in names))
    spec = records.spec
    return Sample(
        split.name, spec, rows[chosen], labels[chosen], len(rows), tuple(found), what, near
    )


def near_is_possible(what: str = 'pictures') -> Finding | None:
    """None where near-duplicates can be looked for; else what to say instead."""
    try:
        if what == 'pictures':
            pictures.prints([np.arange(64, dtype=np.uint8).reshape(8, 8)])
        else:
            texts.matches(['a b c d'], ['a b c e'])
    except UserError as error:
        said = f'Only identical {what} were looked for. {error}'
        why = 'Copies that were compressed or scaled go unseen.'
        if what != 'pictures':
            why = 'Copies with other words here and there go unseen.'
        return Finding('note', 'leakage', said, why, '')
    return None


def matches(left: Sample, right: Sample) -> list[Match]:
    """What is on the right and on the left too."""
    if right.what == 'pictures':
        return pictures.matches(left.prints, right.prints)
    return texts.matches(left.prints, right.prints, left.near and right.near)


def shared(left: Sample, right: Sample, labels_agree: bool) -> tuple[list[Match], str]:
    """What is on the right and on the left too, and a sentence on it; '' where nothing is.

    Args:
      left: what is learnt from.
      right: what is tested on.
      labels_agree: whether labels of both mean the same.
    """
    found = matches(left, right)
    if not found:
        return [], ''
    share, same = len(found) / len(right.prints), sum(match.exact for match in found)
    part = f' of {right.total}' if len(right.prints) < right.total else ''
    said = (
        f'{len(found)} of {len(right.prints)}{part} {right.name} {right.what} ({share:.1%}) are in '
        f'{left.name} too, {same} identical and {len(found) - same} nearly'
    )
    if len(left.prints) < left.total:
        said += f', among {len(left.prints)} of its {left.total}'
    if labels_agree:
        other = sum(left.labels_N[m.left] != right.labels_N[m.right] for m in found)
        said += f', {other} with another label' if other else ''
    pairs = [f'{right.place(m.right)} is {left.place(m.left)}' for m in found[:SHOWN]]
    return found, f'{said}: {", ".join(pairs)}{", ..." if len(found) > SHOWN else ""}.'


def listed(left: Sample, right: Sample, found: Sequence[Match]) -> tuple[dict[str, Any], ...]:
    """For a finding's examples: JSON."""
    return tuple(
        {
            'left': left.name,
            'left_split': left.spec,
            'left_row': int(left.rows_N[match.left]),
            'right': right.name,
            'right_split': right.spec,
            'right_row': int(right.rows_N[match.right]),
            'similarity': match.similarity,
            'exact': match.exact,
        }
        for match in found[:LISTED]
    )


def between_splits(samples: Sequence[Sample]) -> list[Finding]:
    """What the target's own splits share.

    Args:
      samples: of its splits, in the order in which they are learnt from.
    """
    found = []
    for i, left in enumerate(samples):
        for right in samples[i + 1 :]:
            pairs, what = shared(left, right, labels_agree=True)
            if pairs:
                why = 'Whoever learns them by heart is right on them: results look too good.'
                do = 'Take them out of one side, or split by subject, patient, film or day.'
                examples = listed(left, right, pairs)
                found.append(Finding('warning', 'leakage', what, why, do, examples))
    return found


def with_source(about: About, source: Sample, targets: Sequence[Sample]) -> list[Finding]:
    """What the target's splits share with what the source was trained on.

    Args:
      about: the source.
      source: its training pictures.
      targets: the target's splits.
    """
    found = []
    named = dataclasses.replace(source, name=f'the training set of {about.name}')
    for target in targets:
        pairs, what = shared(named, target, labels_agree=False)
        if not pairs:
            continue
        learnt = target.name == 'train'
        many = len(pairs) / len(target.prints) > TOO_MANY
        level = 'note' if learnt else 'disqualified' if many else 'warning'
        why = f'It knows these {target.what} already: with few of them it looks better than it is.'
        if not learnt:
            why = 'It has seen what it is tested on.'
        do = f'Test on {target.what} that it has not seen, or leave it out of the comparison.'
        found.append(Finding(level, 'leakage', what, why, do, listed(named, target, pairs)))
    return found


def by_name(about: About, full_name: str) -> list[Finding]:
    """A source that, by what its card says, was trained on the target's very set.

    Args:
      about: the source.
      full_name: of the target's set, as TFDS has it: 'name/config:version'.
    """
    name = re.split(r'[/:]', full_name)[0].lower()
    origin = next((of for start, of in DRAWN_FROM.items() if name.startswith(start)), name)
    letters = re.sub(r'[^a-z0-9]', '', origin)
    # 'cifar10' is found in 'CIFAR-10, 50,000 pictures'; 'pets' would be found in any prose.
    pattern = r'(?<![a-z0-9])' + r'[^a-z0-9]?'.join(letters) + r'(?![a-z0-9])'
    if len(letters) < 5 or not re.search(pattern, about.training_data.lower()):
        return []
    what = f'{about.name} was trained on {about.training_data}; the data is {full_name}.'
    why = 'It has probably seen these examples, perhaps those of the test too.'
    do = 'Test on another set, or on examples newer than the source.'
    if about.own:
        why = 'It has seen these examples if it was trained on the same split and classes.'
        do = 'See that its data.train and .classes have none of the data.test of this config.'
    return [Finding('note' if about.own else 'warning', 'leakage', what, why, do)]
