"""The tasks of the soak, and the instants at which they must fire, computed without the operator's code."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from croniter import croniter

__all__ = ["ACCOUNT", "POOL", "instants", "manifests"]

POOL = "soak"
ACCOUNT = "soak-worker"
_ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Pacific/Chatham")
_SECONDS = ("*", "*/2", "*/3", "*/7", "5-50/5", "1,2,3,5,8,13,21,34,45,55", "0/10", "10-20,40-50", "2-59/19", "*/13")
"""Each has an instant at least every 20 s, so that a short run has some of every task."""


def manifests(namespace: str, *, rate_tasks: int, cron_tasks: int, silence: str = "5s") -> list[dict[str, Any]]:
    """The workers' account, the pool, then the tasks. Every fourth has attempts that last half a second."""
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": namespace}},
        {
            "apiVersion": "tickwheel.io/v1alpha1",
            "kind": "WorkerPool",
            "metadata": {"name": POOL, "namespace": namespace},
            "spec": {"slots": 32, "silence": silence, "access": {"serviceAccounts": [ACCOUNT]}},
        },
    ]
    for number in range(rate_tasks):
        objects.append(_task(namespace, f"rate-{number}", {"fixedRate": "1s"}, number))
    for number in range(cron_tasks):
        cron = f"{_SECONDS[number % len(_SECONDS)]} * * * * *"
        zone = _ZONES[number // len(_SECONDS) % len(_ZONES)]
        objects.append(_task(namespace, f"cron-{number}", {"cron": cron, "timeZone": zone}, number))
    return objects


def _task(namespace: str, name: str, trigger: dict[str, str], number: int) -> dict[str, Any]:
    return {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "ScheduledTask",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "trigger": trigger,
            "pool": POOL,
            "handler": "slow" if number % 4 == 0 else "quick",
            "misfire": {"policy": "FireAll", "maxCatchUp": 100},
            "delivery": {"guarantee": "AtLeastOnce"},
            "retry": {"limit": 20, "backoff": {"fixed": {"delay": "1s"}}},
        },
    }


def instants(task: dict[str, Any], until_ms: int) -> set[int]:
    """All instants of a task after its creation, up to and with `until_ms`."""
    created_ms = round(datetime.fromisoformat(task["metadata"]["creationTimestamp"]).timestamp() * 1000)
    trigger = task["spec"]["trigger"]
    if "fixedRate" in trigger:
        # The anchor is the creation; that instant itself is settled by it.
        return set(range(created_ms + 1000, until_ms + 1, 1000))
    assert "cron" in trigger, trigger
    zone = ZoneInfo(trigger["timeZone"])
    start = datetime.fromtimestamp(created_ms / 1000, UTC).astimezone(zone)
    found = set()
    for moment in croniter(trigger["cron"], start, second_at_beginning=True).all_next(datetime):
        at_ms = math.floor(moment.timestamp() * 1000)
        if at_ms > until_ms:
            break
        found.add(at_ms)
    return found
