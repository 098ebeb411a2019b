"""Leases of `coordination.k8s.io/v1`: the election's store in a cluster.

Written as client-go writes them, so that other tools can read who leads (`kubectl get lease`). The operator's role
needs get, create, update and watch of leases in its own namespace.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import msgspec

from tickwheel_operator.election.lease import Lease, LeaseConflict, LeaseRefused, LeaseUnavailable
from tickwheel_operator.kube.client import Answer, KubeClient
from tickwheel_operator.kube.errors import ApiError, ApiUnanswered
from tickwheel_operator.kube.resources import LEASES

__all__ = ["KubernetesLeaseStore"]

_ENDPOINT = "tickwheel.io/endpoint"
_WATCH_S = 300


class _Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    resource_version: str = ""
    uid: str = ""
    annotations: dict[str, str] = {}


class _Spec(msgspec.Struct, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: datetime | None = None
    renew_time: datetime | None = None
    lease_transitions: int | None = None


class _Object(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec = msgspec.field(default_factory=_Spec)


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


_decoder = msgspec.json.Decoder(_Object)
_event_decoder = msgspec.json.Decoder(_Event)


class KubernetesLeaseStore:
    """A `LeaseStore` in one namespace. The client is the caller's: `close` leaves it open."""

    def __init__(self, client: KubeClient, *, namespace: str, timeout_s: float = 5.0) -> None:
        """`timeout_s` bounds a request; well below the renew deadline, so that a renewal can be tried twice."""
        self._client = client
        self._timeout_s = timeout_s
        self._namespace = namespace

    async def get(self, name: str) -> Lease | None:
        answer = await self._request("GET", self._path(name), f"get lease {name}")
        if answer.status == 404:
            return None
        return self._lease(answer, f"get lease {name}")

    async def create(self, name: str, lease: Lease) -> Lease:
        what = f"create lease {name}"
        answer = await self._request("POST", self._path(), what, _body(name, lease, version=""))
        return self._lease(answer, what)

    async def update(self, name: str, lease: Lease) -> Lease:
        what = f"update lease {name}"
        answer = await self._request("PUT", self._path(name), what, _body(name, lease, version=lease.version))
        if answer.status == 404:
            raise LeaseConflict(f"{what}: it is gone")
        return self._lease(answer, what)

    async def watch(self, name: str) -> AsyncGenerator[Lease | None, None]:
        query: dict[str, str | int] = {
            "watch": "1", "fieldSelector": f"metadata.name={name}", "timeoutSeconds": _WATCH_S,
        }  # fmt: skip
        lines = self._client.lines(self._path(), what=f"watch lease {name}", query=query, timeout_s=_WATCH_S + 30)
        try:
            async with contextlib.aclosing(lines):
                async for line in lines:
                    event = _event_decoder.decode(line)
                    if event.type == "DELETED":
                        yield None
                    elif event.type in ("ADDED", "MODIFIED"):
                        yield _from_object(_decoder.decode(event.object))
        except (ApiError, msgspec.MsgspecError) as error:
            raise LeaseUnavailable(str(error)) from error

    async def close(self) -> None:
        """Nothing of its own is open."""

    async def _request(self, method: str, path: str, what: str, body: dict[str, Any] | None = None) -> Answer:
        try:
            answer = await self._client.request(method, path, what=what, body=body, timeout_s=self._timeout_s)
            answer.raise_unanswered(what)
        except ApiUnanswered as error:
            raise LeaseUnavailable(str(error)) from error
        return answer

    def _path(self, name: str = "") -> str:
        return LEASES.path(self._namespace, name)

    def _lease(self, answer: Answer, what: str) -> Lease:
        if answer.ok:
            try:
                return _from_object(_decoder.decode(answer.body))
            except msgspec.MsgspecError as error:
                raise LeaseUnavailable(f"{what}: the API server's answer cannot be read: {error}") from error
        if answer.status == 409:
            raise LeaseConflict(f"{what}: {answer.message}")
        mend = ""
        if answer.status == 403:
            mend = (
                f"; grant the operator's ServiceAccount get, create, update and watch of leases.coordination.k8s.io "
                f"in namespace {self._namespace}"
            )
        raise LeaseRefused(f"{what}: the API server answers {answer.message}{mend}")


def _body(name: str, lease: Lease, *, version: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "annotations": {_ENDPOINT: lease.endpoint}}
    if version:
        # With the uid, since a PUT of a Lease that is gone creates it, whatever resourceVersion it names.
        metadata["resourceVersion"], metadata["uid"] = version.split("/", 1)
    return {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": metadata,
        "spec": {
            "holderIdentity": lease.holder,
            "leaseDurationSeconds": max(1, lease.duration_ms // 1000),
            "acquireTime": _micro_time(lease.acquired_ms),
            "renewTime": _micro_time(lease.renewed_ms),
            "leaseTransitions": lease.transitions,
        },
    }


def _micro_time(at_ms: int) -> str:
    """MicroTime wants six digits, always; `isoformat` leaves them out at a full second."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _from_object(found: _Object) -> Lease:
    spec = found.spec
    return Lease(
        holder=spec.holder_identity or "",
        duration_ms=(spec.lease_duration_seconds or 0) * 1000,
        acquired_ms=_milliseconds(spec.acquire_time),
        renewed_ms=_milliseconds(spec.renew_time),
        transitions=spec.lease_transitions or 0,
        endpoint=found.metadata.annotations.get(_ENDPOINT, ""),
        version=f"{found.metadata.resource_version}/{found.metadata.uid}",
    )


def _milliseconds(time: datetime | None) -> int:
    return round(time.timestamp() * 1000) if time else 0
