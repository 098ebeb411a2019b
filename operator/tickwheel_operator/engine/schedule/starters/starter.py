"""What the engine asks of a starter: the seam that each kind of source fills."""

from __future__ import annotations

from typing import ClassVar

from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.model.runs import Run
from tickwheel_operator.engine.schedule.groups import Entry

__all__ = ["Starter"]


class Starter:
    """Starts the runs of all tasks whose source is of one kind: itself of those that are run by hand, so none.

    It keeps what it needs of a task between `join` and `leave`, asks the scheduler to make or skip runs, and may be
    asked about a task that it does not know.
    """

    hears_own_ends: ClassVar[bool] = False
    """It needs to know of the ends of its tasks' own runs."""

    def hear(self, entry: Entry) -> None:
        """Take note of what the task waits for, also while it is invalid or the catalog is incomplete."""

    def join(self, entry: Entry) -> None:
        """Start its runs from now on. What is overdue is only noted: `settle` is called in its turn."""

    def leave(self, entry: Entry) -> None:
        """Forget it. The entry may have another source by now."""

    def settle(self, entry: Entry, nothing_until_ms: int) -> None:
        """Settle what is overdue for the task, by its misfire policy. There is nothing up to `nothing_until_ms`."""

    def next_ms(self, entry: Entry) -> int | None:
        """Return the instant that the task sleeps on, if any."""

    def ended(self, run: Run, state: RunState) -> None:
        """A run has ended, of any task whose ends somebody needs."""
