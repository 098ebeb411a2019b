"""Why a pool's pods do not become ready, in the kubelet's and the scheduler's own words.

Pure: the reconciler asks when a Deployment does not settle. Invariant: only what a person can act upon is told; a pod
that is merely starting has no problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["pod_problem"]

_STARTING = frozenset({"", "ContainerCreating", "PodInitializing"})
_MESSAGE_CHARS = 1_000


def pod_problem(pods: Iterable[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Reason and message of the newest pod that has a problem; None: none has."""
    newest_first = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), reverse=True)
    for pod in newest_first:
        found = None if "deletionTimestamp" in pod["metadata"] else _of(pod.get("status") or {})
        if found is not None:
            reason, message = found
            return reason, f"pod {pod['metadata']['name']}: {message}"[:_MESSAGE_CHARS]
    return None


def _of(status: Mapping[str, Any]) -> tuple[str, str] | None:
    for field in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(field) or ():
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason", "") in _STARTING:
                continue
            ended = (container.get("lastState") or {}).get("terminated")
            words = str(waiting.get("message") or "")
            if ended:
                said = str(ended.get("message") or "").strip()
                words = f"it ended with {ended.get('exitCode')} ({ended.get('reason', '')})" + (
                    f": {said[-600:]}" if said else ""
                )
            return waiting["reason"], f"container {container['name']}: {waiting['reason']}: {words}"
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            reason = condition.get("reason") or "Unschedulable"
            return reason, f"{reason}: {condition.get('message', '')}"
    return None
