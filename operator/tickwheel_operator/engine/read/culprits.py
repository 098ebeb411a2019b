"""Which tasks the engine was deciding for when it raised.

An exception half-way through a command ends the leader's term, since its state is no longer the fold of its facts. The
next leader would often meet the same again at once (the same task, the same timer), so the host must know which task
to leave alone. Nothing on the engine's paths keeps note of that: the frames that the exception passed through still
hold the task, run or command at hand, so it costs nothing while all is well, and covers whatever is added.
([Why](docs/decisions/011-a-task-that-the-engine-fails-at.md).)
"""

from __future__ import annotations

from collections.abc import Callable

from tickwheel_operator.engine.messages import CancelRun, StartBackfill, Submit, TaskApplied, TaskRemoved
from tickwheel_operator.engine.model.identity import uid_of
from tickwheel_operator.engine.model.runs import Dispatch, Run, TaskState
from tickwheel_operator.engine.schedule.groups import Entry, Group
from tickwheel_operator.engine.schedule.starters import Delay
from tickwheel_operator.engine.spec import TaskSpec

__all__ = ["culprits"]

_UidOf = Callable[[str, str], str | None]


def culprits(error: BaseException, uid_named: _UidOf) -> tuple[str, ...]:
    """Return the uids of the tasks at hand, from the innermost frame that knows any; empty: none does.

    More than one only where they share the trigger that failed. `uid_named` finds a task by namespace and name.
    """
    frames, step = [], error.__traceback__
    while step is not None:
        frames.append(step.tb_frame)
        step = step.tb_next
    for frame in reversed(frames):
        for value in frame.f_locals.values():
            if found := _uids(value, uid_named):
                return found
    return ()


def _uids(value: object, uid_named: _UidOf) -> tuple[str, ...]:
    match value:
        case TaskState() | TaskSpec() | TaskRemoved():
            return (value.uid,)
        case Entry() | TaskApplied():
            return (value.spec.uid,)
        case Run():
            return (value.task.uid,)
        case Dispatch():
            return (value.run.task.uid,)
        case Delay():
            return (value.entry.spec.uid,)
        case Group():
            return tuple(entry.spec.uid for entry in value.entries)
        case CancelRun():
            return (uid_of(value.run_id),)
        case Submit() | StartBackfill():
            uid = uid_named(value.namespace, value.name)
            return () if uid is None else (uid,)
        case _:
            return ()
