"""One run: state, step, loop, checkpoints, optimiser, logging."""
