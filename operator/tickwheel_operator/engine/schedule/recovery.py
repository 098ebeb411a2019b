"""Tasks whose status knows more than the ledger: it was lost, or restored from a backup.

`engine.schedule.scheduler` gives it what the catalog applies, and asks when it adopts a task. A status is written after
the facts that it shows, so one that is ahead of the ledger was written from a ledger that is gone. Its word becomes a
fact before anything of the task is settled: finished work does not run again, counters go on, fencing tokens keep
growing.
Invariant: a task is recovered at most once a term, and what was settled stays settled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwheel_operator.engine.messages import StatusRecord
from tickwheel_operator.engine.model.journal import Journal
from tickwheel_operator.engine.model.runs import TaskState
from tickwheel_operator.engine.spec import Guarantee, TaskSpec
from tickwheel_operator.ledger import facts as f

if TYPE_CHECKING:
    from tickwheel_operator.engine.schedule.edits import Edits
    from tickwheel_operator.engine.schedule.groups import Entry
    from tickwheel_operator.engine.schedule.scheduler import Scheduler

__all__ = ["Recovery"]

_NAMED = 100
_TOKENS_PER_MS = 1_000
"""Fencing tokens go on from the clock, in microseconds: above all of the ledger that is gone, unless it gave away more
than a million a second all its life."""


class Recovery:
    """Part of the scheduler."""

    def __init__(self, journal: Journal, scheduler: Scheduler, edits: Edits) -> None:
        self._journal = journal
        self._scheduler = scheduler
        self._edits = edits
        self._records: dict[str, StatusRecord] = {}
        """By uid, of tasks that are not adopted yet."""
        self.count = 0
        """Tasks that were recovered in this term."""
        self.first: list[TaskSpec] = []
        """The first of them, up to 100."""

    def note(self, entry: Entry, record: StatusRecord | None) -> None:
        """Keep what the status says, if the ledger does not know it."""
        if record is not None and (entry.task is None or _knows_more(record, entry.task, entry.spec)):
            self._records[entry.spec.uid] = record

    def adopt(self, entry: Entry) -> None:
        """The task is about to be armed: make what its status says a fact."""
        record = self._records.pop(entry.spec.uid, None)
        if record is None:
            return
        spec = entry.spec
        settled_ms = record.settled_ms
        if record.unfinished and spec.guarantee is not Guarantee.AT_MOST_ONCE:
            # Its run was open when the ledger was lost, and nobody will report it: the misfire policy decides.
            settled_ms = min(settled_ms, record.last_scheduled_ms - 1)
        is_new = entry.task is None
        task = self._scheduler.name(entry, settled_ms)
        self._journal.emit(
            f.Recovered(
                task.number, settled_ms, record.last_scheduled_ms, record.last_ended_ms, record.succeeded,
                record.failed, record.cancelled, list(record.skips), self._journal.wall_ms * _TOKENS_PER_MS,
            )
        )  # fmt: skip
        self.count += 1
        if len(self.first) < _NAMED:
            self.first.append(spec)
        if is_new and record.generation != spec.generation:
            self._edits.before_the_first_fact(entry)


def _knows_more(record: StatusRecord, task: TaskState, spec: TaskSpec) -> bool:
    # Where an edit names an instant of the past, the ledger goes back to it before the status does.
    comparable = record.generation == spec.generation
    return (
        (comparable and record.settled_ms > task.watermark_ms)
        or record.succeeded > task.succeeded
        or record.failed > task.failed
        or record.cancelled > task.cancelled
    )
