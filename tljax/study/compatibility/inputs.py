"""What goes into the network: kind, size, channels, normalisation, and the pixels themselves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tljax.pretrained.shelf import UNKNOWN
from tljax.study.compatibility.about import MODALITIES, About
from tljax.study.compatibility.finding import Finding

PHOTOGRAPHS = 0.25  # by how much pixels of photographs (0 to 1) scatter about their mean, nearly
FAR = 1.5  # such deviations between two means
NEAR = 0.75
HALF = 2.0  # how many times larger or smaller pictures may be before it is worth a warning
OFF = 0.2  # of the range from black to white
SAMPLE = 512  # pictures that pixels are read of


def findings(
    about: About, config: Any, example: Mapping[str, Any], stored: Sequence[Any] = ()
) -> list[Finding]:
    """What speaks against a source before a single example is read.

    Args:
      about: the source.
      config: of the target, with what the source's card says applied.
      example: of the opened data: name -> an array, or its shape and dtype.
      stored: (height, width, ...) of the stored pictures, None where they differ; () if unknown.
    """
    kinds = [MODALITIES[name] for name in example if name in MODALITIES]
    if about.modality not in (UNKNOWN, *kinds):
        return [
            Finding(
                'disqualified',
                'input',
                f'{about.name} reads {about.modality}, the data is {" and ".join(kinds)}.',
                'Its first layers cannot read such examples.',
                f'Choose a source for {" or ".join(kinds)}.',
            )
        ]
    if 'image' not in example:
        return []
    shape = tuple(example['image'].shape)
    widened = any(how == 'channels' for _, how in config.transfer.resize)
    found = channel_findings(about, shape[2], widened) + size_findings(about, shape, stored)
    data = config.data
    as_large = about.input.get('image_size', shape[0]) == shape[0]
    for key in ('resize', 'interpolation') if as_large else ('interpolation',):
        if key in about.input and about.input[key] != data[key]:
            what = f'config.data.{key} is {data[key]!r}, {about.name} had {about.input[key]!r}.'
            why = 'Its features depend on that a little.'
            found.append(Finding('note', 'input', what, why, 'Leave the key at its default.'))
    return found + normalisation_findings(about, data, shape[2])


def channel_findings(about: About, channels: int, widened: bool) -> list[Finding]:
    """Another number of channels than the source has read."""
    wanted = about.input.get('channels')
    if not wanted or wanted == channels:
        return []
    what = f'{about.name} reads {wanted} channel(s), the pictures have {channels}.'
    if widened:
        return [Finding('note', 'input', what, 'config.transfer.resize makes its kernels fit.', '')]
    return [
        Finding(
            'disqualified',
            'input',
            what,
            'Its first convolution has kernels for so many and no others.',
            f"Set config.data.channels={wanted}, or config.transfer.resize with 'channels'.",
        )
    ]


def size_findings(
    about: About, shape: tuple[int, ...], stored: Sequence[Any] = ()
) -> list[Finding]:
    """Pictures of another size than the source has seen, or enlarged to it."""
    found = []
    wanted, side = about.input.get('image_size'), shape[0]
    if wanted and wanted != side:
        ratio = max(wanted, side) / min(wanted, side)
        level = 'warning' if ratio >= HALF else 'note'
        what = f'Pictures are {shape[0]}x{shape[1]}; {about.name} has seen {wanted}x{wanted}.'
        why = 'Things are larger or smaller in them than those that its features answer to.'
        do = f'Set config.data.image_size={wanted}, if there is time for it.'
        found.append(Finding(level, 'input', what, why, do))
    if len(stored) > 1 and all(stored[:2]) and side > stored[0]:
        times = side / stored[0]
        level = 'warning' if times >= 2 * HALF else 'note'
        what = f'Pictures are stored as {stored[0]}x{stored[1]} and enlarged {times:.3g} times.'
        why = f'They have none of the fine detail that {about.name} has learnt to see.'
        found.append(
            Finding(level, 'input', what, why, 'A source of small pictures may do better.')
        )
    return found


def normalisation_findings(about: About, data: Mapping[str, Any], channels: int) -> list[Finding]:
    """Other numbers than the source's, as what they do to a middle grey."""
    if not {'mean', 'std'} & set(about.input):
        what = f'How {about.name} had its pixels normalised is not known.'
        why = 'Other numbers than it is used to can cost it all that it knows.'
        do = 'Look it up, and set config.data.mean and .std, or give a card in config.source.card.'
        return [Finding('warning', 'values', what, why, do)] if about.input else []
    theirs = [spread(about.input.get(key, ()), key, channels) for key in ('mean', 'std')]
    ours = [spread(data[key], key, channels) for key in ('mean', 'std')]
    if any(len(x) != channels for x in (*theirs, *ours)):
        return []  # the channels differ, which is told
    black, white = ((value - theirs[0]) / theirs[1] for value in (0.0, 1.0))
    black_here, white_here = ((value - ours[0]) / ours[1] for value in (0.0, 1.0))
    # As a share of the range from black to white that the source was used to.
    off = max(np.abs(black - black_here).max(), np.abs(white - white_here).max())
    off = float(off / np.abs(white - black).max())
    if off < 0.005:
        return []
    return [
        Finding(
            'warning' if off > OFF else 'note',
            'values',
            f'config.data.mean and .std are {tuple(data["mean"])} and {tuple(data["std"])}: black '
            f'to white arrives as {black_here.mean():.3g} to {white_here.mean():.3g}, and '
            f'{about.name} was used to {black.mean():.3g} to {white.mean():.3g}.',
            'Its features are those of other pixels.',
            'Leave both keys at their defaults, so that they are what its card says.',
        )
    ]


