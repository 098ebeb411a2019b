"""How much is kept of runs that ended: their results and texts, up to a bound over all tasks.

Each task keeps its last runs (`TaskState`), so a million tasks could keep gigabytes of results. Of too many the oldest
lose their details; that they ended, and how, is kept.
"""

from __future__ import annotations

from tickwheel_operator.engine.model.runs import Ended, TaskState

__all__ = ["Details"]


class Details:
    """Counts the details of all ended runs that are kept."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._of: dict[Ended, TaskState] = {}
        """Those that have details, in the order in which they ended, and whose history each is in."""

    def add(self, ended: Ended, task: TaskState) -> list[tuple[Ended, TaskState]]:
        """It joined the task's history, the latest of all that ended. Returns those whose details must go for it."""
        size = ended.detail_bytes
        if not size:
            return []
        self._of[ended] = task
        self.bytes += size
        return self._oldest() if self.bytes > self.max_bytes else []

    def forget(self, ended: Ended) -> None:
        """It left its task's history, or has no details any more."""
        if self._of.pop(ended, None) is not None:
            self.bytes -= ended.detail_bytes

    def _oldest(self) -> list[tuple[Ended, TaskState]]:
        # More than is needed, since to find the first of a dict costs as much as was deleted before it.
        enough = self.bytes - self.max_bytes * 15 // 16
        oldest = []
        for ended, task in self._of.items():
            if enough <= 0:
                break
            enough -= ended.detail_bytes
            oldest.append((ended, task))
        return oldest
