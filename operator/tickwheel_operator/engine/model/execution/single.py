"""One dispatch, whose end is the run's."""

from __future__ import annotations

from tickwheel_operator.engine.model.execution.execution import Execution
from tickwheel_operator.engine.model.runs import Dispatch, End, Run

__all__ = ["SINGLE", "Single"]


class Single(Execution):
    """A run with one dispatch, which has the number of the run."""

    __slots__ = ()

    def divide(self, run: Run, ready_ms: int) -> tuple[Dispatch, ...]:
        return (Dispatch(run.number, run, ready_ms),)

    def ended(self, end: End) -> End | None:
        return end


SINGLE = Single()
"""It has no state: all runs share this one."""
