"""What the benchmarks share: settings, timing in rounds, tables."""

import argparse
import contextlib
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

Times = Mapping[str, Sequence[float]]


def settings(doc: str | None, small: Mapping[str, int], full: Mapping[str, int]):
    """Reads the command line: --size=small|full chooses the settings, --NAME=NUMBER changes one."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--size', choices=('small', 'full'), default='small')
    for name, value in small.items():
        parser.add_argument(f'--{name}', type=int, help=f'small: {value}, full: {full[name]}')
    chosen = parser.parse_args()
    for name, value in (small if chosen.size == 'small' else full).items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, value)
    return chosen


def measure(variants: Mapping[str, Callable[[], Any]], repeats: int, warmup: int = 1) -> Times:
    """Seconds of each variant in each round, until its result is computed.

    Every round runs every variant once, so that whatever else the machine does meets all of them
    alike; ratios are taken within a round.

    Args:
      variants: by name; each returns arrays to wait for, or nothing.
      repeats: rounds.
      warmup: rounds before those, not counted: they compile.
    """
    import jax

    times: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(warmup + repeats):
        for name, function in variants.items():
            began = time.perf_counter()
            jax.block_until_ready(function())
            if index >= warmup:
                times[name].append(time.perf_counter() - began)
    return times


def table(
    title: str, times: Times, per: int = 1, columns: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Prints median, least and most of each row's times, and their ratio to the first row's.

    Args:
      title: what is shown.
      times: by row, the same number of rounds in each.
      per: what a time is divided by, such as the number of steps.
      columns: further ones, by heading, then by row.
    """
    first = next(iter(times))
    width = max(map(len, times))
    print(f'\n{title}')
    columns = columns or {}
    heads = f'{"":{width}}  {"median ms":>10}  {"min to max":>19}  {"ratio (min to max)":>22}'
    print(heads + ''.join(f'  {name:>13}' for name in columns))
    for row, values in times.items():
        ms = [1000 * value / per for value in values]
        ratios = [a / b for a, b in zip(values, times[first], strict=True)]
        spread = f'{number(min(ms))} to {number(max(ms))}'
        ratio = f'{number(min(ratios))} to {number(max(ratios))}'
        ratio = f'{number(statistics.median(ratios))} ({ratio})' if row != first else '1'
        cells = ''.join(f'  {column.get(row, ""):>13}' for column in columns.values())
        middle = number(statistics.median(ms))
        print(f'{row:{width}}  {middle:>10}  {spread:>19}  {ratio:>22}{cells}')


def number(value: float) -> str:
    """Three digits that count."""
    return f'{value:.0f}' if value >= 100 else f'{value:.3g}'


def header(doc: str | None) -> None:
    """Prints what is measured, and on what."""
    from tljax.process import keep_memory

    keep_memory()  # as launch.py does; what is beside tljax in the process has it too
    print((doc or '').splitlines()[0])
    print(environment(), flush=True)


def environment() -> str:
    """Backend, devices, cores and versions, in two lines."""
    import jax

    device = jax.devices()[0]
    load = os.getloadavg()[0] if hasattr(os, 'getloadavg') else float('nan')
    names = ('jax', 'jaxlib', 'flax', 'optax', 'grain', 'numpy')
    return (
        f'backend {jax.default_backend()}: {jax.device_count()} x {device.device_kind}; '
        f'{os.cpu_count()} CPU cores, load {load:.1f}\n'
        f'Python {platform.python_version()}, '
        + ', '.join(f'{name} {version(name)}' for name in names)
    )


def memory(field: str) -> int:
    """Bytes of this process: now (VmRSS), or at most (VmHWM), mapped pages of files included.

    0 where there is no /proc.
    """
    status = Path('/proc/self/status')
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(x.split()[1]) for x in lines if x.startswith(field + ':')), 0)


def new_peak() -> int:
    """Lets VmHWM start anew; gives what it was."""
    before = memory('VmHWM')
    with contextlib.suppress(OSError):  # not every system lets a process ask for that
        Path('/proc/self/clear_refs').write_text('5')
    return before


def progress(done: int, whole: int) -> None:
    """A line after each quarter, on stderr."""
    if done * 4 // whole > (done - 1) * 4 // whole:
        print(f'    step {done} of {whole}', file=sys.stderr, flush=True)


def torchvision() -> Any:
    """The package, or None where it or PyTorch is not installed."""
    try:
        import torch

        # Its compiled operators, which no classifier needs, may not fit this PyTorch.
        skip = mock.patch.object(torch.library, 'register_fake', return_value=lambda f: f)
        with skip, warnings.catch_warnings(action='ignore'):
            import torchvision
    except ImportError:
        return None
    return torchvision


def split_step(model: Any, task: Any, tx: Any, factor: Any, decisions: Any, prepare: Any = dict):
    """tljax's train step as `step(state, frozen, batch)`."""
    from tljax.train import step as step_lib  # not every benchmark loads tljax

    loss_of = step_lib.loss_program(model, decisions, step_lib.task_objective(task), prepare)
    step = step_lib.make_train_step(loss_of, tx, factor)
    return lambda state, frozen, batch: step(state, {'frozen': frozen, 'reference': {}}, batch)


if __name__ == '__main__':
    print(environment())
