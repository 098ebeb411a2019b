"""Tasks whose objects are gone, kept for a while in case that the next leader's watch is late.

Such a leader believes that the object is there still. If the ledger had forgotten the task, it would count as new, and
instants that have fired would fire again. Volatile: a new leader keeps for as long as this what it hears of as gone.
"""

from __future__ import annotations

from collections import OrderedDict

from tickwheel_operator.engine.model.journal import Journal
from tickwheel_operator.engine.model.runs import TaskState
from tickwheel_operator.ledger import facts as f

__all__ = ["DeletedTasks"]

_KEPT_MS = 300_000
"""Longer than a watch is late whose replica may lead: each list is compared with the server's twice a minute."""
_MOST = 10_000


class DeletedTasks:
    """Those that the ledger will forget, the first one first."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._until_ms: OrderedDict[TaskState, int] = OrderedDict()
        """By the boot clock."""

    def add(self, task: TaskState) -> None:
        """The object is gone. The task has no open runs."""
        self._until_ms[task] = self._journal.boot_ms + _KEPT_MS
        if len(self._until_ms) > _MOST:
            self._forget()

    def discard(self, task: TaskState) -> None:
        """Somebody still has the object."""
        self._until_ms.pop(task, None)

    def sweep(self) -> None:
        """Forget those whose time is up."""
        while self._until_ms and next(iter(self._until_ms.values())) <= self._journal.boot_ms:
            self._forget()

    def _forget(self) -> None:
        task, _ = self._until_ms.popitem(last=False)
        self._journal.emit(f.TaskForgotten(task.number))
