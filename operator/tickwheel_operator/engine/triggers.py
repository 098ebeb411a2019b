"""Triggers: when a task fires, as immutable values with one question, "what comes after this instant?".

Controllers build them from `spec.trigger`; the scheduler asks them for instants, the misfire rule for what
was missed. A trigger that depends on more than time (the end of a run, another task) is none of these: it
is an event that the engine handles. Instants are milliseconds since the Unix epoch, UTC.
Invariants: answers depend on the value alone; triggers with equal keys have equal instants, so that their
tasks share one timer; an answer never takes a walk over all missed instants.
"""

from collections.abc import Hashable
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec

from .cron import CronSchedule, parse, zone_named

__all__ = ["AnyTrigger", "CronTrigger", "FixedRateTrigger", "OnceTrigger", "Trigger", "spell_duration"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Trigger(Protocol):
    """What the engine asks of a trigger.

    Every answer is a pure function of the trigger and the arguments, and raises nothing.
    """

    def next_after(self, instant_ms: int) -> int | None:
        """Return the first instant strictly after `instant_ms`, or `None` if there is none."""

    def last_at_or_before(self, instant_ms: int, after_ms: int) -> int | None:
        """Return the last instant at or before `instant_ms` but after `after_ms`, or `None`."""

    def count_between(self, after_ms: int, until_ms: int, limit: int) -> int:
        """Return how many instants are after `after_ms`, up to and including `until_ms`; at most `limit`."""

    def key(self) -> Hashable:
        """Return a value that is equal for triggers with the same instants."""

    def describe(self) -> str:
        """Return one line for people."""


class CronTrigger(msgspec.Struct, frozen=True, tag_field="type", tag="cron"):
    """The instants of a cron expression in a time zone.

    Raises
    ------
    CronError
        The expression cannot be read. One that never fires can be built: its `next_after` is `None`.
    UnknownZoneError
        There is no such zone.
    """

    expression: str
    """5 or 6 fields, or a macro; the dialect is `engine.cron`'s."""
    zone_name: str = "UTC"
    """IANA name, such as `Asia/Shanghai`."""
    identity: str = ""
    """What `H` is a hash of: the task's namespace and name. Without an `H`, no matter."""

    def __post_init__(self) -> None:
        zone_named(self.zone_name)
        parse(self.expression, identity=self.identity)

    @property
    def schedule(self) -> CronSchedule:
        """The parsed expression; kept by `parse`, not by the value, which stays a plain record."""
        return parse(self.expression, identity=self.identity)

    def next_after(self, instant_ms: int) -> int | None:
        return self.schedule.next_after(instant_ms, zone_named(self.zone_name))

    def last_at_or_before(self, instant_ms: int, after_ms: int) -> int | None:
        latest = self.schedule.latest_until(instant_ms, zone_named(self.zone_name))
        return latest if latest is not None and latest > after_ms else None

    def count_between(self, after_ms: int, until_ms: int, limit: int) -> int:
        return min(limit, self.schedule.count(after_ms, until_ms, zone_named(self.zone_name)))

    def key(self) -> Hashable:
        return ("cron", self.schedule, self.zone_name)

    def describe(self) -> str:
        return f"cron {' '.join(self.expression.split())} ({self.zone_name})"


class FixedRateTrigger(msgspec.Struct, frozen=True, tag_field="type", tag="fixedRate"):
    """An instant every period: at the anchor, a period after it, and so on without drift."""

    period_ms: int
    """Milliseconds, 1 or more. (Users may ask for 10 ms and more; the resource's schema says so.)"""
    anchor_ms: int
    """The first instant."""

    def __post_init__(self) -> None:
        if self.period_ms < 1:
            raise ValueError(
                f"period_ms is {self.period_ms}; a period is 1 ms or more, for example 500 for half a second"
            )

    def next_after(self, instant_ms: int) -> int | None:
        return self.anchor_ms + self._begun_until(instant_ms) * self.period_ms

    def last_at_or_before(self, instant_ms: int, after_ms: int) -> int | None:
        latest = self.anchor_ms + (self._begun_until(instant_ms) - 1) * self.period_ms
        return latest if latest >= self.anchor_ms and latest > after_ms else None

    def count_between(self, after_ms: int, until_ms: int, limit: int) -> int:
        return max(0, min(limit, self._begun_until(until_ms) - self._begun_until(after_ms)))

    def key(self) -> Hashable:
        return ("fixedRate", self.period_ms, self.anchor_ms)

    def describe(self) -> str:
        return f"every {spell_duration(self.period_ms)} from {_timestamp(self.anchor_ms)}"

    def _begun_until(self, instant_ms: int) -> int:
        """Return how many instants there are at or before `instant_ms`."""
        return max(0, (instant_ms - self.anchor_ms) // self.period_ms + 1)


class OnceTrigger(msgspec.Struct, frozen=True, tag_field="type", tag="once"):
    """One instant."""

    at_ms: int

    def next_after(self, instant_ms: int) -> int | None:
        return self.at_ms if self.at_ms > instant_ms else None

    def last_at_or_before(self, instant_ms: int, after_ms: int) -> int | None:
        return self.at_ms if after_ms < self.at_ms <= instant_ms else None

    def count_between(self, after_ms: int, until_ms: int, limit: int) -> int:
        return min(limit, int(after_ms < self.at_ms <= until_ms))

    def key(self) -> Hashable:
        return ("once", self.at_ms)

    def describe(self) -> str:
        return f"once at {_timestamp(self.at_ms)}"


AnyTrigger = CronTrigger | FixedRateTrigger | OnceTrigger
"""The triggers that a codec can tell apart by their tag."""


def _timestamp(instant_ms: int) -> str:
    try:
        moment = _EPOCH + timedelta(milliseconds=instant_ms)
    except OverflowError:  # past the year 9999
        return f"{instant_ms} ms"
    precision = "milliseconds" if instant_ms % 1000 else "seconds"
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def spell_duration(milliseconds: int) -> str:
    """Return a duration as a user writes it: `500ms`, `1h30m`, `7d`."""
    text = ""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            text += f"{count}{unit}"
    return text
