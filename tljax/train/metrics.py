"""Metrics of a run: `metrics.jsonl` and TensorBoard event files."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax


class MetricWriter:
    """Writes scalars by step to `metrics.jsonl` and to TensorBoard.

    Used as a context manager. A resumed run first drops what was written after its checkpoint,
    so that the file holds every step once. With several processes, the first one writes.

    Args:
      workdir: the run's directory.
      first_step: the step the run goes on from.
    """

    def __init__(self, workdir: Path, first_step: int = 0):
        self._file = self._board = None
        if jax.process_index() != 0:
            return
        from tensorboardX import SummaryWriter

        self._path = workdir / 'metrics.jsonl'
        _drop_from(self._path, first_step)
        self._file = self._path.open('a')
        self._board = SummaryWriter(
            str(workdir / 'tensorboard'), purge_step=first_step, flush_secs=10
        )

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Appends one line `{"step": ..., name: value}`; names may hold one '/', as in val/loss."""
        values = {name: float(value) for name, value in scalars.items()}
        if self._file is None or self._board is None:
            return
        self._file.write(json.dumps({'step': step, **values}) + '\n')
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def __enter__(self) -> 'MetricWriter':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None and self._board is not None:
            self._file.close()
            self._board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line cut short by a kill is left out."""
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def _drop_from(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [json.dumps(record) + '\n' for record in read_metrics(path) if record['step'] < step]
    partial = path.with_name(path.name + '.partial')
    partial.write_text(''.join(kept))
    os.replace(partial, path)
