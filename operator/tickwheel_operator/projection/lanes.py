"""Which view is written first, and whose: what a person waits for goes first, and namespaces take turns.

Invariant: no kind of view and no namespace waits for another one to be done.
"""

from __future__ import annotations

from typing import TypeAlias

from tickwheel_operator.kinds import KINDS
from tickwheel_operator.kinds.objects import Objects
from tickwheel_operator.kinds.scheduledtask import SCHEDULED_TASK
from tickwheel_operator.kinds.seen import Seen
from tickwheel_operator.kinds.stored import Stored
from tickwheel_operator.kinds.taskrun import TASK_RUN

__all__ = [
    "CONDITIONS",
    "EXPIRED",
    "GENERATIONS",
    "HISTORY",
    "REQUESTS",
    "STATUSES",
    "VIEWS",
    "WEIGHTS",
    "Key",
    "lane_of",
    "subject",
]

Key: TypeAlias = tuple[str, str]
"""What is written, and a uid: the status of an object of this kind, or one of the two below."""
VIEWS = "views"
"""The TaskRun objects that show the runs of the task with the uid."""
EXPIRED = "expired"
"""The TaskRun with the uid is deleted."""
_ABOUT = {VIEWS: SCHEDULED_TASK.name, EXPIRED: TASK_RUN.name}

REQUESTS, GENERATIONS, CONDITIONS, STATUSES, HISTORY = range(5)
"""TaskRuns that users made; objects that were just applied, for whose observedGeneration health checks wait; conditions
that change; figures; runs as objects."""
WEIGHTS = (4, 4, 2, 1, 1)
"""Turns of each lane while all have something to write."""


def subject(key: Key, objects: Objects) -> Seen | None:
    """The object that the key is about; None: it is gone."""
    return objects.get(KINDS[_ABOUT.get(key[0], key[0])], key[1])


def lane_of(seen: Seen, stored: Stored, *, conditions: bool = False) -> int:
    """Of an object whose status differs from what is stored; `conditions`: in a condition too."""
    if seen.kind == TASK_RUN.name:
        return REQUESTS
    if stored.generation != seen.generation:
        return GENERATIONS
    return CONDITIONS if conditions else STATUSES
