"""The process that a command runs in: logging, memory, compiled programs, cluster job."""

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

from absl import logging

from tljax.errors import UserError
from tljax.flags import FLAGS

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of malloc.h


def set_up_logging() -> None:
    """Our own notices on stderr, other libraries' only from errors on."""
    import logging as python_logging

    ours = str(Path(__file__).parent)

    def is_news(record: python_logging.LogRecord) -> bool:
        return record.levelno >= python_logging.ERROR or record.pathname.startswith(ours)

    logging.use_absl_handler()
    handler = logging.get_absl_handler()
    handler.setFormatter(python_logging.Formatter('%(message)s'))
    handler.addFilter(is_news)
    logging.set_verbosity(logging.WARNING if FLAGS.quiet else logging.INFO)
    logging.set_stderrthreshold('info')
    sys.unraisablehook = quiet_about_closed_loops


def quiet_about_closed_loops(unraisable: Any) -> None:
    """Prints what a thread could not raise, unless it is the echo of a failed save.

    After a full disk TensorStore's threads report to an event loop that Orbax has closed already;
    the failure itself is raised, and told, where the save was waited for.
    """
    if str(unraisable.exc_value) != 'Event loop is closed':
        sys.__unraisablehook__(unraisable)


def keep_memory() -> bool:
    """Lets the process keep memory that it has freed, for what it allocates next.

    XLA on a CPU allocates its temporary buffers anew for every call of a program. glibc takes those
    of 32 MB and more from the system each time, page by page, and so it does on every thread that
    is not the main one: up to half of the time of a training step. See benchmarks/README.md.

    Returns:
      Whether the C library is one that can be told so (glibc).
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if sys.platform == 'linux' else None
    if mallopt is None:
        return False
    # One arena, since only the main one can hold large blocks.
    return all([mallopt(M_ARENA_MAX, 1), mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, -1)])


def set_up_jax() -> None:
    """Compilation cache, and the other processes of a cluster job."""
    import jax

    if FLAGS.cache:
        home = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
        if getattr(jax.config, 'jax_compilation_cache_dir', None) is None:
            jax.config.update('jax_compilation_cache_dir', str(home / 'tljax' / 'compiled'))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
    else:
        jax.config.update('jax_enable_compilation_cache', False)
    if FLAGS.distributed:
        try:
            jax.distributed.initialize(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f'--distributed: {error} Where no cluster is recognised (Slurm, Open MPI, TPU, '
                'Kubernetes), give --coordinator, --num_processes and --process_id.'
            ) from error
        if jax.process_index():
            FLAGS['quiet'].value = True
