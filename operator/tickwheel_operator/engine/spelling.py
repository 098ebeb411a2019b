"""How instants and durations are spelt for people: in what `describe` says, and so in the fingerprints of schedules.

Invariant: the spelling never changes, or every schedule would seem edited after an upgrade.
"""

from datetime import UTC, datetime, timedelta

__all__ = ["spell_clock", "spell_duration", "spell_instant"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def spell_instant(instant_ms: int) -> str:
    """Return an instant as RFC 3339 in UTC, with milliseconds where it has any."""
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


def spell_clock(milliseconds: int) -> str:
    """Return a time of day as a user writes it: `08:00`, `18:30:15`, `24:00`."""
    minutes, rest = divmod(milliseconds, 60_000)
    text = f"{minutes // 60:02d}:{minutes % 60:02d}"
    return f"{text}:{rest / 1000:06.3f}".removesuffix(".000") if rest else text
