"""What the API server has of a status, as a few bytes: so that nothing is written when nothing differs.

The watch calls `read_status` for every object that it sees; the projector compares what it would write. A status is
divided into sections with a digest each, since a stalled task's conditions are written without knowing its counters.
Invariant: the digest of what is written equals the digest of what the API server gives back for it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

__all__ = ["CONDITIONS_ONLY", "NOTHING", "Sections", "Stored", "digests", "read_status"]

Sections: TypeAlias = tuple[tuple[str, ...], ...]
"""The fields of a kind's status that the operator writes, by section."""
CONDITIONS_ONLY: Sections = (("observedGeneration", "conditions"),)


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A status as it is stored. About 300 bytes."""

    digests: tuple[int, ...]
    since: tuple[tuple[str, str, str], ...] = ()
    """Type, status and lastTransitionTime of each condition, since an unchanged one keeps its time."""
    stalled: str = ""
    """The reason of the Stalled condition, where it is True."""
    ready: str = ""
    """The reason of the Ready condition."""
    skips: tuple[tuple[str, int], ...] = ()
    """Of a task: how many instants made no run, by reason."""
    generation: int = 0
    """The generation that the conditions speak of."""

    def transition_time(self, kind: str, status: str) -> str | None:
        """Since when the condition has this status; None: it has another one, or there is none."""
        return next((time for name, value, time in self.since if name == kind and value == status), None)

    def merged(self, sections: Sections, patch: Mapping[str, Any]) -> Stored:
        """After `patch`, which speaks of whole sections, was written."""
        after = read_status(sections, patch)
        return Stored(
            tuple(
                new if any(name in patch for name in section) else old
                for section, new, old in zip(sections, after.digests, self.digests, strict=False)
            ),
            after.since if "conditions" in patch else self.since,
            after.stalled if "conditions" in patch else self.stalled,
            after.ready if "conditions" in patch else self.ready,
            after.skips if "skips" in patch else self.skips,
            after.generation if "conditions" in patch else self.generation,
        )


def read_status(sections: Sections, status: Mapping[str, Any]) -> Stored:
    """Of the `status` of an object that the API server gave."""
    conditions = status.get("conditions") or ()
    return Stored(
        digests(sections, status),
        tuple(
            (sys.intern(str(c.get("type"))), sys.intern(str(c.get("status"))), str(c.get("lastTransitionTime")))
            for c in conditions
        ),
        next((sys.intern(str(c.get("reason"))) for c in conditions if _is_stalled(c)), ""),
        next((sys.intern(str(c.get("reason"))) for c in conditions if c.get("type") == "Ready"), ""),
        tuple((sys.intern(str(skip.get("reason"))), skip.get("count") or 0) for skip in status.get("skips") or ()),
        int(status.get("observedGeneration") or 0),
    )


def _is_stalled(condition: Mapping[str, Any]) -> bool:
    return condition.get("type") == "Stalled" and condition.get("status") == "True"


def digests(sections: Sections, status: Mapping[str, Any]) -> tuple[int, ...]:
    """One number for each section; 0 for one that is empty. `lastTransitionTime` does not count."""
    return tuple(_digest({name: status.get(name) for name in section}) for section in sections)


def _digest(section: Mapping[str, Any]) -> int:
    present = {name: _plain(value) for name, value in section.items() if value is not None and value != []}
    if not present:
        return 0
    if "conditions" in present:
        present["conditions"] = sorted(
            (
                {name: value for name, value in condition.items() if name != "lastTransitionTime"}
                for condition in present["conditions"]
            ),
            key=lambda condition: str(condition.get("type")),
        )
    text = json.dumps(present, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest())


def _plain(value: Any) -> Any:
    """As the API server gives it back: it writes 1.0 as 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


NOTHING = Stored((0, 0, 0))
"""Of an object without a status."""
