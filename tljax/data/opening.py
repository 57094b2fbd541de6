"""Which form the examples of a set have: chosen by its features, checked against the config."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tljax.data import augmentation
from tljax.data.decode import Form as ImageForm
from tljax.data.forms import Form
from tljax.errors import UserError


def form_of(config: Any, builder: Any) -> Form:
    """How the examples of a set become arrays: that of images, or that of texts.

    Args:
      config: the section `config.data`.
      builder: of the set, prepared.

    Raises:
      UserError: features or values that no form fits.
    """
    info = builder.info
    check_features(info, config.name)
    if 'image' in info.features:
        form: Form = image_form(config, info)
        check_normalisation(config, form.parts['image'].shape[2])
    else:
        form = text_form(config, builder)
    augmentation.check(config.augment, form.parts)
    if config.buckets > 1 and form.buckets is None:
        raise UserError(
            f'config.data.buckets is {config.buckets}, and these examples cannot be cut to shorter '
            'lengths: only texts with labels can, of more than 8 tokens. Leave the key out.'
        )
    return form


def features_of(info: Any) -> Mapping[str, Any]:
    """Name -> feature; {} where they have no names."""
    return dict(info.features.items()) if hasattr(info.features, 'items') else {}


def check_features(info: Any, name: str) -> None:
    """Checks that a set has images with one label each, or texts with one or none.

    Raises:
      UserError: lists the features that it has.
    """
    import tensorflow_datasets as tfds

    has = features_of(info)
    image, text = tfds.features.Image, tfds.features.Text
    wanted: dict[str, Any] = (
        {'text': text} if 'text' in has and 'image' not in has else {'image': image}
    )
    if 'image' in wanted or 'label' in has:
        wanted['label'] = tfds.features.ClassLabel
    for key, kind in wanted.items():
        if not isinstance(has.get(key), kind):
            kinds = ', '.join(f'{k} ({type(v).__name__})' for k, v in has.items()) or 'none by name'
            raise UserError(
                f'config.data.name={name!r}: {next(iter(wanted))} classification needs a feature '
                f'{key!r} of the kind {kind.__name__}; the set has {kinds}.'
            )
    if 'image' in wanted and has['image'].np_dtype != np.uint8:
        raise UserError(
            f'config.data.name={name!r}: its images are {has["image"].np_dtype}; '
            'only uint8 is supported.'
        )


def text_form(config: Any, builder: Any) -> Form:
    """How the texts of a set become tokens.

    Raises:
      UserError: there is no such tokenizer, or a pair has too little room.
    """
    from tljax.data.text.choosing import LENGTH, tokenizer_of
    from tljax.data.text.form import TextForm
    from tljax.data.text.packing import PackedForm

    length, tokenizer = config.length or LENGTH, tokenizer_of(config, builder)
    columns = ('text', 'text_b') if 'text_b' in builder.info.features else ('text',)
    labelled = 'label' in builder.info.features
    special = tokenizer.made().num_special_tokens_to_add(len(columns) > 1) if labelled else 1
    if length < special + len(columns):
        raise UserError(
            f'config.data.length is {length}: {special} of these tokens are special, and a text '
            f'needs one at least, so {special + len(columns)} is the least.'
        )
    if not labelled:
        return PackedForm(tokenizer, length)
    return TextForm(tokenizer, length, columns, config.buckets)


def image_form(config: Any, info: Any) -> ImageForm:
    """How the images of a set are decoded.

    Raises:
      UserError: images of several sizes without `image_size`, or an impossible size or channels.
    """
    height, width, stored = info.features['image'].shape
    if config.image_size < 0:
        raise UserError(f'config.data.image_size is {config.image_size}; it must be 0 or more.')
    if config.image_size:
        height = width = config.image_size
    elif height is None or width is None:
        raise UserError(
            f'config.data.image_size: the images of {config.name} differ in size. Set it to the '
            'pixels a side that all of them are to be scaled to, such as 224.'
        )
    if (config.resize > 0 and config.resize < config.image_size) or config.resize < -1:
        raise UserError(
            f'config.data.resize is {config.resize}: the shorter side, of which the middle '
            f'image_size ({config.image_size}) pixels are taken, can be no smaller. -1 stretches.'
        )
    channels = config.channels or stored or 3
    if channels not in (1, 3) and not channels == stored == 4:
        raise UserError(
            f'config.data.channels is {config.channels} and the set stores '
            f'{stored or "any number"}; 1 (grey), 3 (colour) or, where stored, 4 are possible.'
        )
    scale = 'crop' if config.resize > 0 and config.image_size else 'stretch'
    return ImageForm(
        (height, width, channels),
        scale if config.image_size else 'none',
        config.resize if scale == 'crop' else 0,
        config.interpolation,
    )


def check_normalisation(config: Any, channels: int) -> None:
    """Checks `mean` and `std`.

    Raises:
      UserError: not one number, nor one a channel, or not finite; or a std that is not positive.
    """
    for key in ('mean', 'std'):
        values = config[key]
        if len(values) not in (0, 1, channels):
            raise UserError(
                f'config.data.{key} has {len(values)} numbers, but the images have {channels} '
                'channel(s): give one number, or one a channel.'
            )
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            raise UserError(f'config.data.{key} is {tuple(values)}; it takes finite numbers.')
        if key == 'std' and not all(value > 0 for value in values):
            raise UserError(f'config.data.std is {tuple(values)}; it must be above 0.')
