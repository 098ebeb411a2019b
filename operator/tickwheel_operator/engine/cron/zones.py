"""Where a time zone's offset changes.

`daylight` searches in local time by integer arithmetic; what it must know of a zone is the span of
instants in which the offset is constant, and the offset before it. The standard library does not tell
transitions, so they are found by bisection, a block of 97 days at a time, and kept: a block costs about
20 us once, and a schedule that skips years asks for the blocks it lands in only.
Invariant: a `Span` is pure data of the zone; nothing here depends on the current time.
"""

import re
from datetime import UTC, datetime, tzinfo
from difflib import get_close_matches
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from .errors import UnknownZoneError
from .zone_names import meant_by

FIRST_SECOND = int(datetime(1, 1, 3, tzinfo=UTC).timestamp())
LAST_SECOND = int(datetime(9999, 12, 29, tzinfo=UTC).timestamp())
"""Instants outside of these have no local date in some zone; searches end here."""

_BLOCK_BITS = 23
_PROBE_STEP_S = 3 * 86_400  # no zone ever kept an offset for less than 3.9 days (Freetown, 1939)
_BLOCKS_KEPT = 4_096
_MACHINES = ("localtime", "posixrules")
"""Files beside the zones: whatever the machine is set to. They, and the copies with and without leap seconds, can be
read and are no names of the IANA data."""
_COPIES = ("posix/", "right/")


class Span(NamedTuple):
    """Instants with one offset from UTC, in the timeline's unit since the Unix epoch.

    A span ends at a transition or, with the same offset on both sides, where a block ends.
    """

    start: int
    end: int
    """The first unit after the span."""
    offset: int
    """Local time minus UTC."""
    offset_before: int
    """The offset of the unit before `start`."""


class Timeline:
    """The spans of one zone, found when first asked for. Its numbers are units since the Unix epoch.

    Parameters
    ----------
    unit_ms
        Milliseconds of a unit: 1000, or 1 for local times that are finer than seconds.
    """

    __slots__ = ("_blocks", "_recent", "_scale", "_zone")

    def __init__(self, zone: tzinfo, unit_ms: int = 1000) -> None:
        self._zone = zone
        self._scale = 1000 // unit_ms
        self._blocks: dict[int, tuple[Span, ...]] = {}
        self._recent = Span(0, 0, 0, 0)

    def span_at(self, at: int) -> Span:
        """Return the span that holds the instant `at`."""
        recent = self._recent
        if recent[0] <= at < recent[1]:
            return recent
        number = at // self._scale >> _BLOCK_BITS
        spans = self._blocks.get(number)
        if spans is None:
            if len(self._blocks) >= _BLOCKS_KEPT:
                self._blocks.clear()
            spans = self._blocks[number] = self._spans_of(number)
        for span in spans:
            if at < span.end:
                break
        self._recent = span
        return span

    def _spans_of(self, number: int) -> tuple[Span, ...]:
        start = number << _BLOCK_BITS
        end = (number + 1) << _BLOCK_BITS
        spans: list[Span] = []
        before = self._offset(start - 1)
        offset = self._offset(start)
        known = start
        while known < end - 1:
            probe = min(known + _PROBE_STEP_S, end - 1)
            found = self._offset(probe)
            if found != offset:
                change = self._change_between(known, probe)
                spans.append(Span(start, change, offset, before))
                start, before, offset = change, offset, self._offset(change)
                probe = change
            known = probe
        spans.append(Span(start, end, offset, before))
        return tuple(Span(*(number * self._scale for number in span)) for span in spans)

    def _change_between(self, low: int, high: int) -> int:
        """Return the first second in (low, high] whose offset is not that of `low`."""
        offset = self._offset(low)
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle) == offset:
                low = middle
            else:
                high = middle
        return high

    def _offset(self, second: int) -> int:
        local = datetime.fromtimestamp(min(max(second, FIRST_SECOND), LAST_SECOND), self._zone)
        offset = local.utcoffset()
        if offset is None:  # only a tzinfo that breaks its own contract
            raise UnknownZoneError(f"the zone {self._zone!r} gives no offset from UTC")
        return offset.days * 86_400 + offset.seconds


@lru_cache(maxsize=1_024)
def timeline_of(zone: tzinfo, unit_ms: int = 1000) -> Timeline:
    """Return the timeline of `zone` in a unit, one for all the schedules that use it."""
    return Timeline(zone, unit_ms)


@lru_cache(maxsize=1_024)
def zone_named(name: str) -> ZoneInfo:
    """Return the zone of an IANA name such as `Asia/Shanghai`.

    Raises
    ------
    UnknownZoneError
        There is no such zone; the message names those that are spelt alike, if any.
    """
    try:
        if name in _MACHINES or name.startswith(_COPIES):
            raise ValueError(name)
        return ZoneInfo(str(name))  # plain text also where a subclass of it came: the zone keeps it as its key
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UnknownZoneError(f"{name!r} is not a time zone of the IANA data (case matters); {_hint(name)}") from error


_ALIKE = 0.75
"""How much of two names must be the same before one is taken for a misspelt other one."""
_OFFSET = re.compile(r"(?:etc/)?(?:utc|gmt|z)? ?([+-])([0-9]{1,2})(?::?([0-9]{2}))?", re.IGNORECASE)


@lru_cache(maxsize=256)
def _hint(name: str) -> str:
    if offset := _OFFSET.fullmatch(name.strip()):
        return _hint_for(offset)
    zones = {zone.casefold(): zone for zone in available_timezones().difference(_MACHINES)}
    wanted = name.strip().casefold().replace(" ", "_")
    if wanted in zones:
        return f"did you mean {zones[wanted]}?"
    if meant := meant_by(name):
        return meant
    # People misspell the city, or write it alone: compare with both. A few letters resemble anything.
    zones = {folded: zone for folded, zone in zones.items() if "/" in zone}
    cities = {folded.rpartition("/")[2]: zone for folded, zone in sorted(zones.items(), reverse=True)}
    near = [zones[found] for found in get_close_matches(wanted, zones, n=3, cutoff=_ALIKE)]
    near += [cities[found] for found in get_close_matches(wanted.rpartition("/")[2], cities, n=2, cutoff=_ALIKE)]
    return f"did you mean {' or '.join(dict.fromkeys(near[:3]))}?" if near else "for example Asia/Shanghai or UTC"


def _hint_for(offset: re.Match[str]) -> str:
    """Who writes an offset means hours ahead of UTC with a plus; in the IANA data that is a minus."""
    sign, hours, minutes = offset.groups()
    fixed = f"Etc/GMT{'-' if sign == '+' else '+'}{int(hours)}"
    if int(minutes or 0) == 0 and int(hours) and fixed in available_timezones():
        ahead = "ahead of" if sign == "+" else "behind"
        return f"it is an offset; {fixed} is {int(hours)} h {ahead} UTC (its sign is the other way round)"
    return "it is an offset, and zones are named after cities, for example Asia/Shanghai"
