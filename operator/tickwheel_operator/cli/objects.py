"""Objects of the cluster for single commands: read one, make one, and say in plain words why not.

Invariant: what the API server refuses becomes a `click.ClickException` that names the object and what to do; only that
an object is not there, or is there already, is left to the caller.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import click
from kubernetes.aio.client import ApiException, CustomObjectsApi

from tickwheel_operator.api import GROUP, VERSION, Resource
from tickwheel_operator.cli.options import Cluster
from tickwheel_operator.cli.serving import warn_unless_served

__all__ = ["AlreadyThere", "NotThere", "Objects", "objects_of"]

_ANSWER_WITHIN_S = 30


class NotThere(Exception):
    """There is no such object."""


class AlreadyThere(Exception):
    """An object of this name exists."""


class Objects:
    """The objects of one namespace."""

    def __init__(self, api: CustomObjectsApi, namespace: str) -> None:
        self._api = api
        self.namespace = namespace

    async def get(self, kind: type[Resource], name: str) -> dict[str, Any]:
        """The object as it is stored. Raises `NotThere`."""
        try:
            found = await self._api.get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, kind.presentation.plural, name, _request_timeout=_ANSWER_WITHIN_S
            )
            return cast("dict[str, Any]", found)
        except ApiException as error:
            if error.status == 404 and _said(error).get("reason") == "NotFound":
                raise NotThere(f"{kind.kind_name()} {name} in namespace {self.namespace}") from error
            raise _refused(error, "get", kind, name, self.namespace) from error

    async def create(self, kind: type[Resource], body: dict[str, Any]) -> dict[str, Any]:
        """The object as it is stored. Raises `AlreadyThere`."""
        name = body["metadata"]["name"]
        try:
            made = await self._api.create_namespaced_custom_object(
                GROUP, VERSION, self.namespace, kind.presentation.plural, body, _request_timeout=_ANSWER_WITHIN_S
            )
            return cast("dict[str, Any]", made)
        except ApiException as error:
            if error.status == 409 and _said(error).get("reason") == "AlreadyExists":
                raise AlreadyThere(f"{kind.kind_name()} {name} in namespace {self.namespace}") from error
            raise _refused(error, "create", kind, name, self.namespace) from error


@asynccontextmanager
async def objects_of(cluster: Cluster) -> AsyncIterator[Objects]:
    """The objects of the namespace that the options name, for the time of a command."""
    async with cluster.client() as client:
        await warn_unless_served(client)
        try:
            yield Objects(CustomObjectsApi(client), cluster.namespace or cluster.context_namespace())
        except TimeoutError as error:
            raise click.ClickException(f"the API server did not answer within {_ANSWER_WITHIN_S} s") from error
        except aiohttp.ClientConnectorError:
            raise  # the client's own words are better
        except aiohttp.ClientError as error:
            raise click.ClickException(f"the connection to the API server broke: {error}; try again") from error


def _said(error: ApiException) -> dict[str, Any]:
    """The `Status` object of the answer; empty where there is none."""
    try:
        said = json.loads(error.body or "")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _refused(error: ApiException, verb: str, kind: type[Resource], name: str, namespace: str) -> click.ClickException:
    what = f"{kind.kind_name()} {name} in namespace {namespace}"
    message = str(_said(error).get("message") or error.reason or "").strip()
    if error.status == 401:
        return click.ClickException("the API server does not accept these credentials; sign in again, as for kubectl")
    if error.status == 403:
        return click.ClickException(
            f"you may not {verb} {what}: {message}; ask for a Role with the verb {verb} on "
            f"{kind.presentation.plural}.{GROUP}"
        )
    if error.status == 404 and not _said(error).get("details", {}).get("name"):
        return click.ClickException(
            f"this API server has no {kind.presentation.plural}.{GROUP}; install Tickwheel there (docs/install.md), or "
            "name another cluster with --context or --kubeconfig"
        )
    return click.ClickException(f"the API server refused to {verb} {what}: {message}")
