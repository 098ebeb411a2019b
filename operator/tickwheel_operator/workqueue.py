"""A keyed work queue: what is to be looked at, not what happened to it.

The TaskRun requests, the pools and the projector go by it. A key waits at most once however often it is
added, is worked on by one worker at a time, and is looked at again when it was added meanwhile; work that fails is
tried again after a delay that grows. Invariant: a key that was added is worked on after its last `add`: at once, or,
where the work failed meanwhile, after the delay of that failure.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tickwheel_operator.fair_lanes import FairLanes

__all__ = ["WorkFailed", "WorkQueue"]

_log = logging.getLogger(__name__)
_Key = TypeVar("_Key", bound=Hashable)
_QUIET_S = 30.0
"""Failures of one kind are told at most so often: in an outage every key fails for the same reason."""


class WorkFailed(Exception):
    """Work that failed for a reason that it knows. Those of one `kind` (few different ones) have one cause."""

    def __init__(self, message: str, *, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass
class _Meanwhile:
    """What was asked for a key while it is worked on."""

    lane: int | None = None
    """The lane in which it was added; None: it was not."""
    later: tuple[float, int] | None = None
    """When it was to be looked at again (the loop's clock), and in which lane."""
    discarded: bool = False


class WorkQueue(Generic[_Key]):
    """Runs `work(key)` for each key that is added, with a bounded number of workers."""

    def __init__(
        self,
        work: Callable[[_Key], Awaitable[float | None]],
        *,
        name: str,
        workers: int,
        weights: Sequence[int] = (1,),
        group: Callable[[_Key], Hashable] = lambda key: None,
        initial_s: float = 0.5,
        max_s: float = 60.0,
    ) -> None:
        """`work` returns None when it is done, or seconds after which to look again.

        There is a lane for each of `weights`, by which they share the turns; in a lane the groups of keys take turns,
        such as namespaces. A failure is retried after `initial_s`, then twice as long each time up to `max_s`.
        """
        self._work = work
        self._name = name
        self._workers = workers
        self._initial_s = initial_s
        self._max_s = max_s
        self._waiting: FairLanes[_Key] = FairLanes(weights, group)
        self._since: dict[_Key, float] = {}
        """When a key that has work began to wait for it or to fail (the loop's clock), the oldest first."""
        self._working: dict[_Key, _Meanwhile] = {}
        self._later: dict[_Key, asyncio.TimerHandle] = {}
        self._failures: dict[_Key, int] = {}
        self._told: dict[tuple[type[Exception], str], tuple[float, int]] = {}
        """By kind of failure: when it was told last, and how many came since that were not."""
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """Keys that wait, also for a retry."""
        return len(self._waiting) + len(self._later)

    @property
    def oldest_s(self) -> float:
        """How long the work has not been done that waits the longest: in the queue, in progress or failing. A delay
        that work asked for does not count."""
        began = next(iter(self._since.values()), None)
        return 0.0 if began is None else asyncio.get_running_loop().time() - began

    def add(self, key: _Key, lane: int = 0) -> None:
        """Look at the key soon. One that waits in a later lane moves forward."""
        meanwhile = self._working.get(key)
        if meanwhile is not None:
            meanwhile.lane = lane if meanwhile.lane is None else min(lane, meanwhile.lane)
            return
        timer = self._later.pop(key, None)
        if timer is not None:
            timer.cancel()
        self._waiting.put(key, lane)
        self._since.setdefault(key, asyncio.get_running_loop().time())
        self._wake.set()

    def add_later(self, key: _Key, delay_s: float, lane: int = 0) -> None:
        """Look at the key after `delay_s`, unless it is added before. Of two delays the shorter counts."""
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s
        meanwhile = self._working.get(key)
        if meanwhile is not None:
            if meanwhile.later is None or due < meanwhile.later[0]:
                meanwhile.later = (due, lane)
            return
        if key in self._waiting:
            return
        timer = self._later.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._later[key] = loop.call_at(due, self._due, key, lane)

    def discard(self, key: _Key) -> None:
        """There is nothing to do for the key any more. Work that runs is not stopped."""
        self._waiting.discard(key)
        self._since.pop(key, None)
        timer = self._later.pop(key, None)
        if timer is not None:
            timer.cancel()
        self._failures.pop(key, None)
        if key in self._working:
            self._working[key] = _Meanwhile(discarded=True)

    def clear(self) -> None:
        """Forget all keys that wait."""
        for key in [*self._later, *self._waiting]:
            self.discard(key)
        self._failures.clear()
        self._since.clear()
        for key in self._working:
            self._working[key] = _Meanwhile(discarded=True)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._serve(), name=f"{self._name}-{number}")

    def _due(self, key: _Key, lane: int) -> None:
        del self._later[key]
        self.add(key, lane)

    async def _serve(self) -> None:
        while True:
            found = self._waiting.take()
            if found is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            key, lane = found
            self._working[key] = _Meanwhile()
            failed = False
            again: float | None
            try:
                again = await self._work(key)
                self._failures.pop(key, None)
            except Exception as error:
                # Whatever went wrong with one key is that key's affair: it is said, and tried again.
                failed = True
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                again = min(self._initial_s * 2 ** min(failures - 1, 20), self._max_s)
                self._tell(key, again, error)
            finally:
                meanwhile = self._working.pop(key)
            self._go_on(key, lane, again, failed, meanwhile)

    def _go_on(self, key: _Key, lane: int, again: float | None, failed: bool, meanwhile: _Meanwhile) -> None:
        """Queue a key whose work has ended: by what came meanwhile, and by what its work asks for."""
        if not failed or meanwhile.discarded:
            self._since.pop(key, None)
        if meanwhile.discarded:
            # What its work asks for is of no interest any more, only what came after.
            again, failed = None, False
            self._failures.pop(key, None)
        if meanwhile.lane is not None and not failed:
            self.add(key, meanwhile.lane)
            return
        if again is not None:
            self.add_later(key, again, lane if meanwhile.lane is None else meanwhile.lane)
        if meanwhile.later is not None and not failed:
            due, later_lane = meanwhile.later
            self.add_later(key, due - asyncio.get_running_loop().time(), later_lane)

    def _tell(self, key: _Key, again_s: float, error: Exception) -> None:
        kind = (type(error), str(getattr(error, "kind", "")))
        now = asyncio.get_running_loop().time()
        told, silent = self._told.get(kind, (-_QUIET_S, 0))
        if now - told < _QUIET_S:
            self._told[kind] = (told, silent + 1)
            _log.debug("%s: %s failed, next try in %.1f s: %r", self._name, key, again_s, error)
            return
        self._told[kind] = (now, 0)
        more = f"; {silent} more failed so since this was last told" if silent else ""
        _log.warning("%s: %s failed, next try in %.1f s: %r%s", self._name, key, again_s, error, more)
