"""From custom resources to the engine's values: a ScheduledTask becomes a TaskSpec, a WorkerPool a PoolSpec.

The watch calls it for each new generation of an object, `tickwheel dev` for each file. Invariant: what comes out is
complete and valid for the engine; what cannot be compiled raises `InvalidManifest` with the field to mend.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from typing import TypeVar, cast

import msgspec

from tickwheel_operator.api import FieldFault, ScheduledTask, WorkerPool
from tickwheel_operator.api.delivery import Exponential, Fixed, Retry
from tickwheel_operator.api.faults import InvalidManifest
from tickwheel_operator.api.text import Duration, Instant
from tickwheel_operator.api.trigger import Trigger as TriggerSpec
from tickwheel_operator.engine.cron import CronError, UnknownZoneError
from tickwheel_operator.engine.spec import (
    Backoff,
    Guarantee,
    Misfire,
    MisfirePolicy,
    PoolSpec,
    RetryPolicy,
    TaskSpec,
)
from tickwheel_operator.engine.triggers import AnyTrigger, CronTrigger, FixedRateTrigger, OnceTrigger

__all__ = ["compile_pool", "compile_task"]

_Shared = TypeVar("_Shared", bound=Hashable)
_NO_PARAMETERS = b"{}"


def compile_task(task: ScheduledTask) -> TaskSpec:
    """The task as the engine wants it.

    Raises
    ------
    InvalidManifest
        The trigger can never fire, or uses what this version does not have.
    """
    metadata, spec = task.metadata, task.spec
    created_ms = Instant(metadata.creation_timestamp).milliseconds if metadata.creation_timestamp else 0
    identity = f"{metadata.namespace}/{metadata.name}"
    return TaskSpec(
        uid=metadata.uid,
        namespace=_same(metadata.namespace),
        name=metadata.name,
        generation=metadata.generation,
        created_ms=created_ms,
        trigger=None if spec.trigger is None else _trigger(spec.trigger, identity, created_ms),
        suspend=spec.suspend,
        pool=_same(str(spec.pool)),
        handler=_same(str(spec.handler)),
        parameters=msgspec.json.encode(spec.parameters) if spec.parameters else _NO_PARAMETERS,
        misfire=_same(
            Misfire(
                policy=MisfirePolicy(spec.misfire.policy.value),
                starting_deadline_ms=_ms(spec.misfire.starting_deadline),
                max_catch_up=spec.misfire.max_catch_up,
            )
        ),
        guarantee=_guarantee(spec.delivery.guarantee.value),
        dispatch_timeout_ms=_ms(spec.delivery.dispatch_timeout),
        timeout_ms=_ms(spec.delivery.timeout),
        grace_ms=spec.delivery.grace_period.milliseconds,
        retry=_same(RetryPolicy(limit=spec.retry.limit, backoff=_backoff(spec.retry))),
        keep_succeeded=spec.history.succeeded,
        keep_failed=spec.history.failed,
    )


def compile_pool(pool: WorkerPool) -> PoolSpec:
    """The pool as the engine wants it."""
    return PoolSpec(
        namespace=pool.metadata.namespace, name=pool.metadata.name, silence_ms=pool.spec.silence.milliseconds
    )


def _same(value: _Shared) -> _Shared:
    """One object for equal values: of 20,000 tasks most have the same pool and the same policies."""
    return cast("_Shared", _shared(value))


@lru_cache(maxsize=4096)
def _shared(value: Hashable) -> Hashable:
    return value


def _trigger(trigger: TriggerSpec, identity: str, created_ms: int) -> AnyTrigger | None:
    source = trigger.source
    if source is None:
        return None
    field = source[0]
    if trigger.cron is not None:
        # `H` alone depends on who the task is; without it equal expressions are one value.
        return _cron(str(trigger.cron), str(trigger.time_zone), identity if "H" in trigger.cron.upper() else "")
    if trigger.fixed_rate is not None:
        anchor_ms = created_ms if trigger.anchor is None else trigger.anchor.milliseconds
        return FixedRateTrigger(trigger.fixed_rate.milliseconds, anchor_ms)
    if trigger.once is not None:
        if trigger.once.at is not None:
            return OnceTrigger(trigger.once.at.milliseconds)
        return OnceTrigger(created_ms + (_ms(trigger.once.after) or 0))
    raise _fault(f"spec.trigger.{field}", "is not supported by this version of Tickwheel; use cron, fixedRate or once")


@lru_cache(maxsize=4096)
def _cron(expression: str, zone_name: str, identity: str) -> CronTrigger:
    try:
        trigger = CronTrigger(expression, zone_name, identity)
    except CronError as error:
        raise _fault("spec.trigger.cron", str(error)) from error
    except UnknownZoneError as error:
        raise _fault("spec.trigger.timeZone", str(error)) from error
    if trigger.next_after(0) is None:
        raise _fault("spec.trigger.cron", f"{expression!r} can never fire: no date matches all of its fields")
    return trigger


def _backoff(retry: Retry) -> Backoff:
    match retry.effective_backoff:
        case Exponential() as backoff:
            return Backoff(
                initial_ms=backoff.initial.milliseconds,
                factor=backoff.factor,
                max_ms=backoff.max.milliseconds,
                jitter=backoff.jitter.fraction,
            )
        case Fixed() as backoff:
            delay_ms = backoff.delay.milliseconds
            return Backoff(initial_ms=delay_ms, factor=1.0, max_ms=delay_ms)
        case _:
            raise _fault("spec.retry.backoff.levels", "is not supported by this version of Tickwheel; use exponential")


def _guarantee(word: str) -> Guarantee:
    try:
        return Guarantee(word)
    except ValueError:
        allowed = " or ".join(guarantee.value for guarantee in Guarantee)
        raise _fault(
            "spec.delivery.guarantee", f"{word} is not supported by this version of Tickwheel; use {allowed}"
        ) from None


def _ms(duration: Duration | None) -> int | None:
    return None if duration is None else duration.milliseconds


def _fault(path: str, message: str) -> InvalidManifest:
    return InvalidManifest([FieldFault(path, message)])
