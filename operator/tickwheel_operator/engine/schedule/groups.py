"""The tasks of the catalog, and the timers that they share: what there is a million of, so each byte counts.

`engine.schedule.scheduler` owns them. A group is itself the timer of its trigger, and most groups have one task, so
that a task with a trigger of its own costs an entry, a group and three places in dicts.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from tickwheel_operator.engine.model.runs import TaskState
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.engine.triggers import Trigger, once_at
from tickwheel_operator.engine.wheel import Timer

if TYPE_CHECKING:
    from tickwheel_operator.engine.wheel import TimingWheel

__all__ = ["AT_ONCE", "Burst", "Entry", "Group", "Names"]

AT_ONCE = 1_000
"""Tasks that are looked after in one step: 10,000 would keep all of them, and everybody else, for 150 ms."""

_LOOKS = -1
"""Instead of how long ahead a group wakes: a slot more would cost each of them."""


class Entry:
    """A task of the catalog."""

    __slots__ = ("group", "paused", "spec", "task")

    def __init__(self, spec: TaskSpec, task: TaskState | None) -> None:
        self.spec = spec
        self.task = task
        """None until a fact names the task."""
        self.group: Group | None = None
        self.paused = False
        """Its object is invalid now: nothing fires, and what is known of it is kept."""

    @property
    def watermark_ms(self) -> int:
        """Up to when its instants are settled: until a fact says so, its creation. But a `once` that had passed by then
        is overdue, and not settled."""
        if self.task is not None:
            return self.task.watermark_ms
        trigger, created_ms = self.spec.trigger, self.spec.created_ms
        at_ms = None if trigger is None else once_at(trigger)
        return created_ms if at_ms is None else min(created_ms, at_ms - 1)


class Group(Timer):
    """The tasks that share one trigger, and their one timer."""

    __slots__ = ("_ahead_ms", "_members", "trigger")

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self._ahead_ms = 0
        self._members: Entry | dict[str, Entry] | None = None
        self.payload = None
        self.at_ms = 0
        self._next = self._previous = None

    @property
    def next_ms(self) -> int | None:
        """The instant that it sleeps on; None: it does not, or none is known."""
        return self.at_ms + self._ahead_ms if self._next is not None and not self.looks else None

    def sleep(self, wheel: TimingWheel, until_ms: int | None, ahead_ms: int) -> None:
        """Wake so long before the instant; None: never."""
        if self._next is not None:
            wheel.cancel(self)
        if until_ms is not None:
            self._ahead_ms = ahead_ms
            wheel.arm(self, until_ms - ahead_ms)

    def look_on(self, wheel: TimingWheel, at_ms: int) -> None:
        """Wake when the time has come up to which its trigger has found nothing: not for an instant, but to look on."""
        if self._next is not None:
            wheel.cancel(self)
        self._ahead_ms = _LOOKS
        wheel.arm(self, at_ms)

    @property
    def looks(self) -> bool:
        """It was to look on, when it was woken, and from `at_ms` on."""
        return self._ahead_ms == _LOOKS

    @property
    def due_ms(self) -> int:
        """The instant that it slept on when it was woken."""
        return self.at_ms + self._ahead_ms

    @property
    def entries(self) -> Collection[Entry]:
        members = self._members
        if isinstance(members, dict):
            return members.values()
        return () if members is None else (members,)

    @property
    def size(self) -> int:
        """How many tasks it has."""
        members = self._members
        return len(members) if isinstance(members, dict) else int(members is not None)

    def add(self, entry: Entry) -> None:
        members = self._members
        if isinstance(members, dict):
            members[entry.spec.uid] = entry
        elif members is None or members is entry:
            self._members = entry
        else:
            self._members = {members.spec.uid: members, entry.spec.uid: entry}

    def remove(self, entry: Entry) -> None:
        members = self._members
        if isinstance(members, dict):
            members.pop(entry.spec.uid, None)
            if not members:
                self._members = None
        elif members is entry:
            self._members = None


class Burst:
    """Tasks of one group that still wait for their run of the instant that it fires."""

    __slots__ = ("_waiting", "ahead", "undecided")

    def __init__(self, entries: list[Entry], *, ahead: bool) -> None:
        entries.reverse()
        self._waiting = entries
        """The next last."""
        self.ahead = ahead
        """They are those that nothing can stop, before their instant."""
        self.undecided = False
        """There are others, which must be looked at when the instant has come."""

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> list[Entry]:
        """The next thousand."""
        taken = self._waiting[-AT_ONCE:]
        del self._waiting[-AT_ONCE:]
        taken.reverse()
        return taken


class Names:
    """Entries by namespace and name."""

    __slots__ = ("_namespaces",)

    def __init__(self) -> None:
        self._namespaces: dict[str, dict[str, Entry]] = {}

    def get(self, namespace: str, name: str) -> Entry | None:
        names = self._namespaces.get(namespace)
        return None if names is None else names.get(name)

    def put(self, entry: Entry) -> None:
        names = self._namespaces.get(entry.spec.namespace)
        if names is None:
            names = self._namespaces[entry.spec.namespace] = {}
        names[entry.spec.name] = entry

    def drop(self, entry: Entry) -> None:
        """Another object may have the name by now: that stays."""
        names = self._namespaces.get(entry.spec.namespace, {})
        if names.get(entry.spec.name) is entry:
            del names[entry.spec.name]
            if not names:
                del self._namespaces[entry.spec.namespace]
