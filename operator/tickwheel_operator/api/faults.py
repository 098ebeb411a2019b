"""What is wrong with a manifest, in words for the person who wrote it.

`parse` raises these, `unsupported` lists them, the controllers put them into the `Stalled` condition and
`tickwheel lint` prints them. Invariant: a fault names the field as the user spells it
(`spec.trigger.cron`), says what is wrong and what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FieldFault", "InvalidManifest", "sentence", "shown"]


@dataclass(frozen=True, slots=True)
class FieldFault:
    """One thing to mend."""

    path: str
    """The field as the manifest spells it, such as `spec.alerts[0].channel`; empty for the whole document."""
    message: str
    """What is wrong, what is allowed, an example where it helps."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidManifest(ValueError):
    """The document is not a valid resource. `faults` has at least one entry, in the document's order."""

    def __init__(self, faults: Sequence[FieldFault]) -> None:
        self.faults: list[FieldFault] = list(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


def sentence(faults: Sequence[FieldFault], *, most: int = 10) -> str:
    """Join faults into the message of a condition; of more than `most` the rest is counted, not dropped unsaid."""
    text = "; ".join(str(fault) for fault in faults[:most])
    rest = len(faults) - most
    return f"{text}; and {rest} more" if rest > 0 else text


def shown(value: object) -> str:
    """A value of a manifest as JSON names it, cut short."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
