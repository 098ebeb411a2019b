"""The ConfigMaps that say who serves a namespace, and what their owners' Leases look like.

The operator's role allows it these ConfigMaps by name, also in lists, which choose them by a field selector. A mark is
applied by a field manager of the release, without force: where another release's is, the API server answers 409.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient, CoordinationV1Api, CoreV1Api

from tickwheel_operator.workqueue import WorkFailed

__all__ = ["OWNER_CONFIG_MAP", "Mark", "MarkTaken", "OwnerMarks"]

OWNER_CONFIG_MAP = "tickwheel-owner"
_OWNER = "release"
_APPLY = "application/apply-patch+yaml"
_TIMEOUT_S = 15.0


class Mark(msgspec.Struct, frozen=True):
    """Who serves a namespace."""

    owner: str
    """The namespace of the release."""
    version: str
    """The ConfigMap's resourceVersion."""


class MarkTaken(Exception):
    """Another release has marked it, or the mark has changed since it was read."""


class OwnerMarks:
    """Reads and writes the marks. Raises `WorkFailed` where the API server cannot be asked."""

    def __init__(self, client: ApiClient, *, namespaces: tuple[str, ...], lease_name: str) -> None:
        """`namespaces` are those that this release sees; empty: all."""
        self._core = CoreV1Api(client)
        self._leases = CoordinationV1Api(client)
        self._namespaces = namespaces
        self._lease_name = lease_name

    async def read(self) -> dict[str, Mark]:
        """All marks, by namespace."""
        return {
            item["metadata"]["namespace"]: Mark(
                (item.get("data") or {}).get(_OWNER, ""), item["metadata"]["resourceVersion"]
            )
            for item in await self.config_maps(OWNER_CONFIG_MAP)
        }

    async def config_maps(self, name: str) -> list[dict[str, Any]]:
        """The ConfigMaps of this name in the namespaces that this release sees."""
        selector = f"metadata.name={name}"
        found: list[dict[str, Any]] = []
        for namespace in self._namespaces or ("",):
            if namespace:
                request = partial(self._core.list_namespaced_config_map_without_preload_content, namespace)
            else:
                request = partial(self._core.list_config_map_for_all_namespaces_without_preload_content)
            status, body = await self._ask(partial(request, field_selector=selector))
            if status != 200:
                raise _failed(f"list ConfigMaps {name} in {namespace or 'all namespaces'}", status, body)
            found += body.get("items") or ()
        return found

    async def claim(self, namespace: str, owner: str, *, replaces: Mark | None) -> Mark:
        """Mark it, or take it over from the mark that was read. Raises `MarkTaken`."""
        metadata: dict[str, Any] = {
            "name": OWNER_CONFIG_MAP,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "tickwheel"},
        }
        if replaces is not None:
            metadata["resourceVersion"] = replaces.version
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {_OWNER: owner}}
        status, answer = await self._ask(
            partial(
                self._core.patch_namespaced_config_map_without_preload_content, OWNER_CONFIG_MAP, namespace, body,
                field_manager=f"tickwheel-owner-{owner}", force=replaces is not None, _content_type=_APPLY,
            )
        )  # fmt: skip
        if status == 409:
            raise MarkTaken(namespace)
        if status not in (200, 201):
            raise _failed(f"apply ConfigMap {namespace}/{OWNER_CONFIG_MAP}", status, answer)
        return Mark(owner, answer["metadata"]["resourceVersion"])

    async def lease_version(self, owner: str) -> str | None:
        """The version of the owner's Lease, empty where there is none; None: this release may not read it."""
        status, body = await self._ask(
            partial(self._leases.read_namespaced_lease_without_preload_content, self._lease_name, owner)
        )
        if status == 404:
            return ""
        return str(body["metadata"]["resourceVersion"]) if status == 200 else None

    async def _ask(self, request: Callable[..., Awaitable[Any]]) -> tuple[int, dict[str, Any]]:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                response = await request(_request_timeout=_TIMEOUT_S)
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise WorkFailed(f"the API server cannot be reached: {error!r}", kind="unreachable") from error
        try:
            return int(response.status), msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.MsgspecError:
            return int(response.status), {"message": body[:300].decode(errors="replace")}


def _failed(what: str, status: int, body: dict[str, Any]) -> WorkFailed:
    hint = "; grant the operator's account the rules of the chart" if status == 403 else ""
    return WorkFailed(f"{what}: {status}: {body.get('message')}{hint}", kind=f"marks {status}")
