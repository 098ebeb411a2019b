"""Why a pool's pods do not become ready, in the words of kubelet, scheduler and gateway, and what to do about it.

Pure: `progress` asks when a Deployment does not settle, and brings the Events of a pod that says nothing itself.
Invariant: only what a person can act upon is told; a pod that is merely starting has no problem.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from tickwheel_operator import reasons
from tickwheel_operator.pools.template import worker_index

__all__ = ["Refusal", "creating", "event_problem", "pod_problem", "unregistered"]

Pod = Mapping[str, Any]
Refusal = Callable[[Collection[str]], tuple[str, str] | None]
"""From a pod's addresses to the reason and the words with which the gateway refused it of late; None: it did not."""

_STARTING = frozenset({"", "ContainerCreating", "PodInitializing"})
_MESSAGE_CHARS = 1_000
_SAID_CHARS = 600
_IMAGE = "check the name of the image, and imagePullSecrets where its registry asks for them"
_MISSING = "create what it names, or fix the pool's template"
_ADVICE = {
    "CreateContainerConfigError": _MISSING,
    "CreateContainerError": _MISSING,
    "ErrImageNeverPull": _IMAGE,
    "ErrImagePull": _IMAGE,
    "FailedMount": _MISSING,
    "ImagePullBackOff": _IMAGE,
    "InvalidImageName": _IMAGE,
    "OOMKilled": "raise resources.limits.memory of the container, or lower spec.slots",
    "Unschedulable": "check resources.requests, nodeSelector and tolerations against the nodes",
}
_NOISE = frozenset({"BackOff", "Unhealthy"})
"""Events that tell of what the containers' states say better."""


def pod_problem(pods: Iterable[Pod], refused: Refusal = lambda addresses: None) -> tuple[str, str] | None:
    """Reason and message of the newest pod that has a problem; None: none has."""
    for pod in _newest_first(pods):
        found = _of_status(pod) or _of_gateway(pod, refused) or _of_ended(pod)
        if found is not None:
            return _told(pod, *found)
    return None


def creating(pods: Iterable[Pod]) -> Pod | None:
    """The newest pod whose containers are being created: only its Events say what that waits for."""
    for pod in _newest_first(pods):
        if not _is_ready(pod) and any(
            _state(container, "waiting").get("reason") in _STARTING - {""} for container in _containers(pod)
        ):
            return pod
    return None


def event_problem(pod: Pod, events: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """What the newest Warning of a pod says."""
    warnings = [event for event in events if event.get("type") == "Warning" and event.get("reason") not in _NOISE]
    if not warnings:
        return None
    newest = max(warnings, key=_time)
    return _told(pod, str(newest.get("reason") or "Warning"), str(newest.get("message") or ""))


def unregistered(pods: Iterable[Pod], connected: Collection[str]) -> tuple[str, str] | None:
    """Of the newest pod that runs and is not ready, or is not among the `connected` workers: what it waits for."""
    for pod in _newest_first(pods):
        ready = _is_ready(pod)
        name, namespace = pod["metadata"]["name"], pod["metadata"].get("namespace", "")
        containers = (pod.get("spec") or {}).get("containers") or [{"name": "worker"}]
        worker = str(containers[worker_index(containers)].get("name"))
        logs = f"kubectl logs -n {namespace} {name} -c"
        waiting = [container["name"] for container in _containers(pod) if not container.get("ready")]
        if name not in connected and (ready or worker in waiting) and _runs(pod, worker):
            return _told(
                pod,
                reasons.WORKERS_NOT_CONNECTED if ready else reasons.WORKER_NOT_REGISTERED,
                f"container {worker} runs, and its worker is not registered at the gateway: it still loads its "
                f"handlers, or does not reach the gateway (NetworkPolicy, DNS); see {logs} {worker}",
            )
        if not ready and waiting and all(_runs(pod, container) for container in waiting):
            return _told(
                pod,
                reasons.CONTAINERS_NOT_READY,
                f"container {waiting[0]} runs, and its probes fail; see {logs} {waiting[0]}",
            )
    return None


def _newest_first(pods: Iterable[Pod]) -> list[Pod]:
    """Those that are not on their way out."""
    staying = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    return sorted(staying, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), reverse=True)


def _told(pod: Pod, reason: str, words: str) -> tuple[str, str]:
    advice = _ADVICE.get(reason, "")
    message = f"pod {pod['metadata']['name']}: {words}"[:_MESSAGE_CHARS]
    return reason, f"{message}; {advice}" if advice else message


def _of_status(pod: Pod) -> tuple[str, str] | None:
    """What a container waits for, or why the pod has no place."""
    for container in _containers(pod):
        waiting = _state(container, "waiting")
        reason = str(waiting.get("reason") or "")
        if reason in _STARTING:
            continue
        ended = (container.get("lastState") or {}).get("terminated")
        words = _ended(pod, container, ended) if ended else str(waiting.get("message") or "")
        if ended and ended.get("reason") == "OOMKilled":
            reason = "OOMKilled"
        return reason, f"container {container['name']}: {reason}: {words}"
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            reason = condition.get("reason") or "Unschedulable"
            return reason, f"{reason}: {condition.get('message', '')}"
    return None


def _of_gateway(pod: Pod, refused: Refusal) -> tuple[str, str] | None:
    status = pod.get("status") or {}
    addresses = {str(entry.get("ip")) for entry in status.get("podIPs") or ()} | {str(status.get("podIP") or "")}
    found = refused(addresses - {""})
    if found is None:
        return None
    reason, words = found
    return reason, f"the gateway refuses its worker: {reason}: {words}; see docs/security.md"


def _of_ended(pod: Pod) -> tuple[str, str] | None:
    """A container that has just ended, or that runs again after it ended: between two looks it may never wait."""
    if _is_ready(pod):
        return None
    inits = {id(container) for container in (pod.get("status") or {}).get("initContainerStatuses") or ()}
    for container in _containers(pod):
        now = _state(container, "terminated")
        if id(container) in inits and now.get("exitCode") == 0:
            continue  # it has done its work
        ended = now or (container.get("lastState") or {}).get("terminated")
        if ended and not container.get("ready"):
            reason = "OOMKilled" if ended.get("reason") == "OOMKilled" else reasons.CONTAINER_ENDED
            return reason, f"container {container['name']}: {_ended(pod, container, ended)}"
    return None


def _ended(pod: Pod, container: Mapping[str, Any], ended: Mapping[str, Any]) -> str:
    """How it ended, what it said last, and where more stands."""
    said = str(ended.get("message") or "").strip()
    times = container.get("restartCount") or 0
    words = f"it ended with {ended.get('exitCode')} ({ended.get('reason', '')})"
    words += f", {times} {'restart' if times == 1 else 'restarts'} so far" if times else ""
    if said:
        return f"{words}: {said[-_SAID_CHARS:]}"
    metadata = pod["metadata"]
    where = f"-n {metadata.get('namespace', '')} {metadata['name']} -c {container['name']}"
    return f"{words}; see kubectl logs {where} --previous"


def _containers(pod: Pod) -> list[Mapping[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _state(container: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return (container.get("state") or {}).get(kind) or {}


def _runs(pod: Pod, name: str) -> bool:
    return any(
        container["name"] == name and "running" in (container.get("state") or {}) for container in _containers(pod)
    )


def _is_ready(pod: Pod) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _time(event: Mapping[str, Any]) -> str:
    series = event.get("series") or {}
    return max(str(series.get("lastObservedTime") or ""), str(event.get("lastTimestamp") or event.get("eventTime")))
