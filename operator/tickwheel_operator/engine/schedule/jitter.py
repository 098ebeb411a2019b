"""When a run of a schedule starts: its instant, and a share of the task's jitter, the same on every leader.

`engine.dispatch.waiting` asks it for each run, `tickwheel next` for what it shows.
Invariant: the runs of a task start in the order of their instants, each before the next instant is due.
"""

from __future__ import annotations

from tickwheel_operator.engine.model.identity import jitter_ms
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.engine.triggers import Trigger

__all__ = ["jittered_start_ms", "shortest_gap_ms"]

_LOOKED_AT = 100


def jittered_start_ms(spec: TaskSpec, scheduled_ms: int, made_ms: int, misfire_threshold_ms: int) -> int:
    """Return when the run of an instant starts that was made at `made_ms`, by the wall clock.

    What was missed is made late, after downtime, with that of other tasks: then the jitter counts from there. All that
    a task makes up for at one moment starts together, in order.
    """
    since_ms = made_ms if made_ms - scheduled_ms > misfire_threshold_ms else scheduled_ms
    most_ms = spec.jitter_ms
    trigger = spec.trigger if most_ms else None
    following = None if trigger is None else trigger.next_after(since_ms)
    if following is not None:
        most_ms = min(most_ms, following - since_ms - 1)
    return since_ms + jitter_ms(spec.uid, since_ms, most_ms)


def shortest_gap_ms(trigger: Trigger, after_ms: int) -> int | None:
    """Return the shortest time between two of the next hundred instants, for people; None: there are not two."""
    shortest: int | None = None
    instant = trigger.next_after(after_ms)
    for _ in range(_LOOKED_AT):
        following = None if instant is None else trigger.next_after(instant)
        if instant is None or following is None:
            break
        shortest = following - instant if shortest is None else min(shortest, following - instant)
        instant = following
    return shortest
