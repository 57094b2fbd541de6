"""What models of sound are made of: convolutions over time, and how many frames they make."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tljax.models.layers import uniform_init
from tljax.models.text import check_at_least_one
from tljax.models.transformer import activation_of, layer_norm

# Of the norms between convolutions, which take no part in `epsilon`, in the original either.
CONV_EPSILON = 1e-5


def frames(samples: Any, kernels: Sequence[int], strides: Sequence[int]) -> Any:
    """How many frames convolutions without padding make of a wave; an int or an array of them.

    >>> frames(16000, (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
    49
    """
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def group_norm(width: int, epsilon: float, dtype: Any, rngs: nnx.Rngs) -> Any:
    """Normalises each channel on its own, over all of an example's time."""
    return nnx.GroupNorm(
        width,
        num_groups=width,
        epsilon=epsilon,
        use_fast_variance=False,
        dtype=dtype,
        rngs=rngs,
    )


class ConvLayer(nnx.Module):
    """One convolution over time, normalised or not, and an activation.

    Args:
      norm: 'group' normalises each channel over the whole time, padding and all; 'layer' each time
        over the channels; 'none'.
    """

    def __init__(self, inputs, width, kernel, stride, *, bias, norm, activation, dtype, rngs):
        self.conv = nnx.Conv(
            inputs,
            width,
            (kernel,),
            stride,
            padding='VALID',
            use_bias=bias,
            dtype=dtype,
            kernel_init=nnx.initializers.variance_scaling(2.0, 'fan_in', 'normal'),
            bias_init=uniform_init(inputs * kernel),
            rngs=rngs,
        )
        self.is_normed = norm != 'none'
        if self.is_normed:
            self.norm = (group_norm if norm == 'group' else layer_norm)(
                width, CONV_EPSILON, dtype, rngs
            )
        self.activation = activation_of(activation)

    def __call__(self, x_BxTxI: jax.Array) -> jax.Array:
        x_BxTxO = self.conv(x_BxTxI)
        return self.activation(self.norm(x_BxTxO) if self.is_normed else x_BxTxO)


class Extractor(nnx.Module):
    """From a wave to frames: (B, T) to (B, F, the last width)."""

    def __init__(self, widths, kernels, strides, *, norm, bias, activation, dtype, rngs):
        self.layers = len(widths)
        sizes = zip(itertools.pairwise((1, *widths)), kernels, strides, strict=True)
        for n, ((inputs, width), kernel, stride) in enumerate(sizes):
            made = ConvLayer(
                inputs,
                width,
                kernel,
                stride,
                bias=bias,
                norm='none' if norm == 'group' and n > 0 else norm,
                activation=activation,
                dtype=dtype,
                rngs=rngs,
            )
            setattr(self, f'layer{n}', made)

    def __call__(self, audio_BxT: jax.Array) -> jax.Array:
        x_BxTxC = audio_BxT[:, :, None]
        for n in range(self.layers):
            x_BxTxC = getattr(self, f'layer{n}')(x_BxTxC)
        return x_BxTxC


def norms_of_taps(kernel_KxIxO: jax.Array) -> jax.Array:
    """The length of a convolution's kernel at each of its times, over all channels: (K, 1, 1)."""
    return jnp.sqrt(jnp.square(kernel_KxIxO).sum((1, 2), keepdims=True))


class Position(nnx.Module):
    """What is added to tell where a frame is: a grouped convolution over its neighbours.

    Its kernel is magnitude x direction / |direction| (Salimans and Kingma 2016, section 2.1), with
    one magnitude and one length for each of its times, not, as in that paper, for each output.
    Both stay parameters, so that training moves them as it moves the original's.

    Args:
      kernel: number of frames it sees. If that is even, one more of them lies before the frame
        than behind it.
      groups: of channels that don't see each other; divides the width.
    """

    def __init__(self, width, kernel, groups, activation, dtype, rngs):
        init = nnx.initializers.normal(2 / (kernel * width) ** 0.5)
        direction_KxIxO = init(rngs.params(), (kernel, width // groups, width), jnp.float32)
        self.direction = nnx.Param(direction_KxIxO)
        self.magnitude = nnx.Param(norms_of_taps(direction_KxIxO))
        self.bias = nnx.Param(jnp.zeros(width))
        self.groups, self.dtype = groups, dtype
        self.activation = activation_of(activation)

    def kernel(self) -> jax.Array:
        """(K, width / groups, width), in float32."""
        direction = self.direction[...]
        return self.magnitude[...] * direction / norms_of_taps(direction)

    def __call__(self, x_BxFxD: jax.Array) -> jax.Array:
        size, _, width = self.direction.shape
        moved = jax.lax.conv_general_dilated(
            x_BxFxD.astype(self.dtype),
            self.kernel().astype(self.dtype),
            (1,),
            [(size // 2, (size - 1) // 2)],
            dimension_numbers=('NWC', 'WIO', 'NWC'),
            feature_group_count=self.groups,
        )
        return self.activation(moved + self.bias[...].astype(self.dtype).reshape(1, 1, width))


def check_convs(widths: Sequence[int], kernels: Sequence[int], strides: Sequence[int]) -> None:
    """Raises a ValueError if there are not as many of each, or a size is less than one."""
    counts = {len(widths), len(kernels), len(strides)}
    if len(counts) > 1 or counts == {0}:
        raise ValueError(
            f'there are {len(widths)} conv_widths, {len(kernels)} conv_kernels and '
            f'{len(strides)} conv_strides; each convolution needs one of each'
        )
    sizes = {'conv_widths': widths, 'conv_kernels': kernels, 'conv_strides': strides}
    check_at_least_one(**{name: min(values) for name, values in sizes.items()})


def check_audio(example: Mapping[str, Any], kernels: Sequence[int], strides: Sequence[int]) -> None:
    """Raises a ValueError if an example has no sound, or not enough of it for one frame."""
    if 'audio' not in example or len(example['audio'].shape) != 1:
        raise ValueError(f"it needs 'audio', of shape (samples,), not {example}")
    (samples,) = example['audio'].shape
    seen = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        seen = (seen - 1) * stride + kernel
    if samples < seen:
        raise ValueError(
            f'an example has {samples} samples, and the first frame alone sees {seen}; give '
            'longer recordings, or pad them'
        )
