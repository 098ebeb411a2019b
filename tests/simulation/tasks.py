"""The tasks of a story, drawn from its chance: every trigger, policy and guarantee that the engine knows."""

from __future__ import annotations

import random
from datetime import date

import msgspec
from tests.simulation.operators import POOL
from tests.simulation.record import EPOCH_MS

from tickwheel_operator.engine.sources import ByClock, ByHand, Completion, FixedDelay, Outcome, Source
from tickwheel_operator.engine.spec import (
    Backoff,
    Guarantee,
    Misfire,
    MisfirePolicy,
    Overlap,
    OverlapPolicy,
    RetryPolicy,
    TaskSpec,
)
from tickwheel_operator.engine.triggers import (
    AnyTrigger,
    CronTrigger,
    FilteredTrigger,
    FixedRateTrigger,
    OnceTrigger,
    Trigger,
)
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.engine.triggers.filters import Filter

__all__ = ["base_of", "draw_calendar", "draw_edit", "draw_task", "unsettled_since"]

_FREE = CalendarDates("holidays")
_CLOSED = CalendarDates("holidays", dates=[(date(2023, 11, 1), date(2023, 12, 31))])
"""All of a story is in it."""


def draw_task(chance: random.Random, number: int, name: str, now_ms: int) -> TaskSpec:
    """A new task. Those of one story often share a trigger, and then a timer."""
    source = _draw_source(chance, now_ms)
    if chance.random() < 0.3:
        source = _draw_after(chance, name)
        source = source.within(chance.choice((None, None, Filter(exclude=(_FREE,)), Filter(exclude=(_CLOSED,)))))
    elif source.trigger is not None and chance.random() < 0.2:
        source = source.within(Filter(exclude=(_FREE,)))
    return TaskSpec(
        source=source,
        jitter_ms=chance.choice((0, 0, 0, 120)),
        overlap=_draw_overlap(chance),
        parameters=b'{"customer":"%s"}' % chance.choice((b"a", b"b")),
        uid=f"u{number}",
        namespace=POOL.namespace,
        name=name,
        generation=1,
        created_ms=now_ms,
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
    match chance.randrange(5):
        case 4:
            # A group of several tasks keeps its limit.
            overlap = spec.overlap if spec.overlap.key is not None else _draw_overlap(chance, keyed=False)
            jitter_ms = chance.choice((0, 120))
            return msgspec.structs.replace(spec, overlap=overlap, jitter_ms=jitter_ms, generation=generation)
        case 0 | 1:
            return msgspec.structs.replace(spec, suspend=not spec.suspend, generation=generation)
        case 2 if isinstance(spec.source, ByClock | ByHand):
            return msgspec.structs.replace(spec, source=_draw_source(chance, now_ms), generation=generation)
        case _:
            return msgspec.structs.replace(spec, handler="work", keep_succeeded=generation % 5, generation=generation)


def draw_calendar(spec: TaskSpec) -> TaskSpec:
    """The task as it is when its calendar has changed: of the same generation, and told as before."""
    admitted = spec.source.filter
    return spec if admitted is None else msgspec.structs.replace(spec, source=spec.source.within(_other(admitted)))


def _other(calendars: Filter) -> Filter:
    return Filter(exclude=(_CLOSED if calendars.exclude == (_FREE,) else _FREE,))


def _draw_after(chance: random.Random, name: str) -> FixedDelay | Completion:
    """A delay, or the end of another task's runs: of one that may follow one itself."""
    earlier = int(name[1:])  # Circles are refused.
    if not earlier or chance.random() < 0.4:
        return FixedDelay(chance.choice((100, 400, 1_000)))
    return Completion(f"t{chance.randrange(earlier)}", chance.choice(list(Outcome)))


def _draw_overlap(chance: random.Random, *, keyed: bool = True) -> Overlap:
    policy = chance.choice((None, None, *OverlapPolicy))
    if policy is None:
        return Overlap()
    key = "/customer" if keyed and chance.random() < 0.3 else None
    return Overlap(
        policy=policy,
        # Tasks that are counted together have one limit.
        max_concurrent=2 if key is not None else chance.choice((1, 1, 2)),
        queue_limit=chance.choice((1, 3, 100)),
        key=key,
    )


def base_of(trigger: Trigger) -> Trigger:
    """The trigger without its calendars."""
    return trigger.base if isinstance(trigger, FilteredTrigger) else trigger


def unsettled_since(trigger: Trigger, created_ms: int) -> int:
    """From when on, exclusive, something must become of the instants of a new task's trigger: its creation; a `once`
    may have passed by then."""
    base = base_of(trigger)
    return min(created_ms, base.at_ms - 1) if isinstance(base, OnceTrigger) else created_ms


def _draw_source(chance: random.Random, now_ms: int) -> Source:
    trigger = _draw_trigger(chance, now_ms)
    return ByHand() if trigger is None else ByClock(trigger)


def _draw_trigger(chance: random.Random, now_ms: int) -> AnyTrigger | None:
    match chance.randrange(6):
        case 0 | 1 | 2:
            return FixedRateTrigger(chance.choice((100, 250, 333, 1_000)), EPOCH_MS + 100 * chance.randrange(5))
        case 3:
            return CronTrigger(chance.choice(("* * * * * *", "*/2 * * * * *")), "Europe/Berlin")
        case 4:
            return OnceTrigger(now_ms - 2_000 + chance.randrange(6_000))
        case _:
            return None
