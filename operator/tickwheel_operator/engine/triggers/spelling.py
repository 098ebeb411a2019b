"""How durations and times of day are spelt for people, in what `describe` says."""

__all__ = ["spell_clock", "spell_duration"]


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
