"""The reconciler's requests to the API server, and what their answers mean.

Everything that is written is applied (server-side apply, one field manager, forced): fields of others stay theirs, and
what is as it should be is not written by the server. Answers stay plain JSON: the client's models would drop
fields that this version of it does not know. Invariant: each call has a time limit, and a refusal carries the server's
own words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient, AppsV1Api, CoreV1Api

from tickwheel_operator.pools.template import CA_CONFIG_MAP, CA_KEY, FIELD_MANAGER

__all__ = ["ClusterUnavailable", "PoolCluster", "Refused"]

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_PODS = 50
_EVENTS = 50
_NO_DEPLOYMENT = "failed to create typed patch object"
"""What the API server says, with a 500, to an unknown field, a wrong type or a key that stands twice."""


class ClusterUnavailable(Exception):
    """The API server did not answer, or cannot now. Try again."""


class Refused(Exception):
    """The API server understood and said no."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        """HTTP."""
        self.reason = reason
        """The API's word, such as `Invalid` or `Forbidden`."""
        self.message = message


class PoolCluster:
    """Deployments, pods and the CA's ConfigMap, through a client that is the caller's."""

    def __init__(self, client: ApiClient, *, timeout_s: float = 15.0) -> None:
        """`timeout_s` bounds each request."""
        self._apps = AppsV1Api(client)
        self._core = CoreV1Api(client)
        self._timeout_s = timeout_s

    async def apply(self, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        """Apply a Deployment; what became of it. With a `metadata.uid` only that very object is changed (else 409)."""
        metadata = manifest["metadata"]
        return await self._call(
            partial(
                self._apps.patch_namespaced_deployment_without_preload_content,
                metadata["name"], metadata["namespace"], dict(manifest),
                field_manager=FIELD_MANAGER, force=True, _content_type=_APPLY,
            )
        )  # fmt: skip

    async def read(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """The Deployment of that name; None: there is none."""
        try:
            return await self._call(
                partial(self._apps.read_namespaced_deployment_without_preload_content, name, namespace)
            )
        except Refused as error:
            if error.status == 404:
                return None
            raise

    async def delete(self, namespace: str, name: str, uid: str) -> None:
        """Delete that very Deployment, and its pods with it. One that is gone or another object is left."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._call(
                partial(self._apps.delete_namespaced_deployment_without_preload_content, name, namespace, body=body)  # type: ignore[arg-type]
            )
        except Refused as error:
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
        await self._call(
            partial(
                self._core.patch_namespaced_config_map_without_preload_content, CA_CONFIG_MAP, namespace, body,
                field_manager=FIELD_MANAGER, force=True, _content_type=_APPLY,
            )
        )  # fmt: skip

    async def pods(self, namespace: str, selector: str, *, most: int = _PODS) -> list[Mapping[str, Any]]:
        """Some pods that the selector chooses: by default enough to see what is wrong with them."""
        listed = await self._call(
            partial(
                self._core.list_namespaced_pod_without_preload_content,
                namespace,
                label_selector=selector,
                limit=most,
                resource_version="0",  # from the server's memory: a moment old is good enough
            )
        )
        items: list[Mapping[str, Any]] = listed.get("items") or []
        return items

    async def warnings(self, namespace: str, uid: str) -> list[Mapping[str, Any]]:
        """Some Warning Events of the object."""
        listed = await self._call(
            partial(
                self._core.list_namespaced_event_without_preload_content,
                namespace,
                field_selector=f"involvedObject.uid={uid},type=Warning",
                limit=_EVENTS,
            )
        )
        items: list[Mapping[str, Any]] = listed.get("items") or []
        return items

    async def annotate_pod(self, namespace: str, name: str, annotations: Mapping[str, str | None]) -> None:
        """Set annotations of a pod; None takes one away. A pod that is gone is left."""
        body = {"metadata": {"annotations": dict(annotations)}}
        try:
            await self._call(
                partial(
                    self._core.patch_namespaced_pod_without_preload_content, name, namespace, body,
                    field_manager=FIELD_MANAGER, _content_type=_MERGE,
                )
            )  # fmt: skip
        except Refused as error:
            if error.status != 404:
                raise

    async def _call(self, request: Callable[..., Awaitable[Any]]) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await request(_request_timeout=self._timeout_s)
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterUnavailable(f"the API server cannot be reached: {error!r}") from error
        try:
            answer: Mapping[str, Any] = msgspec.json.decode(body)
        except msgspec.MsgspecError:
            answer = {"message": body[:500].decode(errors="replace")}
        if 200 <= response.status < 300:
            return answer
        reason, message = str(answer.get("reason") or response.reason or ""), str(answer.get("message") or "")
        if _NO_DEPLOYMENT in message:
            raise Refused(422, "Invalid", message)
        if response.status in (401, 408, 429) or response.status >= 500:
            raise ClusterUnavailable(f"the API server answers {response.status} {reason}: {message}")
        raise Refused(response.status, reason, message)
