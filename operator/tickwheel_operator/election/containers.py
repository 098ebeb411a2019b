"""What the states of a container in a pod's status say of processes that have ended.

kubelet writes them, by the clock of its node and in whole seconds, cut off. A process in the container reads the same
clock, so that its start tells it from one of a container before or after.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

__all__ = ["ended_before_ms"]


def ended_before_ms(state: Mapping[str, Any], last_state: Mapping[str, Any]) -> int:
    """Processes that began before this instant have ended: the start of the container that runs, or the end of the last
    one. A process that lived for less than a second may be missed, one that lives never. 0: they do not say."""
    if "running" in state and (started_ms := _milliseconds((state["running"] or {}).get("startedAt"))):
        return started_ms
    ends = (
        _milliseconds((each["terminated"] or {}).get("finishedAt"))
        for each in (state, last_state)
        if "terminated" in each
    )
    return max(ends, default=0)


def _milliseconds(time: object) -> int:
    try:
        return max(0, round(datetime.fromisoformat(str(time)).timestamp() * 1000)) if time else 0
    except (ValueError, OverflowError):
        return 0
