"""What vanished while a watch was broken: pods, Deployments, and objects that nothing depends on.

After a broken watch kopf lists anew, and tells of what there is, not of what is gone. For the kinds of the catalog the
watch compares by itself (`controllers.watch`); for the others this does, in longer intervals, since nothing depends on
them for long: a worker whose pod is gone falls silent, and a pool's Deployment is applied again. Without it they would
be known for ever. `runtime.replica` runs it.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence

import msgspec

from tickwheel_operator.api import GROUP, VERSION
from tickwheel_operator.controllers.catalog import Catalog
from tickwheel_operator.controllers.census import Census
from tickwheel_operator.controllers.pods import POOL_LABEL, PodWatch
from tickwheel_operator.kinds import AWAITED, KINDS
from tickwheel_operator.kube.errors import ApiError
from tickwheel_operator.pools.deployments import Deployments

__all__ = ["Vanished", "WatchedKind", "watched_kinds"]

_log = logging.getLogger(__name__)
_EVERY_S = 120.0


class WatchedKind(msgspec.Struct, frozen=True):
    """Objects of one kind that a watch tells of."""

    api: str
    """Path of the group and version."""
    plural: str
    selector: str
    known: Callable[[], set[str]]
    """Uids of those that exist, as far as it has told."""
    vanished: Callable[[str], None]
    """Called with the uid of one that does not."""


def watched_kinds(pods: PodWatch, deployments: Deployments, catalog: Catalog) -> list[WatchedKind]:
    """All kinds that the watch tells of and does not compare by itself."""
    kinds = [
        WatchedKind("/api/v1", "pods", POOL_LABEL, pods.uids, pods.vanished),
        WatchedKind("/apis/apps/v1", "deployments", POOL_LABEL, deployments.uids, deployments.vanished),
    ]
    for kind in KINDS.values():
        if kind not in AWAITED:
            known = functools.partial(catalog.objects.uids, kind)
            gone = functools.partial(catalog.gone, kind)
            kinds.append(WatchedKind(f"/apis/{GROUP}/{VERSION}", kind.plural, kind.selector, known, gone))
    return kinds


class Vanished:
    """Compares what is known with what there is."""

    def __init__(self, census: Census, kinds: Sequence[WatchedKind], *, every_s: float = _EVERY_S) -> None:
        self._census = census
        self._kinds = kinds
        self._every_s = every_s

    async def run(self) -> None:
        """Compare until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            for kind in self._kinds:
                await self._compare(kind)

    async def _compare(self, kind: WatchedKind) -> None:
        before = kind.known()
        if not before:
            return
        try:
            exist = await self._census.uids(kind.plural, kind.selector, api=kind.api)
        except ApiError as error:
            _log.debug("what has vanished is not known now: %s", error)
            return
        gone = before - exist
        for uid in gone:
            kind.vanished(uid)
        if gone:
            _log.info("%d %s vanished while they were not watched", len(gone), kind.plural)
