"""Triggers that fire by a cron expression."""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

from tickwheel_operator.engine.cron import CronSchedule, normal_text, parse, zone_named

__all__ = ["CronTrigger"]


class CronTrigger(msgspec.Struct, frozen=True, array_like=True, tag="cron"):
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

    def normal(self) -> CronTrigger:
        return CronTrigger(normal_text(self.expression, self.identity), self.zone_name)

    def describe(self) -> str:
        return f"cron {' '.join(self.expression.split())} ({self.zone_name})"
