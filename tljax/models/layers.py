"""Layers that several architectures share."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

SMALL_MAP = 64  # pixels of an output up to which a CPU is faster with one matrix product


def shifted_slices(
    x_BxHxWxC: jax.Array, sizes: Sequence[int], strides: Sequence[int], padding: Any
) -> list[jax.Array]:
    """What each place of a kernel sees, row by row.

    Args:
      sizes: rows and columns of the kernel.
      padding: 'SAME', 'VALID', or a pair of numbers for rows and columns each.
    """
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x_BxHxWxC.shape[1:3], sizes, strides, padding)
    x = jnp.pad(x_BxHxWxC, ((0, 0), *padding, (0, 0)))
    spans = [
        (length - size) // stride * stride + 1
        for length, size, stride in zip(x.shape[1:3], sizes, strides, strict=True)
    ]
    return [
        x[:, i : i + spans[0] : strides[0], j : j + spans[1] : strides[1]]
        for i in range(sizes[0])
        for j in range(sizes[1])
    ]


def shifted_slices_conv(
    x_BxHxWxI: jax.Array,
    kernel_hxwxIxO: jax.Array,
    window_strides: tuple[int, int],
    padding: Any,
    **rest: Any,
) -> jax.Array:
    """A convolution, without groups or dilation, as shifted slices and one matrix product.

    The drop-in for `nnx.Conv(conv_general_dilated=...)` where kernels are mapped over: vmap turns
    it into a batched matrix product, while a mapped `lax.conv_general_dilated` becomes a grouped
    convolution, several times slower.

    >>> import jax, jax.numpy as jnp
    >>> x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 5))
    >>> shifted_slices_conv(x, kernel, (1, 1), 'SAME')[0, 1, 1, 0].item()
    18.0
    """
    *sizes, _, outputs = kernel_hxwxIxO.shape
    slices = shifted_slices(x_BxHxWxI, sizes, window_strides, padding)
    return jnp.concatenate(slices, -1) @ kernel_hxwxIxO.reshape(-1, outputs)


def windowed_conv(
    x_BxHxWxI: jax.Array,
    kernel_hxwxIxO: jax.Array,
    window_strides: tuple[int, int],
    padding: Any,
    **rest: Any,
) -> jax.Array:
    """A convolution; on a CPU, where it gives a small map, as shifted slices.

    XLA's own takes some 60 times as long there when the map is smaller than the kernel.

    >>> windowed_conv(jnp.ones((1, 2, 2, 3)), jnp.ones((3, 3, 3, 1)), (1, 1), 'SAME')[0, 0, 0]
    Array([12.], dtype=float32)
    """
    rows, columns = x_BxHxWxI.shape[1:3]
    outputs = -(-rows // window_strides[0]) * -(-columns // window_strides[1])
    if jax.default_backend() == 'cpu' and outputs <= SMALL_MAP:
        return shifted_slices_conv(x_BxHxWxI, kernel_hxwxIxO, window_strides, padding)
    return jax.lax.conv_general_dilated(x_BxHxWxI, kernel_hxwxIxO, window_strides, padding, **rest)


def conv3x3(inputs: int, outputs: int, *, rngs: nnx.Rngs) -> nnx.Conv:
    """A 3x3 convolution that stays fast when kernels are mapped over (see above)."""
    return nnx.Conv(
        inputs,
        outputs,
        (3, 3),
        kernel_init=nnx.initializers.he_normal(),
        conv_general_dilated=shifted_slices_conv,
        rngs=rngs,
    )


def dtype_of(name: str) -> Any:
    """The dtype that a model computes in; its parameters stay float32.

    Raises:
      ValueError: neither 'float32' nor 'bfloat16'.

    >>> dtype_of('bfloat16').__name__
    'bfloat16'
    """
    if name not in ('float32', 'bfloat16'):
        raise ValueError(f"dtype is {name!r}; it takes 'float32' or 'bfloat16'")
    return getattr(jnp, name)


def pointwise_conv(
    x_BxHxWxI: jax.Array,
    kernel_1x1xIxO: jax.Array,
    window_strides: tuple[int, int],
    padding: Any,
    **rest: Any,
) -> jax.Array:
    """A 1x1 convolution, on a CPU as a matrix product over channels, where that is faster.

    The drop-in for `nnx.Conv(conv_general_dilated=...)`; without padding or groups.

    >>> x, kernel = jnp.ones((1, 4, 4, 3)), jnp.ones((1, 1, 3, 5))
    >>> pointwise_conv(x, kernel, (2, 2), ((0, 0), (0, 0))).shape
    (1, 2, 2, 5)
    """
    if jax.default_backend() != 'cpu':
        return jax.lax.conv_general_dilated(
            x_BxHxWxI, kernel_1x1xIxO, window_strides, padding, **rest
        )
    rows, columns = window_strides
    return x_BxHxWxI[:, ::rows, ::columns] @ kernel_1x1xIxO[0, 0]


def conv(
    inputs: int,
    outputs: int,
    size: int,
    *,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    bias: bool = False,
    dtype: Any = jnp.float32,
    kernel_init: Any = None,
    bias_init: Any = nnx.initializers.zeros,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A square convolution that pads both sides alike, as PyTorch's do.

    XLA's 'SAME' pads a strided convolution more at the end than at the start, so that the same
    kernel sees other pixels.

    Args:
      padding: on each side; None is size // 2.
      groups: of channels that don't see each other; `inputs` of them is depthwise.
      kernel_init: None is a normal of variance 2 / fan-out (He et al. 2015, section 2.2).
    """
    margin = size // 2 if padding is None else padding
    function: Any = jax.lax.conv_general_dilated
    if groups == 1:
        function = pointwise_conv if size == 1 and margin == 0 else windowed_conv
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        stride,
        padding=[(margin, margin), (margin, margin)],
        feature_group_count=groups,
        use_bias=bias,
        dtype=dtype,
        kernel_init=kernel_init or nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal'),
        bias_init=bias_init,
        conv_general_dilated=function,
        rngs=rngs,
    )


