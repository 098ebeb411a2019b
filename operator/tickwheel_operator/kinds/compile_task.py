"""From a ScheduledTask to the engine's TaskSpec.

The watch calls it for each new generation of an object, `tickwheel dev` for each file. Calendars come later and change
on their own, so a spec is bound to their dates in a second step, as often as they do. Invariant: what comes out is
complete and valid for the engine; what cannot be compiled raises `InvalidManifest` with the field to mend.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import TypeVar, cast

import msgspec

from tickwheel_operator.api import FieldFault, ScheduledTask
from tickwheel_operator.api.delivery import Exponential, Fixed, Retry
from tickwheel_operator.api.faults import InvalidManifest
from tickwheel_operator.api.policies import Concurrency
from tickwheel_operator.api.text import Duration, Instant, Weekday
from tickwheel_operator.api.trigger import CalendarRule, DailyInterval, Once
from tickwheel_operator.api.trigger import Trigger as TriggerSpec
from tickwheel_operator.engine.cron import CronError, UnknownZoneError
from tickwheel_operator.engine.sources import ByClock, ByHand, Completion, FixedDelay, Outcome, Source
from tickwheel_operator.engine.spec import (
    Backoff,
    CalendarUse,
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
    DailyIntervalTrigger,
    FilteredTrigger,
    FixedRateTrigger,
    OnceTrigger,
    once_at,
)
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.engine.triggers.filters import ANSWERS, Filter, Search
from tickwheel_operator.engine.triggers.instants import is_instant, timestamp

__all__ = ["NeverFires", "bind_calendars", "compile_task"]

_Shared = TypeVar("_Shared", bound=Hashable)
_NO_PARAMETERS = b"{}"
_BY_HAND = TriggerSpec()
_WEEKDAYS = tuple(Weekday)
_LEAST_EVERY_MS = 10
_DAY_MS = 86_400_000
_PROOF_ANSWERS = 4 * ANSWERS
"""What it may cost to prove that a trigger never fires: enough to look at each day of forty years."""
_VERDICTS_KEPT = 4_096
_verdicts: dict[AnyTrigger | Filter, tuple[int, int | Search]] = {}
"""By a filtered trigger, or the filter of what follows a run: where the last search began, and what it found."""


class NeverFires(InvalidManifest):
    """The trigger is valid, and has no instant at all after the object's creation."""


def compile_task(task: ScheduledTask) -> TaskSpec:
    """The task as the engine wants it, but for the dates of its calendars: `bind_calendars` puts them in.

    Raises
    ------
    NeverFires
        The trigger has no instant after the object's creation.
    InvalidManifest
        A field cannot be compiled, or is what this version does not have.
    """
    metadata, spec = task.metadata, task.spec
    created_ms = Instant(metadata.creation_timestamp).milliseconds if metadata.creation_timestamp else 0
    identity = f"{metadata.namespace}/{metadata.name}"
    wanted = spec.trigger or _BY_HAND
    return TaskSpec(
        uid=metadata.uid,
        namespace=_same(metadata.namespace),
        name=metadata.name,
        generation=metadata.generation,
        created_ms=created_ms,
        source=_source(wanted, identity, created_ms),
        calendars=_calendars(wanted),
        jitter_ms=_read_ms(wanted.jitter),
        overlap=_same(_overlap(spec.concurrency)),
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
        grace_ms=_read_ms(spec.delivery.grace_period),
        retry=_same(RetryPolicy(limit=spec.retry.limit, backoff=_backoff(spec.retry))),
        keep_succeeded=spec.history.succeeded,
        keep_failed=spec.history.failed,
        task_metrics=spec.task_metrics,
    )


