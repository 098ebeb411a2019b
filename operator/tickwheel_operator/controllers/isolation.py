"""Tasks that the engine failed at: what the next terms of this process make of them.

An exception of the engine ends the term (`runtime.leadership`), and would end the next one at once where the same task
meets it again. So the catalog stalls the task, for this generation of its object: the first time it is disarmed, and
its open runs wait; the second time they are ended, by facts, before anything else is decided. Each replica learns by
itself: a fault ends two terms of each at most, three where ending the runs fails too. To edit the object, or to
restart the operator, tries again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tickwheel_operator.engine.messages import Command, TaskAbandoned, TaskRemoved
from tickwheel_operator.kinds.seen import Fault

__all__ = ["Isolation"]

_ENDS_RUNS = 2
"""At this strike its runs are ended; if the engine fails at that too, they are left alone."""


class _Isolated(NamedTuple):
    generation: int | None
    """Of the object; None: it was deleted."""
    strikes: int
    fault: Fault


class Isolation:
    """By uid. Kept for the life of the process."""

    def __init__(self) -> None:
        self._of: dict[str, _Isolated] = {}

    def strike(self, uid: str, generation: int | None, fault: Fault) -> None:
        """The engine failed at the task once more."""
        before = self._of.get(uid)
        strikes = 1
        if before is not None and generation in (before.generation, None):
            strikes += before.strikes
        self._of[uid] = _Isolated(generation, strikes, fault)

    def fault(self, uid: str, generation: int) -> Fault | None:
        """Why the task is not armed; None: it may be."""
        isolated = self._of.get(uid)
        return isolated.fault if isolated is not None and isolated.generation == generation else None

    def commands(self, generations: dict[str, int]) -> Iterator[Command]:
        """What a new engine is told before it hears of the catalog. `generations`: of the objects that exist."""
        for uid, isolated in self._of.items():
            generation = generations.get(uid)
            if generation is not None and generation != isolated.generation:
                continue  # edited since
            if isolated.strikes == _ENDS_RUNS:
                yield TaskAbandoned(uid=uid, why=isolated.fault.message)
            yield TaskRemoved(uid=uid, forget=False)