def batch_norm(
    features: int,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    dtype: Any = jnp.float32,
    scale_init: Any = nnx.initializers.ones,
    rngs: nnx.Rngs,
) -> nnx.BatchNorm:
    """Batch normalisation with PyTorch's constants: its momentum 0.1 is 0.9 here.

    Running variances are of the biased kind here; PyTorch's are n / (n - 1) times those, for n
    values a channel in a batch. Statistics stay float32 whatever `dtype` is.
    """
    return nnx.BatchNorm(
        features,
        momentum=momentum,
        epsilon=epsilon,
        dtype=dtype,
        scale_init=scale_init,
        promote_dtype=as_they_are,
        rngs=rngs,
    )


def as_they_are(arrays: Any, /, **unused: Any) -> Any:
    """Leaves dtypes alone: flax would round running means and variances to bfloat16."""
    return arrays


def uniform_init(inputs: int) -> Any:
    """PyTorch's default for kernels and biases of linear layers and convolutions alike: uniform
    within 1 / sqrt(inputs) of zero, where `inputs` counts what one output sees.
    """
    bound = inputs**-0.5

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, **unused: Any) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def linear(
    inputs: int,
    outputs: int,
    *,
    dtype: Any = jnp.float32,
    kernel_init: Any = None,
    rngs: nnx.Rngs,
) -> nnx.Linear:
    """A linear layer that starts as PyTorch's do: both leaves by `uniform_init`."""
    init = uniform_init(inputs)
    return nnx.Linear(
        inputs, outputs, dtype=dtype, kernel_init=kernel_init or init, bias_init=init, rngs=rngs
    )


def max_pool(
    x_BxHxWxC: jax.Array, size: int, stride: int, padding: int = 0, ceil: bool = False
) -> jax.Array:
    """Maxima over square windows, padded alike on both sides.

    Args:
      ceil: whether a window that reaches over the far edge counts too.

    >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    >>> max_pool(x, 3, 2).shape, max_pool(x, 3, 2, ceil=True).shape
    ((1, 1, 1, 1), (1, 2, 2, 1))
    """
    margins = []
    for length in x_BxHxWxC.shape[1:3]:
        over = (length + 2 * padding - size) % stride if ceil else 0
        margins.append((padding, padding + (stride - over if over else 0)))
    return nnx.max_pool(x_BxHxWxC, (size, size), (stride, stride), margins)


def adaptive_mean(x_BxHxWxC: jax.Array, size: int) -> jax.Array:
    """Means over size x size windows that cover any picture: window i of n pixels is
    floor(i n / size) to ceil((i + 1) n / size), as in PyTorch's AdaptiveAvgPool2d.

    >>> adaptive_mean(jnp.arange(3.0).reshape(1, 1, 3, 1).repeat(3, 1), 2)[0, 0, :, 0].tolist()
    [0.5, 1.5]
    """
    x = x_BxHxWxC
    for axis in (1, 2):
        length = x.shape[axis]
        edges = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
        parts = [jax.lax.slice_in_dim(x, a, b, axis=axis) for a, b in edges]
        x = jnp.concatenate([part.mean(axis, keepdims=True) for part in parts], axis)
    return x


def image_shape(example: Mapping[str, Any]) -> tuple[int, int, int]:
    """Height, width and channels of the pictures that a model is for.

    Raises:
      ValueError: the example has no picture.

    >>> image_shape({'image': jax.ShapeDtypeStruct((32, 48, 3), 'uint8')})
    (32, 48, 3)
    """
    if 'image' not in example or len(example['image'].shape) != 3:
        raise ValueError(f"it needs 'image', of shape (height, width, channels), not {example}")
    height, width, channels = example['image'].shape
    return height, width, channels
