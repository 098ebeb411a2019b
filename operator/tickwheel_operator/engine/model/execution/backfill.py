"""A run that stands for the runs of all instants of a span of the past.

It has no dispatch of its own: it makes runs (`engine.schedule.backfilling` decides when), each of which is `Single`,
and behind all else. Its end is a fact of its own, since the last instants of the span may have runs already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.model.execution.covered import covered, uncovered
from tickwheel_operator.engine.model.execution.execution import Execution
from tickwheel_operator.engine.model.execution.single import Single
from tickwheel_operator.engine.model.runs import Dispatch, End, Run
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tickwheel_operator.engine.model.state import State

__all__ = ["BACKFILLED", "FOLDS", "Backfill", "BackfillRow"]


class BackfillRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a checkpoint holds of a backfill."""

    from_ms: int
    to_ms: int
    max_parallel: int
    total: int
    until_ms: int
    open: int
    succeeded: int
    failed: int


class Backfill(Execution):
    """What a backfill is about, and how far it is."""

    __slots__ = ("failed", "from_ms", "max_parallel", "open", "succeeded", "to_ms", "total", "until_ms")

    retroactive = True

    def __init__(self, from_ms: int, to_ms: int, max_parallel: int, total: int) -> None:
        self.from_ms = from_ms
        self.to_ms = to_ms
        """Exclusive."""
        self.max_parallel = max_parallel
        self.total = total
        """Instants of the span, when it was asked for."""
        self.until_ms = from_ms - 1
        """Instants up to this one have their runs."""
        self.open = 0
        """Of its runs."""
        self.succeeded = 0
        self.failed = 0
        """And cancelled."""

    def divide(self, run: Run, ready_ms: int) -> tuple[Dispatch, ...]:
        return ()

    def ended(self, end: End) -> End | None:
        self.open -= 1
        if end.state is RunState.SUCCEEDED:
            self.succeeded += 1
        else:
            self.failed += 1
        return None

    @property
    def counts(self) -> tuple[int, int, int] | None:
        return self.total, self.succeeded, self.failed

    @property
    def span_ms(self) -> tuple[int, int] | None:
        return self.from_ms, self.to_ms

    @property
    def has_room(self) -> bool:
        """Whether it may make a run now, and has one to make."""
        return self.open < self.max_parallel and not self.is_through

    @property
    def is_through(self) -> bool:
        """Whether all instants have their runs."""
        return self.until_ms >= self.to_ms - 1

    def row(self) -> BackfillRow:
        return BackfillRow(*(getattr(self, field) for field in BackfillRow.__struct_fields__))

    @classmethod
    def restored(cls, row: BackfillRow) -> Backfill:
        backfill = cls(row.from_ms, row.to_ms, row.max_parallel, row.total)
        backfill.until_ms, backfill.open = row.until_ms, row.open
        backfill.succeeded, backfill.failed = row.succeeded, row.failed
        return backfill


class Backfilled(Single):
    """The run of one instant of a backfill."""

    __slots__ = ()

    retroactive = True

    def closed(self, run: Run, end: End) -> None:
        if end.state is not RunState.SUCCEEDED:
            run.task.backfilled = uncovered(run.task.backfilled, run.scheduled_ms)


BACKFILLED = Backfilled()
"""It has no state: all runs of all backfills share this one."""


def _started(state: State, fact: f.BackfillStarted) -> None:
    backfill = Backfill(fact.from_ms, fact.to_ms, fact.max_parallel, fact.total)
    run = Run(fact.run, state.tasks[fact.task], fact.from_ms, state.clock_ms, backfill, state.clock_ms)
    run.started_ms = state.clock_ms
    state.asked_for(run, fact, Origin.SPAN)


def _backfilled(state: State, fact: f.Backfilled) -> None:
    whole, backfill = state.runs[fact.backfill], _of(state, fact.backfill)
    task = whole.task
    task.backfilled = covered(task.backfilled, backfill.until_ms + 1, fact.until_ms + 1)
    backfill.until_ms = fact.until_ms
    backfill.succeeded += fact.known
    backfill.open += len(fact.instants)
    for number, instant in enumerate(fact.instants, start=fact.first_run):
        run = Run(number, task, instant, state.clock_ms, BACKFILLED, state.clock_ms)
        run.origin = Origin.BACKFILL
        run.parent = whole.number
        run.key = whole.key
        run.parameters = whole.parameters
        state.add(run)
    state.touched[task] = None


def _ended(state: State, fact: f.BackfillEnded) -> None:
    backfill = _of(state, fact.backfill)
    end = End(RunState.SUCCEEDED)
    if backfill.failed:
        total = backfill.succeeded + backfill.failed
        message = f"{backfill.failed} of {total} instants have no run that succeeded"
        end = End(RunState.FAILED, error_type="BackfillFailed", message=message)
    state.end(state.runs[fact.backfill], end)


def _of(state: State, number: int) -> Backfill:
    """Of the run with this number. Raises KeyError where it is no open backfill."""
    execution = state.runs[number].execution
    if not isinstance(execution, Backfill):
        raise KeyError(number)
    return execution


FOLDS: dict[type, Callable[[State, Any], None]] = {
    f.BackfillStarted: _started,
    f.Backfilled: _backfilled,
    f.BackfillEnded: _ended,
}
"""What the facts of backfills make of the state."""