def bind_calendars(spec: TaskSpec, dates: Callable[[str], CalendarDates | None]) -> TaskSpec:
    """The same task with the dates of its calendars, whatever it was bound to before.

    Parameters
    ----------
    dates
        The calendar of a name in the task's namespace; None: there is none that can be used.

    Raises
    ------
    NeverFires
        The calendars leave no instant in forty years from the object's creation on. Where that cannot be told in
        reasonable time, the task is taken as it is.
    InvalidManifest
        A calendar is missing; the faults name each.
    """
    if not spec.calendars:
        return spec
    found = [dates(use.name) for use in spec.calendars]
    missing = [
        FieldFault(
            f"spec.trigger.calendars[{place}].name",
            f"there is no Calendar {use.name} in namespace {spec.namespace}, or it is stalled; create or mend it",
        )
        for place, (use, calendar) in enumerate(zip(spec.calendars, found, strict=True))
        if calendar is None
    ]
    if missing:
        raise InvalidManifest(missing)
    pairs = [(use.exclude, calendar) for use, calendar in zip(spec.calendars, found, strict=True) if calendar]
    admitted = _same(
        msgspec.structs.replace(
            spec.source.filter or Filter(),
            exclude=tuple(calendar for exclude, calendar in pairs if exclude),
            include=tuple(calendar for exclude, calendar in pairs if not exclude),
        )
    )
    source = spec.source.within(admitted)
    if not _fires(source, spec.created_ms):
        raise _never("spec.trigger.calendars", f"{source.describe()}: there is no instant", spec.created_ms)
    return msgspec.structs.replace(spec, source=source)


def _same(value: _Shared) -> _Shared:
    """One object for equal values: of 20,000 tasks most have the same pool and the same policies."""
    return cast("_Shared", _shared(value))


@lru_cache(maxsize=4096)
def _shared(value: Hashable) -> Hashable:
    return value


def _source(trigger: TriggerSpec, identity: str, created_ms: int) -> Source:
    """What starts its runs, within its window."""
    window = _window(trigger)
    if trigger.source is None:
        for field, value in (
            ("window", window),
            ("calendars", trigger.calendars),
            ("jitter", _read_ms(trigger.jitter)),
        ):
            if value:
                what = "has nothing to act on: set one of cron, fixedRate, ... beside it, or drop it"
                raise _fault(f"spec.trigger.{field}", what)
        return ByHand()
    always = _unfiltered(trigger, identity, created_ms)
    if not _fires(always, created_ms):
        raise _never(f"spec.trigger.{trigger.source[0]}", f"{always.describe()} has no instant", created_ms)
    source = always if window is None else always.within(window)
    if not _fires(source, created_ms):
        raise _never("spec.trigger.window", f"{source.describe()}: there is no instant", created_ms)
    return source


def _unfiltered(trigger: TriggerSpec, identity: str, created_ms: int) -> Source:
    zone_name = str(trigger.time_zone)
    match trigger.source:
        case ("cron", expression):
            # `H` alone depends on who the task is; without it equal expressions are one value.
            return ByClock(_cron(str(expression), zone_name, identity if "H" in expression.upper() else ""))
        case ("fixedRate", period):
            anchor_ms = created_ms if trigger.anchor is None else trigger.anchor.milliseconds
            return ByClock(FixedRateTrigger(period.milliseconds, anchor_ms))
        case ("fixedDelay", delay):
            return _same(FixedDelay(delay.milliseconds))
        case ("dailyInterval", daily):
            return ByClock(_daily_interval(daily, zone_name))
        case ("once", once):
            return ByClock(OnceTrigger(_at_ms(once, created_ms)))
        case ("completion", completion):
            return _same(Completion(str(completion.task), Outcome(completion.outcome.value)))
        case _:
            raise _fault("spec.trigger", "has a source that this version of Tickwheel does not have")


def _at_ms(once: Once, created_ms: int) -> int:
    if once.at is not None:
        return once.at.milliseconds
    at_ms = created_ms + _read_ms(once.after)
    if not is_instant(at_ms):
        raise _fault("spec.trigger.once.after", f"{once.after} after {timestamp(created_ms)} is past the year 9999")
    return at_ms


