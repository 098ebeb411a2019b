"""Objects of the cluster for single commands: read one, make one, and say in plain words why not.

Invariant: what the API server refuses becomes a `click.ClickException` that names the object and what to do; only that
an object is not there, or is there already, is left to the caller.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import click
import msgspec

from tickwheel_operator.api import GROUP, Resource
from tickwheel_operator.cli.options import Cluster
from tickwheel_operator.cli.serving import warn_unless_served
from tickwheel_operator.kube.client import Answer, KubeClient
from tickwheel_operator.kube.resources import OURS

__all__ = ["AlreadyThere", "NotThere", "Objects", "objects_of"]


class NotThere(Exception):
    """There is no such object."""


class AlreadyThere(Exception):
    """An object of this name exists."""


class Objects:
    """The objects of one namespace."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    async def get(self, kind: type[Resource], name: str) -> dict[str, Any]:
        """The object as it is stored. Raises `NotThere`, `ApiUnanswered`."""
        what = f"{kind.kind_name()} {name} in namespace {self.namespace}"
        path = OURS[kind.kind_name()].path(self.namespace, name)
        answer = await self._client.request("GET", path, what=f"get {what}")
        if answer.ok:
            return answer.object(f"get {what}")
        if answer.status == 404 and answer.reason == "NotFound":
            raise NotThere(what)
        raise _refused(answer, "get", kind, what)

    async def create(self, kind: type[Resource], body: dict[str, Any]) -> dict[str, Any]:
        """The object as it is stored. Raises `AlreadyThere`, `ApiUnanswered`."""
        what = f"{kind.kind_name()} {body['metadata']['name']} in namespace {self.namespace}"
        path = OURS[kind.kind_name()].path(self.namespace)
        answer = await self._client.request("POST", path, what=f"create {what}", body=body)
        if answer.ok:
            return answer.object(f"create {what}")
        if answer.status == 409 and answer.reason == "AlreadyExists":
            raise AlreadyThere(what)
        raise _refused(answer, "create", kind, what)


@asynccontextmanager
async def objects_of(cluster: Cluster) -> AsyncIterator[Objects]:
    """The objects of the namespace that the options name, for the time of a command."""
    async with cluster.client() as client:
        await warn_unless_served(client)
        yield Objects(client, cluster.namespace or cluster.context_namespace())


class _Details(msgspec.Struct):
    name: str = ""


class _Said(msgspec.Struct):
    """The `Status` object of an answer."""

    message: str = ""
    details: _Details | None = None


def _said(answer: Answer) -> _Said:
    try:
        return msgspec.json.decode(answer.body, type=_Said)
    except msgspec.MsgspecError:
        return _Said()


def _refused(answer: Answer, verb: str, kind: type[Resource], what: str) -> click.ClickException:
    said = _said(answer)
    plural = f"{kind.presentation.plural}.{GROUP}"
    if answer.status == 401:
        return click.ClickException("the API server does not accept these credentials; sign in again, as for kubectl")
    if answer.status == 403:
        return click.ClickException(
            f"you may not {verb} {what}: {said.message}; ask for a Role with the verb {verb} on {plural}"
        )
    if answer.status == 404 and not (said.details and said.details.name):
        return click.ClickException(
            f"this API server has no {plural}; install Tickwheel there (docs/install.md), or name another cluster with "
            "--context or --kubeconfig"
        )
    return click.ClickException(f"the API server refused to {verb} {what}: {said.message or answer.message}")
