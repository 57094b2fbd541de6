"""Layers that several architectures share."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


def shifted_slices_conv(
    x_BxHxWxI: jax.Array,
    kernel_hxwxIxO: jax.Array,
    window_strides: tuple[int, int],
    padding: Any,
    **unused: Any,
) -> jax.Array:
    """A stride-1 convolution as shifted slices and one matrix product.

    The drop-in for `nnx.Conv(conv_general_dilated=...)` where kernels are mapped over: vmap turns
    it into a batched matrix product, while a mapped `lax.conv_general_dilated` becomes a grouped
    convolution, several times slower. SAME padding and odd kernels only.

    >>> import jax, jax.numpy as jnp
    >>> x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 5))
    >>> shifted_slices_conv(x, kernel, (1, 1), 'SAME')[0, 1, 1, 0].item()
    18.0
    """
    height, width, _, outputs = kernel_hxwxIxO.shape
    if tuple(window_strides) != (1, 1) or padding != 'SAME' or not (height % 2 and width % 2):
        raise ValueError('shifted_slices_conv takes stride 1, SAME padding and odd kernels')
    _, rows, columns, _ = x_BxHxWxI.shape
    margin = ((0, 0), (height // 2, height // 2), (width // 2, width // 2), (0, 0))
    padded = jnp.pad(x_BxHxWxI, margin)
    slices = [padded[:, i : i + rows, j : j + columns] for i in range(height) for j in range(width)]
    return jnp.concatenate(slices, -1) @ kernel_hxwxIxO.reshape(-1, outputs)


def conv3x3(inputs: int, outputs: int, *, bias: bool = True, rngs: nnx.Rngs) -> nnx.Conv:
    """A 3x3 convolution that stays fast when kernels are mapped over (see above)."""
    return nnx.Conv(
        inputs,
        outputs,
        (3, 3),
        use_bias=bias,
        kernel_init=nnx.initializers.he_normal(),
        conv_general_dilated=shifted_slices_conv,
        rngs=rngs,
    )
