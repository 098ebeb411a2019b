"""Which task follows the runs of which other (`trigger.completion`), and which of them go round in a circle.

The catalog keeps it in line with the tasks that exist. Each task follows one other at most, so that a look for a
circle is a walk along one chain, and only a task that is itself followed can close one. Invariant: `cycle` is right
after each `link`; nothing costs more than the length of a chain, and nothing at all for tasks without a completion.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

__all__ = ["Completions", "TaskName"]

TaskName = tuple[str, str]
"""Namespace and name."""


class Completions:
    """The links of all tasks, also to tasks that do not exist."""

    def __init__(self) -> None:
        self._after: dict[TaskName, TaskName] = {}
        self._followers: dict[TaskName, dict[TaskName, None]] = {}
        self._cycles: dict[TaskName, tuple[TaskName, ...]] = {}
        """Of each task on a circle, all that are on it."""

    def link(self, task: TaskName, after: TaskName | None) -> Collection[TaskName]:
        """`task` follows `after` from now on, or nobody. Returns the tasks that came onto a circle or off it."""
        before = self._after.get(task)
        if before == after:
            return ()
        opened = self._cycles.get(task, ())
        for each in opened:
            del self._cycles[each]
        if before is not None:
            followers = self._followers[before]
            del followers[task], self._after[task]
            if not followers:
                del self._followers[before]
        if after is None:
            return opened
        self._after[task] = after
        self._followers.setdefault(after, {})[task] = None
        closed = self._walk(task)
        for each in closed:
            self._cycles[each] = closed
        return {*opened, *closed}

    def followers(self, task: TaskName) -> Collection[TaskName]:
        """The tasks that follow this one."""
        return tuple(self._followers.get(task, ()))

    def cycle(self, task: TaskName) -> Iterator[TaskName]:
        """The tasks of the circle that this one is on, from itself on; none: it is on none."""
        if task not in self._cycles:
            return
        yield task
        here = self._after[task]
        while here != task:
            yield here
            here = self._after[here]

    def _walk(self, task: TaskName) -> tuple[TaskName, ...]:
        """The circle that the task is on; none where its chain ends, or runs into a circle further on."""
        if task not in self._followers:
            return ()
        chain = {task: None}
        here = self._after.get(task)
        while here is not None and here not in chain:
            chain[here] = None
            here = self._after.get(here)
        return tuple(chain) if here == task else ()