def spread(values: Sequence[float], key: str, channels: int) -> np.ndarray:
    """(channels,) of `mean` or `std` as in `config.data`: none, one, or one a channel."""
    if not len(values):
        return np.full(channels, 0.0 if key == 'mean' else 1.0)
    array = np.asarray(values, np.float64)
    return np.repeat(array, channels) if len(array) == 1 else array


def pixel_findings(
    about: About, pictures: np.ndarray, source_pictures: np.ndarray | None = None
) -> list[Finding]:
    """Pictures that look unlike those that the source has seen.

    Args:
      about: the source.
      pictures: (N, height, width, channels) uint8 of the target's training examples.
      source_pictures: likewise, of the source's, where they are at hand; otherwise its card's mean
        stands for them, with the deviation of photographs.
    """
    found = []
    theirs_grey = source_pictures is not None and is_grey(source_pictures)
    if about.input.get('channels') == 3 and is_grey(pictures) and not theirs_grey:
        what = f'The pictures are grey, {about.name} has seen colours.'
        found.append(Finding('note', 'values', what, 'What it knows of colour is of no use.', ''))
    mean = float(pictures.mean()) / 255
    if source_pictures is not None:
        middle, deviation = float(source_pictures.mean()) / 255, float(source_pictures.std()) / 255
    elif len(about.input.get('mean', ())):
        middle, deviation = float(np.mean(about.input['mean'])), PHOTOGRAPHS
    else:
        return found
    distance = abs(mean - middle) / max(deviation, 1e-3)
    if distance > NEAR:
        word = 'darker' if mean < middle else 'lighter'
        what = (
            f'The pictures are {word} than those of {about.name}: {mean:.2f} of white on average, '
            f'those {middle:.2f}, which is {distance:.1f} deviations off.'
        )
        why = 'It may be that light and dark are the other way round, or values not scaled to 255.'
        level = 'warning' if distance > FAR else 'note'
        found.append(Finding(level, 'values', what, why, 'Look at a few of both.'))
    return found


def is_grey(pictures: np.ndarray) -> bool:
    """Whether all channels of (N, height, width, channels) are the same, up to compression."""
    spread = pictures.max(-1).astype(np.int16) - pictures.min(-1)
    return float(spread.mean()) < 1.0


def value_findings(pictures: np.ndarray) -> list[Finding]:
    """What is wrong with the target's pixels, whatever the source.

    Args:
      pictures: (N, height, width, channels), uint8 or floating point.
    """
    if not len(pictures):
        return []
    if pictures.dtype != np.uint8:
        return float_findings(pictures)
    found, top = [], int(pictures.max())
    if top < 64:
        what = f'Pixels run from {int(pictures.min())} to {top} of 255.'
        why = 'Nearly black pictures, to a source that has seen 0 to 255.'
        found.append(Finding('warning', 'values', what, why, 'Scale them to 0 to 255.'))
    flat = pictures.reshape(len(pictures), -1)
    blank = int((flat.max(1).astype(np.int16) - flat.min(1) < 2).sum())
    if blank:
        what = f'{blank} of {len(pictures)} training pictures are of one colour.'
        why = 'Nothing can be learnt from them but their label.'
        found.append(Finding('warning', 'values', what, why, 'Leave them out of the set.'))
    return found


def float_findings(values: np.ndarray) -> list[Finding]:
    """What is wrong with examples that are not bytes: numbers that are none, or their type."""
    found = []
    if not np.issubdtype(values.dtype, np.floating):
        what = f'Examples are stored as {values.dtype}.'
        why = 'Sources read bytes, or floating-point numbers.'
        return [Finding('warning', 'dtype', what, why, 'Convert them.')]
    bad = int((~np.isfinite(values)).reshape(len(values), -1).any(1).sum())
    if bad:
        what = f'{bad} of {len(values)} training examples hold nan or infinity.'
        why = 'A single one makes the loss, and then every parameter, nan.'
        found.append(
            Finding('disqualified', 'values', what, why, 'Repair them, or leave them out.')
        )
    if values.dtype == np.float64:
        what, why = 'Examples are float64.', 'They are read as float32, half the size on disk.'
        found.append(Finding('note', 'dtype', what, why, 'Store them as float32.'))
    return found


def dtype_findings(about: About, leaves: Mapping[str, Any]) -> list[Finding]:
    """A source whose numbers are coarse, or none that can be trained.

    Args:
      about: the source.
      leaves: path -> array, or its shape and dtype.
    """
    names = {str(np.dtype(leaf.dtype)) for leaf in leaves.values()}
    found = []
    if whole := sorted(name for name in names if name.startswith(('int', 'uint'))):
        what = f'{about.name} has leaves of {", ".join(whole)}.'
        why = 'Quantised weights cannot be trained as they are.'
        found.append(Finding('warning', 'dtype', what, why, 'Look for its float weights.'))
    if half := sorted(names & {'float16', 'bfloat16'}):
        what = f'{about.name} has leaves of {", ".join(half)}.'
        why = 'They have two to three digits; training goes on in float32 from there.'
        found.append(Finding('note', 'dtype', what, why, ''))
    return found
