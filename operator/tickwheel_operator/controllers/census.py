"""Which objects exist, asked of the API server beside the watch: metadata only, page by page.

kopf tells of every object that it lists, but not when its list is complete, and after a broken watch it lists anew
without telling of objects that vanished meanwhile. The census closes both gaps: a kind is synced when everything that
the server has was seen, and what the server no longer has is forgotten. In between, one request for one object tells
how many there are, so that a watch that fell silent shows.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import msgspec

from tickwheel_operator.api import GROUP, VERSION
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.kube.errors import ApiError

__all__ = ["Census"]

_log = logging.getLogger(__name__)

_PAGE = 500
_METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
_GONE = 410
_OURS = f"/apis/{GROUP}/{VERSION}"


class _ListMetadata(msgspec.Struct):
    token: str = msgspec.field(default="", name="continue")
    remaining: int | None = msgspec.field(default=None, name="remainingItemCount")


class _Metadata(msgspec.Struct, gc=False):
    uid: str


class _Item(msgspec.Struct, gc=False):
    metadata: _Metadata


class _Page(msgspec.Struct):
    metadata: _ListMetadata
    items: list[_Item] | None
    """Null where there are none."""


# The client's own JSON takes 56 ms for a page of 500, most of it field managers; this takes 1 ms and keeps uids only.
_decoder = msgspec.json.Decoder(_Page)


class Census:
    """Counts the objects of a kind."""

    def __init__(self, client: KubeClient, namespaces: Sequence[str] = (), *, timeout_s: float = 20.0) -> None:
        """`namespaces` empty: all of them. `timeout_s` bounds each request."""
        self._client = client
        self._timeout_s = timeout_s
        self._namespaces = tuple(namespaces)

    async def uids(self, plural: str, label_selector: str = "", *, api: str = _OURS) -> set[str]:
        """All uids, from a state that is not older than the call; `api` is the path of another group and version.
        Raises `ApiError`."""
        found: set[str] = set()
        for namespace in self._namespaces or ("",):
            found |= await self._uids_in(api, plural, label_selector, namespace)
        return found

    async def missing(self, plural: str, uids: Collection[str]) -> set[str]:
        """Those of these that certainly do not exist any more; none, with a log line, where the server does not say."""
        try:
            return set(uids) - await self.uids(plural)
        except ApiError as error:
            _log.warning("whether %d %s still exist is not known now: %s", len(uids), plural, error)
            return set()

    async def count(self, plural: str, label_selector: str = "") -> int | None:
        """How many there are, by one small request; None where the server does not say (label selectors)."""
        total = 0
        for namespace in self._namespaces or ("",):
            page = await self._page(_OURS, plural, label_selector, namespace, 1, "")
            rest = page.metadata.remaining
            if rest is None and page.metadata.token:
                return None
            total += len(page.items or ()) + (rest or 0)
        return total

    async def _uids_in(self, api: str, plural: str, label_selector: str, namespace: str) -> set[str]:
        while True:
            found: set[str] = set()
            token = ""
            try:
                while True:
                    page = await self._page(api, plural, label_selector, namespace, _PAGE, token)
                    found.update(item.metadata.uid for item in page.items or ())
                    token = page.metadata.token
                    if not token:
                        return found
            except _Expired:
                _log.info("the list of %s took longer than the server keeps its state; from the start", plural)

    async def _page(self, api: str, plural: str, label_selector: str, namespace: str, limit: int, token: str) -> _Page:
        query: dict[str, str | int] = {"limit": limit}
        if token:
            query["continue"] = token
        if label_selector:
            query["labelSelector"] = label_selector
        path = f"{api}/namespaces/{namespace}/{plural}" if namespace else f"{api}/{plural}"
        what = f"list {plural}"
        answer = await self._client.request(
            "GET", path, what=what, query=query, accept=_METADATA, timeout_s=self._timeout_s
        )
        if answer.status == _GONE:
            raise _Expired
        answer.check(what, hint=f" (grant the operator's account list of {plural})")
        return answer.read(_decoder, what)


class _Expired(Exception):
    """The continue token is older than what the server keeps."""
