"""The leader's part of backfills: a run for each instant of a span, as many at a time as was asked for.

A backfill is a run of its own (origin `SPAN`), which no worker gets: it has a key, an object and a state as any run, is
cancelled as any run, and ends with the last of the runs that it made. Those wait behind everything that is due now.
Invariant: an instant has one backfilled run that is open or succeeded, whatever backfills overlap
(`TaskState.backfilled`); one that did not succeed may be made up for by another backfill. How far one has come is in
the ledger with the runs that it made, so that a new leader goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.model.execution.backfill import Backfill
from tickwheel_operator.engine.model.execution.covered import covered_until
from tickwheel_operator.engine.model.identity import keyed_run_id
from tickwheel_operator.engine.model.journal import Journal
from tickwheel_operator.engine.model.runs import Run
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.schedule.groups import Entry
from tickwheel_operator.engine.schedule.scheduler import Scheduler
from tickwheel_operator.engine.sources import ByHand
from tickwheel_operator.engine.spec import EngineConfig
from tickwheel_operator.engine.triggers import counted_until, looked_until
from tickwheel_operator.ledger import facts as f

__all__ = ["Backfills"]

_AT_ONCE = 1_000
"""Runs that one fact makes at most."""
_NEVER_MS = 1 << 62


class Backfills:
    """The backfills of one partition."""

    def __init__(
        self,
        journal: Journal,
        state: State,
        scheduler: Scheduler,
        config: EngineConfig,
        cancel: Callable[[Run, str, list[m.Effect]], None],
    ) -> None:
        """`cancel` stops a run that has dispatches."""
        self._journal = journal
        self._state = state
        self._scheduler = scheduler
        self._config = config
        self._cancel = cancel
        self._open: dict[int, Run] = {}

    def resume(self) -> None:
        """A new leader: go on with all that are open."""
        self._open = {number: run for number, run in self._state.runs.items() if isinstance(run.execution, Backfill)}
        self.nudge()

    def nudge(self) -> None:
        """Go on with those that had to stop, since too much waited or their task was invalid."""
        for run in list(self._open.values()):
            self.advance(run)

    def start(self, command: m.StartBackfill, entry: Entry) -> m.Effect:
        """Begin one, or find that it was begun."""
        task = self._scheduler.name(entry)
        run_id = keyed_run_id(task.uid, command.key)
        known = self._state.keys.get(run_id)
        if known is not None:
            state = known.state
            return m.Submitted(
                request=command.request, runs=[m.SubmittedRun(run_id=run_id, created=False, state=state)]
            )
        total, refusal = self._total(command, entry)
        if refusal:
            return m.CommandRefused(request=command.request, reason=m.RefusalReason.NOT_POSSIBLE, detail=refusal)
        number = self._state.next_run
        self._journal.emit(
            f.BackfillStarted(
                number,
                task.number,
                command.from_ms,
                command.to_ms,
                command.max_parallel,
                total,
                command.key,
                command.object_name,
                command.parameters,
            )
        )
        run = self._state.runs[number]
        self.advance(run)
        state = run.state if number in self._state.runs else m.RunState.SUCCEEDED
        return m.Submitted(request=command.request, runs=[m.SubmittedRun(run_id=run_id, created=True, state=state)])

    def cancel(self, run: Run, why: str, effects: list[m.Effect]) -> None:
        """Make no more runs, and stop those that are open: the backfill ends with the last of them."""
        if run.cancelling is None:
            self._journal.emit(f.CancelAsked(run.number, why))
        for child in [other for other in run.task.runs.values() if other.parent == run.number]:
            if child.number in run.task.runs:
                self._cancel(child, why, effects)
        self.advance(run)

    def ended(self, child: Run) -> None:
        """A run has ended. Of a backfill: there is room for the next, and others of its task may wait for its end."""
        if not child.parent:
            return
        for run in [run for run in self._open.values() if run.task is child.task]:
            self.advance(run)

    def advance(self, run: Run) -> None:
        """Make runs while there is room; end the backfill when there is nothing left to do."""
        backfill = run.execution
        if not isinstance(backfill, Backfill) or run.number not in self._state.runs:
            self._open.pop(run.number, None)
            return
        self._open[run.number] = run
        if run.cancelling is None:
            entry = self._scheduler.entries.get(run.task.uid)
            if entry is None or entry.paused:
                return
            while backfill.has_room:
                if self._scheduler.held or self._scheduler.is_full(entry.spec) or not self._step(run, backfill, entry):
                    return
        if backfill.open:
            return
        if run.cancelling is not None:
            self._journal.emit(f.Cancelled(run.number, run.cancelling))
        elif backfill.is_through:
            self._journal.emit(f.BackfillEnded(run.number))
        else:
            return
        self._open.pop(run.number, None)

    def _step(self, run: Run, backfill: Backfill, entry: Entry) -> bool:
        """Take the next instants, as many as there is room for, and pass over those that another backfill made up for.
        False: what comes next is open in another backfill, and its outcome must be known."""
        trigger, task = entry.spec.trigger, run.task
        until, last, known = backfill.until_ms, backfill.to_ms - 1, 0
        instants: list[int] = []
        room = min(backfill.max_parallel - backfill.open, _AT_ONCE)
        undecided = self._undecided(run, until)
        while len(instants) < room:
            instant = trigger.next_after(until) if trigger is not None else None
            if instant is None and trigger is not None and (looked := looked_until(trigger, until)) is not None:
                until = min(looked, last)  # the search gave up there
                if until < last:
                    continue
            if instant is None or instant > last:
                until = last
                break
            covered = min(covered_until(task.backfilled, instant), last + 1, undecided)
            if trigger is not None and covered > instant:
                known += trigger.count_between(until, covered - 1, self._config.max_backfill)
                until = covered - 1
            elif instant == undecided:
                break
            else:
                until = instant
                instants.append(instant)
        if until == backfill.until_ms:
            return False
        first = self._state.next_run
        self._journal.emit(f.Backfilled(run.number, until, first, instants, known))
        for number in range(first, first + len(instants)):
            self._scheduler.created(self._state.runs[number])
        return True

    def _undecided(self, run: Run, until_ms: int) -> int:
        """The first instant after `until_ms` that has an open run of another backfill; else a time far away."""
        runs = run.task.runs.values()
        others = {o.number for o in self._open.values() if o.task is run.task and o is not run}
        if not others:
            return _NEVER_MS
        return min(
            (r.scheduled_ms for r in runs if r.parent in others and r.scheduled_ms > until_ms), default=_NEVER_MS
        )

    def _total(self, command: m.StartBackfill, entry: Entry) -> tuple[int, str]:
        """How many instants the span has, and what speaks against it."""
        trigger = entry.spec.trigger
        if trigger is None:
            source = "no trigger" if isinstance(entry.spec.source, ByHand) else entry.spec.source.describe()
            return 0, (
                f"{source}: only a task whose trigger makes instants of time (cron, fixedRate, dailyInterval, once) "
                "can be backfilled"
            )
        if not command.from_ms < command.to_ms:
            return 0, "from must be before to"
        if command.to_ms > self._journal.now_ms:
            return 0, "to lies in the future; a backfill makes up for instants of the past"
        total = trigger.count_between(command.from_ms - 1, command.to_ms - 1, self._config.max_backfill + 1)
        if counted_until(trigger, command.from_ms - 1, command.to_ms - 1) < command.to_ms - 1:
            return 0, "window and calendars refuse too many instants of this span one by one; divide it"
        if total == 0:
            return 0, "the trigger has no instant in this span"
        if total > self._config.max_backfill:
            return 0, f"the span has more than {self._config.max_backfill:,} instants; divide it"
        return total, ""
