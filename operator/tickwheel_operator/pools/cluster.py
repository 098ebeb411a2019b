"""The reconciler's requests to the API server.

Everything that is written is applied (server-side apply, one field manager, forced): fields of others stay theirs, and
what is as it should be is not written by the server. Invariant: each call has a time limit; what the API server says to
a template that it cannot read is a no, though it calls it an error of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tickwheel_operator.kube.client import APPLY, MERGE_PATCH, KubeClient
from tickwheel_operator.kube.errors import ApiRefused
from tickwheel_operator.kube.resources import CONFIG_MAPS, DEPLOYMENTS, EVENTS, PODS
from tickwheel_operator.pools.template import CA_CONFIG_MAP, CA_KEY, FIELD_MANAGER

__all__ = ["PoolCluster"]

_APPLIED = {"fieldManager": FIELD_MANAGER, "force": "true"}
_PODS = 50
_EVENTS = 50
_NO_DEPLOYMENT = "failed to create typed patch object"
"""What the API server says, with a 500, to an unknown field, a wrong type or a key that stands twice."""
_OTHER_UID = "metadata.uid: Invalid value"
"""What it says, with a 422, where another object has the name; where none has, it says 409."""


class PoolCluster:
    """Deployments, pods and the CA's ConfigMap. Each call raises `ApiError`."""

    def __init__(self, client: KubeClient, *, timeout_s: float = 15.0) -> None:
        """`timeout_s` bounds each request."""
        self._client = client
        self._timeout_s = timeout_s

    async def apply(self, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        """Apply a Deployment; what became of it. With a `metadata.uid` only that very object is changed (else 409)."""
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        what = f"apply Deployment {namespace}/{name}"
        answer = await self._client.request(
            "PATCH", DEPLOYMENTS.path(namespace, name), what=what, query=_APPLIED, body=manifest,
            content_type=APPLY, timeout_s=self._timeout_s,
        )  # fmt: skip
        if not answer.ok:
            refusal = answer.refusal(what)
            if _NO_DEPLOYMENT in refusal.message:
                raise ApiRefused(str(refusal), status=422, reason="Invalid", message=refusal.message)
            if _OTHER_UID in refusal.message:
                raise ApiRefused(str(refusal), status=409, reason="Conflict", message=refusal.message)
        answer.check(what)
        return answer.object(what)

    async def read(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """The Deployment of that name; None: there is none."""
        try:
            return await self._call("GET", DEPLOYMENTS.path(namespace, name), f"read Deployment {namespace}/{name}")
        except ApiRefused as error:
            if error.status == 404:
                return None
            raise

    async def delete(self, namespace: str, name: str, uid: str) -> None:
        """Delete that very Deployment, and its pods with it. One that is gone or another object is left."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        what = f"delete Deployment {namespace}/{name}"
        try:
            await self._call("DELETE", DEPLOYMENTS.path(namespace, name), what, body=body)
        except ApiRefused as error:
            if error.status not in (404, 409):
                raise

    async def apply_ca(self, namespace: str, bundle: str) -> None:
        """Put the authority of the gateway's certificate where the pods of the namespace mount it from."""
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": CA_CONFIG_MAP,
                "namespace": namespace,
                "labels": {"app.kubernetes.io/managed-by": "tickwheel"},
            },
            "data": {CA_KEY: bundle},
        }
        path = CONFIG_MAPS.path(namespace, CA_CONFIG_MAP)
        what = f"apply ConfigMap {namespace}/{CA_CONFIG_MAP}"
        await self._call("PATCH", path, what, query=_APPLIED, body=body, content_type=APPLY)

    async def pods(self, namespace: str, selector: str, *, most: int = _PODS) -> list[Mapping[str, Any]]:
        """Some pods that the selector chooses: by default enough to see what is wrong with them."""
        # From the server's memory: a moment old is good enough.
        query = {"labelSelector": selector, "limit": most, "resourceVersion": "0"}
        listed = await self._call("GET", PODS.path(namespace), f"list the pods in {namespace}", query=query)
        items: list[Mapping[str, Any]] = listed.get("items") or []
        return items

    async def warnings(self, namespace: str, uid: str) -> list[Mapping[str, Any]]:
        """Some Warning Events of the object."""
        query = {"fieldSelector": f"involvedObject.uid={uid},type=Warning", "limit": _EVENTS}
        listed = await self._call("GET", EVENTS.path(namespace), f"list the Events in {namespace}", query=query)
        items: list[Mapping[str, Any]] = listed.get("items") or []
        return items

    async def annotate_pod(self, namespace: str, name: str, annotations: Mapping[str, str | None]) -> None:
        """Set annotations of a pod; None takes one away. A pod that is gone is left."""
        body = {"metadata": {"annotations": dict(annotations)}}
        query = {"fieldManager": FIELD_MANAGER}
        what = f"annotate Pod {namespace}/{name}"
        try:
            await self._call(
                "PATCH", PODS.path(namespace, name), what, query=query, body=body, content_type=MERGE_PATCH
            )
        except ApiRefused as error:
            if error.status != 404:
                raise

    async def _call(self, method: str, path: str, what: str, **options: Any) -> dict[str, Any]:
        return await self._client.call(method, path, what=what, timeout_s=self._timeout_s, **options)
