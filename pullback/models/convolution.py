"""A 3×3 convolution with stride 2 as a matrix product, and its derivatives as products, too.

Under ``vmap`` or ``lax.map`` over tasks each task has weights of its own. On a CPU XLA turns such
convolutions into grouped ones, ten times slower than the same arithmetic as patches × matrix.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

NARROW = 32
"""Below this many numbers a patch, XLA's product for a weight's gradient is slow one way round."""


def convolve(
    x: Float[Array, "batch h w c"], weight: Float[Array, "f 9*c"]
) -> Float[Array, "batch h2 w2 f"]:
    """The 3×3 convolution with stride 2, zero-padded as XLA's ``SAME``.

    Args:
        x: images.
        weight: one row a filter, in the order of :func:`extract_patches`.

    Returns:
        One image a filter.
    """
    windows = extract_patches(x)
    rows = windows.reshape(-1, windows.shape[-1])
    # With filters as rows, the gradients by the weight and by the patches both are products
    # without a transposed operand, half as fast again on a CPU. For a patch of few numbers it is
    # the other way round, and the barrier keeps XLA from swapping the operands back.
    narrow = weight.shape[1] < NARROW
    columns = jax.lax.optimization_barrier(weight.T) if narrow else weight.T
    return (rows @ columns).reshape(*windows.shape[:-1], -1)


def extract_patches(x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 9*c"]:
    """The 3×3 neighbourhoods at every second pixel, zero-padded, as rows of a matrix."""
    # Without the barrier XLA computes what made x again for each of the nine views.
    x = jax.lax.optimization_barrier(x)
    batch, height, width, channels = x.shape
    rows, columns = (height + 1) // 2, (width + 1) // 2
    # Padding as XLA's SAME: an even side needs one line at its end, an odd one a line at each.
    # One more line makes the number of lines even.
    before = (height % 2, width % 2)
    after = (2 * rows + 2 - height - before[0], 2 * columns + 2 - width - before[1])
    padded = jnp.pad(x, ((0, 0), (before[0], after[0]), (before[1], after[1]), (0, 0)))
    # Even and odd lines apart: each view is then a slice without a stride, and its transpose
    # touches a quarter of the pixels. Split, unlike indexing, has a cheap transpose.
    half = (batch, rows + 1, columns + 1, channels)
    paired = padded.reshape(batch, rows + 1, 2, columns + 1, 2 * channels)
    quarters = [
        [part.reshape(half) for part in jnp.split(line.reshape(*half[:3], -1), 2, axis=-1)]
        for line in jnp.split(paired, 2, axis=2)
    ]
    views = [
        quarters[i % 2][j % 2][:, i // 2 : i // 2 + rows, j // 2 : j // 2 + columns]
        for i in range(3)
        for j in range(3)
    ]
    return jnp.concatenate(views, axis=-1)
