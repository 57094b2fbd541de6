"""Checkpoints of a run: saved in the background, complete or absent, restored bit for bit."""

import json
import math
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
from absl import logging

from tljax.errors import RunError, UserError
from tljax.train import storage
from tljax.train.placing import agreed, check_leaves, parts, place
from tljax.train.storage import DamagedError, Leaf


class Checkpoints:
    """The checkpoints in one directory, one sub-directory a step, in Orbax's own layout.

    A context manager; leaving it waits for the save in progress. Nothing is written, not even
    the directory, before the first `save`. Not for use from several threads.

    >>> import tempfile, jax.numpy as jnp
    >>> with Checkpoints(tempfile.mkdtemp(), every=10) as checkpoints:
    ...     checkpoints.save(10, {'w': jnp.ones(3)}, {'fingerprint': 'abc'})
    ...     step, state, meta = checkpoints.restore({'w': jax.ShapeDtypeStruct((3,), jnp.float32)})
    True
    >>> step, state['w'].tolist(), meta
    (10, [1.0, 1.0, 1.0], {'fingerprint': 'abc'})
    """

    def __init__(self, directory: str | Path, keep: int = 2, every: int = 100):
        """Names the directory.

        Args:
          directory: where the checkpoints are or shall be.
          keep: how many of the newest stay on disk; the best one stays besides.
          every: `save` saves at multiples of this step (0: only when forced).

        Raises:
          UserError: keep or every is out of range.
        """
        if keep < 1 or every < 0:
            raise UserError(
                f'Checkpoints need keep >= 1 and every >= 0 (train.save_every): got {keep=}, '
                f'{every=}.'
            )
        self.directory = Path(directory)
        self.keep = keep
        self.every = every
        self._damaged: set[int] = set()
        self._metrics: dict[int, float | None] | None = None
        self._pending: tuple[int, Future] | None = None
        self._thread = ThreadPoolExecutor(1, 'checkpoint')

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.wait()
        except (RunError, UserError) as failure:
            if error is None:
                raise
            logging.error('%s', failure)  # the error in flight is the one to raise

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints on disk, ascending.

        A checkpoint gets its plain number as a name by a rename, when it is complete.
        """
        if not self.directory.is_dir():
            return []
        names = [path.name for path in self.directory.iterdir()]
        return sorted(int(name) for name in names if re.fullmatch('0|[1-9][0-9]*', name))

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, of the save in progress when there is one."""
        self.wait()
        return max(self.steps(), default=None)

    def due(self, step: int) -> bool:
        """Whether `save` would save at this step without being forced."""
        return self.every > 0 and step % self.every == 0

    def save(
        self,
        step: int,
        state: Any,
        meta: Mapping[str, Any],
        metric: float | None = None,
        force: bool = False,
    ) -> bool:
        """Starts to save, when the step is due; first waits for the save before this one.

        The state is copied before this returns, so that the caller may donate it.

        Args:
          step: of the run.
          state: tree of jax or numpy arrays, typed PRNG keys among them.
          meta: JSON (tuples come back as lists) to be kept with the state.
          metric: on validation, higher is better; the best checkpoint is kept. None or a value
            that is not finite never is the best.
          force: save at this step whether due or not.

        Returns:
          Whether a save was started; a step that is saved already is left as it is.

        Raises:
          UserError: the directory cannot be written.
          RunError: this save or the one before it failed, as on a full disk; the complete
            checkpoints are still there.
        """
        if not (force or self.due(step)):
            return False
        self.wait()
        path = self.directory / str(step)
        metric = float(metric) if metric is not None and math.isfinite(metric) else None
        try:
            known = self._prepare()
        except OSError as error:
            raise storage.save_error(error, path) from error
        if not agreed(not path.exists()):
            return False
        extra = json.loads(storage.canonical_json({'meta': meta, 'metric': metric}))
        arrays, leaves = storage.snapshot(state)
        unfinished = path.with_name(path.name + storage.UNFINISHED)
        try:
            response = storage.start_save(unfinished, arrays)
        except Exception as error:  # whatever Orbax raises
            self._after_failure()
            raise storage.save_error(error, path) from error
        known[step] = metric
        self._pending = step, self._thread.submit(finish, response, path, leaves, extra)
        return True

    def wait(self) -> None:
        """Waits for the save in progress, then deletes checkpoints that are not to be kept.

        Raises:
          UserError, RunError: as for `save`.
        """
        if self._pending is None:
            return
        step, saving = self._pending
        try:
            saving.result()
        except Exception as error:  # whatever Orbax raises
            self._pending = None
            self._after_failure()
            raise storage.save_error(error, self.directory / str(step)) from error
        self._pending = None
        self._tidy()

    def restore(
        self, abstract: Any | Callable[[int], Any], best: bool = False
    ) -> tuple[int, Any, dict] | None:
        """Reads the newest checkpoint that is not damaged; each damaged one is logged.

        Args:
          abstract: the state's tree with arrays or `jax.ShapeDtypeStruct` as leaves, or a function
            of the step that returns it. A leaf comes back as a numpy array where that is one,
            else as a jax array with that sharding (none given: uncommitted, on the default device).
          best: take the best on the metric in place of the newest.

        Returns:
          (step, state, meta), or None when there is no checkpoint.

        Raises:
          UserError: a checkpoint holds other leaves, shapes or dtypes than the run needs.
          RunError: there are checkpoints, and all (with best, all that have a metric) are damaged.
        """
        self.wait()
        steps = self._by_metric() if best else self.steps()[::-1]
        for step in steps:
            path, why = self.directory / str(step), None
            try:
                record = storage.read_record(path)
                storage.verify(path, record)
            except DamagedError as error:
                why = str(error)
            # Before Orbax, which has the processes wait for each other while it reads.
            if agreed(why is None):
                wanted = abstract(step) if callable(abstract) else abstract
                check_leaves(path, record, wanted)
                try:
                    arrays = storage.read_arrays(path, record, parts(wanted))
                except DamagedError as error:
                    why = str(error)
                if agreed(why is None):
                    return step, place(arrays, record, wanted), record.extra['meta']
            self._report(step, why or 'another process could not read it')
        if steps or self._damaged:
            raise RunError(self._all_damaged())
        return None

    def _report(self, step: int, why: str) -> None:
        if step not in self._damaged:
            self._damaged.add(step)
            logging.warning(
                'The checkpoint %s is damaged: %s. Going on to the one before it.',
                self.directory / str(step),
                why,
            )

    def _all_damaged(self) -> str:
        return (
            f'No checkpoint in {self.directory} can be read: {sorted(self._damaged)} are damaged. '
            'Delete that directory to start the run from its beginning.'
        )

    def _prepare(self) -> dict[int, float | None]:
        """Before the first save: the directory, what a killed run left, and known metrics."""
        if self._metrics is None:
            if jax.process_index() == 0:
                self.directory.mkdir(parents=True, exist_ok=True)
                storage.remove_leftovers(self.directory.iterdir())
            self._metrics = self._read_metrics()
        if jax.process_index() == 0:
            for step in self._damaged & set(self.steps()):
                # Its step will be saved again; kept under another name for whoever wants to look.
                aside = self.directory / f'{step}.damaged'
                if aside.exists():
                    storage.remove(aside)
                (self.directory / str(step)).rename(aside)
                logging.warning('Moved the damaged checkpoint to %s.', aside)
        for step in self._damaged:
            self._metrics.pop(step, None)
        self._damaged.clear()
        agreed(True)  # no process looks for a checkpoint that is about to be moved
        return self._metrics

    def _read_metrics(self) -> dict[int, float | None]:
        metrics: dict[int, float | None] = {}
        for step in self.steps():
            try:
                metrics[step] = storage.read_record(self.directory / str(step)).extra['metric']
            except DamagedError as error:
                self._report(step, str(error))
        return metrics

    def _by_metric(self) -> list[int]:
        """Steps with a metric, the best first, of equals the newer."""
        metrics = self._read_metrics()
        ranked = [(metric, step) for step, metric in metrics.items() if metric is not None]
        return [step for _, step in sorted(ranked, reverse=True)]

    def _tidy(self) -> None:
        """Deletes what is neither among the newest nor the best."""
        if jax.process_index() != 0 or self._metrics is None:
            return
        steps = self.steps()
        ranked = [(m, s) for s in steps if (m := self._metrics.get(s)) is not None]
        kept = {*steps[-self.keep :], *([max(ranked)[1]] if ranked else [])}
        for step in steps:
            if step not in kept:
                self._metrics.pop(step, None)
                try:
                    storage.remove(self.directory / str(step))
                except OSError as error:
                    logging.warning('The old checkpoint %s stays: %s.', step, error)

    def _after_failure(self) -> None:
        """Frees the space that a failed save took."""
        if jax.process_index() == 0 and self.directory.is_dir():
            storage.remove_leftovers(self.directory.iterdir())


def finish(response: Any, path: Path, leaves: Mapping[str, Leaf], extra: dict[str, Any]) -> None:
    """Waits until Orbax has written everything, seals it and gives it its name."""
    response.result()
    if jax.process_index() == 0:
        unfinished = path.with_name(path.name + storage.UNFINISHED)
        storage.seal(unfinished, leaves, extra)
        unfinished.rename(path)
