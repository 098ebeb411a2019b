"""Which objects exist, asked of the API server beside the watch: metadata only, page by page.

kopf tells of every object that it lists, but not when its list is complete, and after a broken watch it lists anew
without telling of objects that vanished meanwhile. The census closes both gaps: a kind is synced when everything that
the server has was seen, and what the server no longer has is forgotten. In between, one request for one object tells
how many there are, so that a watch that fell silent shows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, cast

import aiohttp
from kubernetes.aio.client import ApiClient, ApiException, CustomObjectsApi

from tickwheel_operator.api import GROUP, VERSION

__all__ = ["Census", "CensusUnavailable"]

_log = logging.getLogger(__name__)

_PAGE = 500
_METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
_GONE = 410


class CensusUnavailable(Exception):
    """The API server did not answer, or refused. The message says what and why."""


class Census:
    """Counts the objects of a kind."""

    def __init__(self, client: ApiClient, namespaces: Sequence[str] = (), *, timeout_s: float = 20.0) -> None:
        """`namespaces` empty: all of them. `timeout_s` bounds each request."""
        self._api = CustomObjectsApi(client)
        self._namespaces = tuple(namespaces)
        self._timeout_s = timeout_s

    async def uids(self, plural: str, label_selector: str = "") -> set[str]:
        """All uids, from a state that is not older than the call. Raises `CensusUnavailable`."""
        found: set[str] = set()
        for namespace in self._namespaces or ("",):
            found |= await self._uids_in(plural, label_selector, namespace)
        return found

    async def count(self, plural: str, label_selector: str = "") -> int | None:
        """How many there are, by one small request; None where the server does not say (label selectors)."""
        total = 0
        for namespace in self._namespaces or ("",):
            page = await self._page(plural, label_selector, namespace, 1, "")
            items, rest = len(page["items"] or ()), page["metadata"].get("remainingItemCount")
            if rest is None and page["metadata"].get("continue"):
                return None
            total += items + (rest or 0)
        return total

    async def _uids_in(self, plural: str, label_selector: str, namespace: str) -> set[str]:
        while True:
            found: set[str] = set()
            token = ""
            try:
                while True:
                    page = await self._page(plural, label_selector, namespace, _PAGE, token)
                    found.update(item["metadata"]["uid"] for item in page["items"] or ())
                    token = page["metadata"].get("continue") or ""
                    if not token:
                        return found
            except _Expired:
                _log.info("the list of %s took longer than the server keeps its state; from the start", plural)

    async def _page(self, plural: str, label_selector: str, namespace: str, limit: int, token: str) -> dict[str, Any]:
        options: dict[str, Any] = {
            "limit": limit,
            "_headers": {"Accept": _METADATA},
            "_request_timeout": self._timeout_s,
        }
        if token:
            options["_continue"] = token
        if label_selector:
            options["label_selector"] = label_selector
        call: Callable[..., Awaitable[object]]
        if namespace:
            call = partial(self._api.list_namespaced_custom_object, GROUP, VERSION, namespace, plural)
        else:
            call = partial(self._api.list_custom_object_for_all_namespaces, GROUP, VERSION, plural)
        try:
            async with asyncio.timeout(self._timeout_s):
                return cast("dict[str, Any]", await call(**options))
        except ApiException as error:
            if error.status == _GONE:
                raise _Expired from error
            hint = f" (grant the operator's account list of {plural}.{GROUP})" if error.status == 403 else ""
            raise CensusUnavailable(f"list {plural}: {error.status} {error.reason}{hint}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise CensusUnavailable(f"list {plural}: {error!r}") from error


class _Expired(Exception):
    """The continue token is older than what the server keeps."""
