"""tljax: transfer learning in JAX and Flax, and the measure of whether it helped."""

__version__ = '0.1.0'
