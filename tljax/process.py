"""The process that a command runs in: its logging, compilation cache and place in a cluster job."""

import os
import sys
from pathlib import Path
from typing import Any

from absl import logging

from tljax.errors import UserError
from tljax.flags import FLAGS


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
