"""Linear probes without a schedule: ridge in closed form, logistic regression by L-BFGS.

Pure functions of features, for many strengths of regularisation at once; `jax.vmap` maps them over
seeds too, and `jax.jit` makes one program of all.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class Linear(NamedTuple):
    """One linear classifier for each strength.

    Attributes:
      kernel: (S, D, C).
      bias: (S, C).
    """

    kernel: jax.Array
    bias: jax.Array

    def logits(self, features_NxD: jax.Array) -> jax.Array:
        """(S, N, C)."""
        return jnp.einsum('nd,sdc->snc', features_NxD, self.kernel) + self.bias[:, None]


def ridge(features_NxD: jax.Array, targets_NxC: jax.Array, strengths_S: jax.Array) -> Linear:
    """Ridge regression (Hoerl and Kennard 1970, equation 2.1), the bias not penalised.

    Minimises |targets - features W - b|^2 / N + strength |W|^2, by one eigendecomposition for all
    strengths: of features' Gram matrix, D x D or N x N, whichever is smaller.

    Args:
      features_NxD: of the training examples.
      targets_NxC: regression targets; for classes, `jax.nn.one_hot` of the labels.
      strengths_S: positive.

    >>> x, y = jnp.array([[0.0], [2.0]]), jnp.array([[0.0], [1.0]])
    >>> [round(float(k), 3) for k in ridge(x, y, jnp.array([1e-6, 1.0])).kernel.ravel()]
    [0.5, 0.25]
    """
    count, width = features_NxD.shape
    mean_1xD = features_NxD.mean(0, keepdims=True)
    target_1xC = targets_NxC.mean(0, keepdims=True)
    x, y = features_NxD - mean_1xD, targets_NxC - target_1xC
    wide = width > count
    values, vectors = jnp.linalg.eigh(x @ x.T if wide else x.T @ x)
    right = vectors.T @ (y if wide else x.T @ y)

    def solve(strength: jax.Array) -> jax.Array:
        # Eigenvalues that should be zero come out a little below.
        solved = vectors @ (right / (jnp.maximum(values, 0.0) + count * strength)[:, None])
        return x.T @ solved if wide else solved

    kernel = jax.vmap(solve)(strengths_S)
    return Linear(kernel, target_1xC - jnp.einsum('d,sdc->sc', mean_1xD[0], kernel))


def logistic(
    features_NxD: jax.Array,
    labels_N: jax.Array,
    classes: int,
    strengths_S: jax.Array,
    *,
    steps: int = 200,
    tolerance: float = 1e-5,
) -> Linear:
    """Multinomial logistic regression by L-BFGS (Liu and Nocedal 1989), the bias not penalised.

    Minimises the mean cross-entropy plus strength / 2 |W|^2.

    Args:
      features_NxD: of the training examples; standardise them first.
      labels_N: integers below `classes`.
      classes: C.
      strengths_S: positive.
      steps: at most.
      tolerance: largest gradient at which it ends.
    """
    width = features_NxD.shape[1]
    solver = optax.lbfgs()

    def fit(strength: jax.Array) -> tuple[jax.Array, jax.Array]:
        def objective(params: tuple[jax.Array, jax.Array]) -> jax.Array:
            kernel, bias_1xC = params
            losses = optax.softmax_cross_entropy_with_integer_labels(
                features_NxD @ kernel + bias_1xC, labels_N
            )
            return losses.mean() + 0.5 * strength * (kernel**2).sum()

        value_and_grad = optax.value_and_grad_from_state(objective)

        def step(carry):
            params, state, _, count = carry
            value, grad = value_and_grad(params, state=state)
            updates, state = solver.update(
                grad, state, params, value=value, grad=grad, value_fn=objective
            )
            return optax.apply_updates(params, updates), state, grad, count + 1

        def unfinished(carry):
            _, _, grad, count = carry
            largest = jnp.maximum(jnp.abs(grad[0]).max(), jnp.abs(grad[1]).max())
            return (count < steps) & (largest > tolerance)

        start = jnp.zeros((width, classes)), jnp.zeros((1, classes))
        began = start, solver.init(start), jax.tree.map(jnp.ones_like, start), jnp.int32(0)
        (kernel, bias_1xC), *_ = jax.lax.while_loop(unfinished, step, began)
        return kernel, bias_1xC[0]

    return Linear(*jax.vmap(fit)(strengths_S))


def standardised(train_NxD: jax.Array, *others: jax.Array) -> tuple[jax.Array, ...]:
    """Features less the training mean, divided by the training deviation where there is any."""
    mean, deviation = train_NxD.mean(0, keepdims=True), train_NxD.std(0, keepdims=True)
    scale = jnp.where(deviation > 0, deviation, 1.0)
    return tuple((x - mean) / scale for x in (train_NxD, *others))
