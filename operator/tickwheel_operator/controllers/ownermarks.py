"""The ConfigMaps that say who serves a namespace, and what their owners' Leases look like.

The operator's role allows it these ConfigMaps by name, also in lists, which choose them by a field selector. A mark is
applied by a field manager of the release, without force: where another release's is, the API server answers 409.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tickwheel_operator.kube.client import APPLY, KubeClient
from tickwheel_operator.kube.errors import ApiRefused
from tickwheel_operator.kube.resources import CONFIG_MAPS, LEASES

__all__ = ["OWNER_CONFIG_MAP", "Mark", "MarkTaken", "OwnerMarks"]

OWNER_CONFIG_MAP = "tickwheel-owner"
_OWNER = "release"
_HINT = "; grant the operator's account the rules of the chart"


class Mark(msgspec.Struct, frozen=True):
    """Who serves a namespace."""

    owner: str
    """The namespace of the release."""
    version: str
    """The ConfigMap's resourceVersion."""


class MarkTaken(Exception):
    """Another release has marked it, or the mark has changed since it was read."""


class OwnerMarks:
    """Reads and writes the marks. Raises `ApiError`."""

    def __init__(self, client: KubeClient, *, namespaces: tuple[str, ...], lease_name: str) -> None:
        """`namespaces` are those that this release sees; empty: all."""
        self._client = client
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
        query = {"fieldSelector": f"metadata.name={name}"}
        found: list[dict[str, Any]] = []
        for namespace in self._namespaces or ("",):
            what = f"list ConfigMaps {name} in {namespace or 'all namespaces'}"
            listed = await self._client.call("GET", CONFIG_MAPS.path(namespace), what=what, query=query, hint=_HINT)
            found += listed.get("items") or ()
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
        query = {"fieldManager": f"tickwheel-owner-{owner}", "force": "false" if replaces is None else "true"}
        try:
            made = await self._client.call(
                "PATCH", CONFIG_MAPS.path(namespace, OWNER_CONFIG_MAP), query=query, body=body, content_type=APPLY,
                what=f"apply ConfigMap {namespace}/{OWNER_CONFIG_MAP}", hint=_HINT,
            )  # fmt: skip
        except ApiRefused as error:
            if error.status == 409:
                raise MarkTaken(namespace) from error
            raise
        return Mark(owner, made["metadata"]["resourceVersion"])

    async def lease_version(self, owner: str) -> str | None:
        """The version of the owner's Lease, empty where there is none; None: this release may not read it."""
        try:
            what = f"read Lease {owner}/{self._lease_name}"
            found = await self._client.call("GET", LEASES.path(owner, self._lease_name), what=what)
        except ApiRefused as error:
            return "" if error.status == 404 else None
        return str(found["metadata"]["resourceVersion"])
