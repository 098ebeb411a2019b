"""The other replicas' pods: a leader whose container has ended is replaced without waiting for its Lease to expire.

The operator runs it beside the elector. kubelet reports the end of a container within about a second; the Lease would
say it in fifteen. Invariant: only an end that kubelet saw counts. A pod that was deleted by force, or whose node is
silent, may still have a running process: for it the Lease decides, as without this watch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from tickwheel_operator.election.containers import ended_before_ms
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.kube.errors import ApiError
from tickwheel_operator.kube.resources import PODS

__all__ = ["CONTAINER", "Peers"]

_log = logging.getLogger(__name__)

CONTAINER = "operator"
"""The container of the pod that is the replica; others may end as they like."""
_WATCH_S = 300
_PAUSE_S = 2.0


class _Metadata(msgspec.Struct):
    name: str = ""
    uid: str = ""


class _Container(msgspec.Struct, rename="camel"):
    name: str
    state: dict[str, dict[str, Any]] = {}
    last_state: dict[str, dict[str, Any]] = {}


class _Status(msgspec.Struct, rename="camel"):
    container_statuses: list[_Container] = []


class _Pod(msgspec.Struct):
    metadata: _Metadata
    status: _Status = msgspec.field(default_factory=_Status)


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


_event_decoder = msgspec.json.Decoder(_Event)
_pod_decoder = msgspec.json.Decoder(_Pod)


class Peers:
    """Watches the pods of one Deployment in one namespace. Needs `watch` of pods there."""

    def __init__(
        self, client: KubeClient, *, namespace: str, selector: str, on_end: Callable[[str, int], None]
    ) -> None:
        """`on_end` is called once for each end of a pod's container that was not known before: with the pod's name, and
        the instant of its node's clock before which processes of it had begun that have ended now."""
        self._client = client
        self._path = PODS.path(namespace)
        self._selector = selector
        self._on_end = on_end
        self._ends: dict[str, frozenset[str]] = {}
        """Pod uid to the ended containers that are known."""

    async def run(self) -> None:
        """Watch until cancelled. Where it cannot, the Lease alone decides, as it says once."""
        complained = False
        while True:
            try:
                await self._watch()
                complained = False
            except (ApiError, msgspec.MsgspecError) as error:
                if not complained:
                    _log.warning("the other replicas' pods cannot be watched; a dead leader's Lease expires: %s", error)
                complained = True
            await asyncio.sleep(_PAUSE_S)

    async def _watch(self) -> None:
        query: dict[str, str | int] = {"watch": "1", "labelSelector": self._selector, "timeoutSeconds": _WATCH_S}
        lines = self._client.lines(self._path, what="watch the replicas", query=query, timeout_s=_WATCH_S + 30)
        async with contextlib.aclosing(lines):
            async for line in lines:
                event = _event_decoder.decode(line)
                if event.type in ("ADDED", "MODIFIED", "DELETED"):
                    self._seen(_pod_decoder.decode(event.object), gone=event.type == "DELETED")

    def _seen(self, pod: _Pod, *, gone: bool) -> None:
        containers = [c for c in pod.status.container_statuses if c.name == CONTAINER]
        ends = frozenset(
            state["terminated"].get("containerID", "")
            for container in containers
            for state in (container.state, container.last_state)
            if "terminated" in state
        )
        known = self._ends.get(pod.metadata.uid)
        if known is not None and not ends <= known:
            before_ms = max(ended_before_ms(container.state, container.last_state) for container in containers)
            if before_ms:
                self._on_end(pod.metadata.name, before_ms)
        if gone:
            self._ends.pop(pod.metadata.uid, None)
        else:
            self._ends[pod.metadata.uid] = ends
