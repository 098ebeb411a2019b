"""From a status as it should be to the patch that makes it so: what differs, and since when.

Invariant: a section without a difference is not written; a condition whose status did not change keeps its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tickwheel_operator.kinds import KINDS
from tickwheel_operator.kinds.stored import Stored

__all__ = ["changes", "conditions_differ", "with_transition_times"]


def changes(kind: str, status: Mapping[str, Any], stored: Stored) -> dict[str, Any]:
    """The fields to write: of each section that `status` speaks of and that differs. Empty: nothing does."""
    of, result = KINDS[kind], dict[str, Any]()
    for section, wanted, had in zip(of.sections, of.digests(status), stored.digests, strict=False):
        if wanted != had and any(name in status for name in section):
            result |= {name: status.get(name) for name in section}
    return result


def conditions_differ(status: Mapping[str, Any], stored: Stored) -> bool:
    """Whether a condition would change its status: what people wait for."""
    return any(stored.transition_time(c["type"], c["status"]) is None for c in status.get("conditions") or ())


def with_transition_times(status: Mapping[str, Any], now: str, stored: Stored | None = None) -> dict[str, Any]:
    """The same, with the lastTransitionTime of each condition: `now` for one whose status changes."""
    if not status.get("conditions"):
        return dict(status)
    conditions = []
    for condition in status["conditions"]:
        since = stored.transition_time(condition["type"], condition["status"]) if stored is not None else None
        conditions.append({**condition, "lastTransitionTime": since or now})
    return {**status, "conditions": conditions}