def _daily_interval(daily: DailyInterval, zone_name: str) -> DailyIntervalTrigger:
    every_ms = daily.every.milliseconds
    if not _LEAST_EVERY_MS <= every_ms <= _DAY_MS:
        raise _fault(
            "spec.trigger.dailyInterval.every",
            f"{daily.every} is not allowed: 10ms to 24h, such as 15m; the count begins anew each day, so for a longer "
            "period use fixedRate",
        )
    from_ms, to_ms = daily.from_.milliseconds, daily.to.milliseconds
    if from_ms == to_ms or from_ms - to_ms == _DAY_MS:
        what = f'{daily.to} is the same time of day as from; for the whole day write from: "00:00", to: "24:00"'
        raise _fault("spec.trigger.dailyInterval.to", what)
    days = sum(1 << _WEEKDAYS.index(day) for day in daily.days or _WEEKDAYS)
    try:
        return _same(DailyIntervalTrigger(every_ms, from_ms, to_ms, days, zone_name))
    except UnknownZoneError as error:
        raise _fault("spec.trigger.timeZone", str(error)) from error


def _window(trigger: TriggerSpec) -> Filter | None:
    window = trigger.window
    if window is None or (window.not_before is None and window.not_after is None):
        return None
    return Filter(
        not_before_ms=None if window.not_before is None else window.not_before.milliseconds,
        not_after_ms=None if window.not_after is None else window.not_after.milliseconds,
    )


def _calendars(trigger: TriggerSpec) -> tuple[CalendarUse, ...]:
    uses = (CalendarUse(str(use.name), use.rule is CalendarRule.EXCLUDE) for use in trigger.calendars)
    return _same(tuple(uses)) if trigger.calendars else ()


def _overlap(concurrency: Concurrency) -> Overlap:
    policy = OverlapPolicy(concurrency.policy.value)
    most = concurrency.max_concurrent
    if most is None and policy is not OverlapPolicy.ALLOW:
        most = 1
    if most is None and concurrency.key is not None:
        what = "has nothing to limit: set maxConcurrent beside it, or the policy Forbid, Replace or Queue, or drop it"
        raise _fault("spec.concurrency.key", what)
    return Overlap(
        policy=policy,
        max_concurrent=most,
        queue_limit=concurrency.queue_limit,
        key=None if concurrency.key is None else str(concurrency.key),
    )


def _fires(source: Source, created_ms: int) -> bool:
    """Whether there is an instant from the object's creation on, or one that the misfire policy decides about."""
    trigger, admitted = source.trigger, source.filter
    if trigger is not None and (at_ms := once_at(trigger)) is not None:
        return admitted is None or admitted.admits(at_ms)
    after_ms = created_ms - 1
    if admitted is None:
        return trigger is None or trigger.next_after(after_ms) is not None
    # Many tasks have the same calendars and the same schedule, and a search can take 100 ms: one serves them all.
    since_ms, verdict = _verdicts.get(trigger or admitted, (after_ms, None))
    match verdict:
        case Search.GAVE_UP:
            return True
        case Search.NEVER if after_ms >= since_ms:
            return False
        case int() if after_ms < verdict:
            return True
    if isinstance(trigger, FilteredTrigger):
        verdict = trigger.search(after_ms, _PROOF_ANSWERS)
    else:
        verdict = admitted.search(created_ms)
    if len(_verdicts) >= _VERDICTS_KEPT:
        _verdicts.clear()
    _verdicts[trigger or admitted] = (after_ms, verdict)
    return verdict is not Search.NEVER


@lru_cache(maxsize=4096)
def _cron(expression: str, zone_name: str, identity: str) -> CronTrigger:
    try:
        return CronTrigger(expression, zone_name, identity)
    except CronError as error:
        raise _fault("spec.trigger.cron", str(error)) from error
    except UnknownZoneError as error:
        raise _fault("spec.trigger.timeZone", str(error)) from error


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
    return None if duration is None else _read_ms(duration)


@lru_cache(maxsize=4096)
def _read_ms(duration: Duration) -> int:
    """Of 20,000 tasks most have the same few durations: reading one costs 2 us."""
    return duration.milliseconds


def _never(path: str, what: str, created_ms: int) -> NeverFires:
    created = timestamp(created_ms)
    return NeverFires([FieldFault(path, f"{what} after the object's creation at {created}, so it can never fire")])


def _fault(path: str, message: str) -> InvalidManifest:
    return InvalidManifest([FieldFault(path, message)])
