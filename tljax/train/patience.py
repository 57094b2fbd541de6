"""Early stopping: how long a run goes on without getting better, and where it was best."""

import dataclasses
from typing import Any


@dataclasses.dataclass
class Patience:
    """The evaluations of a run (Prechelt 1998, "Early stopping - but when?", the class UP).

    Only the order of the evaluations decides, so a run that is resumed stops where it would have
    stopped anyway.

    Attributes:
      limit: evaluations in a row without improvement after which the run ends; 0 is never.
      begins: the step from which evaluations count; those before are of phases that others follow.
      history: (step, metric) of the evaluations so far, higher is better.

    >>> patience = Patience(2)
    >>> [patience.see(step, metric) for step, metric in enumerate((0.1, 0.3, 0.3, 0.2))]
    [True, True, False, False]
    >>> patience.exhausted, patience.best_step
    (True, 1)
    """

    limit: int
    begins: int = 0
    history: list[tuple[int, float]] = dataclasses.field(default_factory=list)

    def see(self, step: int, metric: float) -> bool:
        """Takes note of an evaluation; whether it is better than all before it.

        A step seen before, as when a run is resumed at it, replaces what was noted from it on.
        """
        self.history = [(s, m) for s, m in self.history if s < step]
        better = all(metric > m for _, m in self.history)
        self.history.append((step, metric))
        return better

    @property
    def best_step(self) -> int:
        """The first of the steps with the best metric."""
        return max(self.history, key=lambda pair: (pair[1], -pair[0]))[0]

    @property
    def exhausted(self) -> bool:
        """Whether the run has been no better for too long."""
        if not self.limit or not self.history:
            return False
        first = max(self.best_step, self.begins)
        return sum(step > first for step, _ in self.history) >= self.limit

    def to_json(self) -> list[list[Any]]:
        """For a checkpoint's meta."""
        return [list(pair) for pair in self.history]

    def load(self, held: Any) -> None:
        """Takes up what `to_json` gave."""
        self.history = [(int(step), float(metric)) for step, metric in held or ()]
