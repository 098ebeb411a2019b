"""The tasks of a story, drawn from its chance: every trigger, policy and guarantee that the engine knows so far."""

from __future__ import annotations

import random

import msgspec
from tests.simulation.operators import POOL
from tests.simulation.record import EPOCH_MS

from tickwheel_operator.engine.spec import Backoff, Guarantee, Misfire, MisfirePolicy, RetryPolicy, TaskSpec
from tickwheel_operator.engine.triggers import AnyTrigger, CronTrigger, FixedRateTrigger, OnceTrigger

__all__ = ["draw_edit", "draw_task"]


def draw_task(chance: random.Random, number: int, name: str, now_ms: int) -> TaskSpec:
    """A new task. Those of one story often share a trigger, and then a timer."""
    return TaskSpec(
        uid=f"u{number}",
        namespace=POOL.namespace,
        name=name,
        generation=1,
        created_ms=now_ms,
        trigger=_draw_trigger(chance, now_ms),
        pool=POOL.name,
        handler="work",
        guarantee=Guarantee.AT_MOST_ONCE if chance.random() < 0.35 else Guarantee.AT_LEAST_ONCE,
        misfire=Misfire(
            policy=chance.choice(list(MisfirePolicy)),
            max_catch_up=chance.choice((1, 5, 100)),
            starting_deadline_ms=chance.choice((None, None, 700, 4_000)),
        ),
        retry=RetryPolicy(
            limit=chance.choice((0, 1, 5)),
            backoff=Backoff(initial_ms=chance.choice((1, 50, 400)), max_ms=1_000, jitter=chance.choice((0.0, 0.5))),
        ),
        dispatch_timeout_ms=chance.choice((None, None, None, 250, 1_500)),
        timeout_ms=chance.choice((None, None, 500)),
        grace_ms=300,
    )


def draw_edit(chance: random.Random, spec: TaskSpec, now_ms: int) -> TaskSpec:
    """The task as somebody has changed it."""
    generation = spec.generation + 1
    match chance.randrange(4):
        case 0 | 1:
            return msgspec.structs.replace(spec, suspend=not spec.suspend, generation=generation)
        case 2:
            return msgspec.structs.replace(spec, trigger=_draw_trigger(chance, now_ms), generation=generation)
        case _:
            return msgspec.structs.replace(spec, parameters=b'{"edited":true}', generation=generation)


def _draw_trigger(chance: random.Random, now_ms: int) -> AnyTrigger | None:
    match chance.randrange(6):
        case 0 | 1 | 2:
            return FixedRateTrigger(chance.choice((100, 250, 333, 1_000)), EPOCH_MS + 100 * chance.randrange(5))
        case 3:
            return CronTrigger(chance.choice(("* * * * * *", "*/2 * * * * *")), "Europe/Berlin")
        case 4:
            return OnceTrigger(now_ms + chance.randrange(6_000))
        case _:
            return None
