"""Deployments in memory, as far as the reconciler can tell. Passes the contract test of the real ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from tickwheel_operator.kube.errors import ApiRefused
from tickwheel_operator.pools.cluster import PoolCluster
from tickwheel_operator.pools.template import FIELD_MANAGER

__all__ = ["MemoryCluster", "refused"]

Key = tuple[str, str]


def refused(status: int, reason: str, message: str) -> ApiRefused:
    return ApiRefused(f"{status} {reason}: {message}", status=status, reason=reason, message=message)


class MemoryCluster(PoolCluster):
    """What the API server would store, and every request that was made."""

    def __init__(self) -> None:
        self.stored: dict[Key, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.refusal: Exception | None = None
        """What each apply of a Deployment raises."""
        self.authorities: dict[str, str] = {}
        self.pod_objects: list[Mapping[str, Any]] = []
        self.events: list[Mapping[str, Any]] = []
        self._uids = 0

    def applied(self) -> int:
        return self.calls.count("apply")

    async def apply(self, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        self.calls.append("apply")
        if self.refusal is not None:
            raise self.refusal
        metadata = manifest["metadata"]
        key = (metadata["namespace"], metadata["name"])
        live = self.stored.get(key)
        if "uid" in metadata and (live is None or live["metadata"]["uid"] != metadata["uid"]):
            raise refused(409, "Conflict", "the uid is another")
        self._uids += 1
        made = copy.deepcopy(dict(manifest))
        made["metadata"] |= {
            "uid": live["metadata"]["uid"] if live is not None else f"d-{self._uids}",
            "generation": 1 if live is None else live["metadata"]["generation"] + (live["spec"] != manifest["spec"]),
            "managedFields": [{"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {}}}],
        }
        if live is not None:
            made["status"] = live.get("status", {})
        self.stored[key] = made
        return made

    async def read(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        self.calls.append("read")
        return self.stored.get((namespace, name))

    async def delete(self, namespace: str, name: str, uid: str) -> None:
        self.calls.append("delete")
        live = self.stored.get((namespace, name))
        if live is not None and live["metadata"]["uid"] == uid:
            del self.stored[namespace, name]

    async def apply_ca(self, namespace: str, bundle: str) -> None:
        self.calls.append("apply-ca")
        self.authorities[namespace] = bundle

    async def pods(self, namespace: str, selector: str) -> list[Mapping[str, Any]]:
        self.calls.append("pods")
        return self.pod_objects

    async def warnings(self, namespace: str, uid: str) -> list[Mapping[str, Any]]:
        self.calls.append("warnings")
        return [event for event in self.events if event["involvedObject"]["uid"] == uid]
