"""A progress bar with rate and time left, for anything that takes over a few seconds."""

from types import TracebackType


class Progress:
    """A bar on stderr that appears after two seconds; used as a context manager.

    Args:
      total: units of work.
      unit: what one is called.
      initial: units done before.
      quiet: never show it.
      label: what stands before the bar.
    """

    def __init__(
        self, total: int, unit: str, *, initial: int = 0, quiet: bool = False, label: str = ''
    ):
        import sys

        from tqdm import tqdm

        # In a file every refresh is a line: few of them.
        pause = 0.5 if sys.stderr.isatty() else 15

        self._bar = tqdm(
            total=total,
            unit=unit,
            initial=initial,
            disable=quiet,
            desc=label or None,
            delay=2,
            mininterval=pause,
            maxinterval=pause,
            dynamic_ncols=True,
            leave=False,
        )

    def update(self, count: int) -> None:
        """So many units more are done."""
        self._bar.update(count)

    def note(self, text: str) -> None:
        """Shows a few words behind the bar."""
        self._bar.set_postfix_str(text, refresh=False)

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
