"""A leading operator without election and gateway, on a real API server, and what its user sees there.

The catalog, the requests, the host with its engine and the projector are real; the ledger is SQLite and the worker is
the test itself, through the host's commands. `conftest.py` has a `replica` and its `objects` as fixtures.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import secrets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from kubernetes.aio.client import (
    ApiClient,
    ApiException,
    CoreV1Api,
    CustomObjectsApi,
    V1Namespace,
    V1ObjectMeta,
    V1ResourceQuota,
    V1ResourceQuotaSpec,
)
from kubernetes.aio.watch import Watch as Watcher
from tests.integration.installation import custom_object

from tickwheel_operator.clock import SystemClock
from tickwheel_operator.controllers.catalog import Catalog
from tickwheel_operator.controllers.census import Census
from tickwheel_operator.controllers.requests import Requests
from tickwheel_operator.controllers.watch import Watch, WatchConfig
from tickwheel_operator.engine.messages import CancelRun, FailedAttempt, Pull, Pulled, Report, WorkerKey, WorkerSeen
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.sqlite import SqliteSegmentStore
from tickwheel_operator.projection.config import ProjectionConfig
from tickwheel_operator.projection.events import EventRecorder
from tickwheel_operator.projection.projector import Projector
from tickwheel_operator.runtime.partition import PartitionHost
from tickwheel_operator.runtime.unheard import remove_deleted

__all__ = ["PATIENCE_S", "Objects", "Replica", "condition", "manual", "moment"]

GROUP, VERSION = "tickwheel.io", "v1alpha1"
PATIENCE_S = 90.0


class Term:
    epoch_floor = 0

    def is_fresh(self) -> bool:
        return True


class Replica:
    """A leading operator without election and gateway."""

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        ledger: Path,
        *,
        others: tuple[str, ...] = (),
        writes_per_s: float = 100,
    ) -> None:
        """`others` are namespaces that it serves too."""
        self.clock = SystemClock()
        self.namespace = namespace
        self.catalog = Catalog()
        self.requests = Requests(self.clock.now_ms, self.catalog.objects, retry_s=0.1)
        self.watch = Watch(
            KubeClient(client), self.catalog, self.requests, self.clock,
            config=WatchConfig(namespaces=(namespace, *others), watch_pods=False),
        )  # fmt: skip
        self.events = EventRecorder(KubeClient(client), self.clock, instance="replica-0")
        self.projector = Projector(
            KubeClient(client), self.catalog.objects, self.catalog, self.requests, self.clock,
            events=self.events, namespaces=(namespace, *others),
            config=ProjectionConfig(
                writes_per_s=writes_per_s, burst=10, expiry_interval_s=0.3, interval_factor=0.1,
            ),
        )  # fmt: skip
        self.catalog.on_change.append(self.projector.changed)
        self.requests.on_change = self.projector.changed
        self._store = SqliteSegmentStore(ledger)
        self.host = PartitionHost(self._ledger(), Term(), self.clock, sink=self.projector)
        self.new_request = itertools.count(1).__next__
        self._census = Census(KubeClient(client), (namespace, *others))
        self._tasks: list[asyncio.Task[None]] = []
        self._watching: asyncio.Task[None] | None = None
        self._leading: asyncio.Task[None] | None = None

    def _ledger(self) -> Ledger:
        return Ledger(self._store, partition=0, leader="r", clock=self.clock, nonces=lambda: secrets.token_hex(8))

    async def start(self) -> None:
        await self.follow()
        await self.lead()

    async def follow(self) -> None:
        """Keep the catalog warm."""
        self.hear()
        for part in (self.requests, self.projector, self.events):
            self._tasks.append(asyncio.create_task(part.run()))
        async with asyncio.timeout(PATIENCE_S):
            await self.catalog.wait_synced()

    def hear(self) -> None:
        """Watch, from now on or again."""
        self._watching = asyncio.create_task(self.watch.run())
        self._tasks.append(self._watching)

    async def hear_nothing(self) -> None:
        """The watch breaks."""
        assert self._watching is not None
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    async def lead(self) -> None:
        await self.host.take_over(self.catalog.snapshot)
        self.catalog.attach(self.host.post_all)
        self.requests.lead(self.host.call, self.new_request)
        self.projector.lead()
        self._leading = asyncio.create_task(self.host.run())
        self._tasks.append(self._leading)
        missing = functools.partial(self._census.missing, "scheduledtasks")
        self._tasks.append(asyncio.create_task(remove_deleted(self.host, missing)))

    async def stop(self) -> None:
        """As SIGTERM does it: what was decided is in the ledger when this returns."""
        if not self._tasks:
            return
        if self._leading is not None:
            self.host.stop()
            await asyncio.wait((self._leading,), timeout=PATIENCE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._store.close()

    async def durable(self) -> None:
        """Wait until all that was decided is in the ledger: an answer comes after the facts that were before it."""
        await self.host.call(CancelRun(request=self.new_request(), run_id="nobody's"))

    async def settled(self) -> None:
        """Wait until all is durable, and nothing waits to be written any more."""
        async with asyncio.timeout(PATIENCE_S):
            await self.durable()
            quiet = 0
            while quiet < 10:
                await asyncio.sleep(0.1)
                projector = self.projector
                busy = projector.pending or projector._incoming or projector._queue._working
                quiet = 0 if busy or self.host.engine.has_news else quiet + 1

    # --- the worker ---

    def seen(self, *handlers: str) -> WorkerSeen:
        key = WorkerKey(self.namespace, "shops", "shops-0")
        return WorkerSeen(key=key, instance="i-1", handlers=handlers, slots=4)

    async def pull(self, *handlers: str) -> Pulled:
        answer = await self.host.call(
            Pull(
                request=self.new_request(), worker=self.seen(*handlers), free=4,
                until_ms=self.clock.now_ms() + 500,
            )
        )  # fmt: skip
        assert isinstance(answer, Pulled)
        return answer

    async def report(self, *handlers: str, **what: Any) -> None:
        await self.host.call(Report(request=self.new_request(), worker=self.seen(*handlers), **what))

    async def work(self, handler: str, fail: bool = False) -> None:
        """Take and end one attempt."""
        async with asyncio.timeout(PATIENCE_S):
            while not (deliveries := (await self.pull(handler)).deliveries):
                pass
        tokens = [delivery.token for delivery in deliveries]
        if fail:
            failed = [FailedAttempt(token=token, error_type="OutOfStock", message="no shoes") for token in tokens]
            await self.report(handler, failed=failed)
        else:
            await self.report(handler, results=[(token, b'{"sold":3.0}') for token in tokens])


class Objects:
    """The user's side, in a namespace of its own."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._api = CustomObjectsApi(client)
        self._core = CoreV1Api(client)
        self.namespace = namespace

    async def open(self) -> None:
        """Create the namespace."""
        await self._core.create_namespace(V1Namespace(metadata=V1ObjectMeta(name=self.namespace)))

    async def create(self, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        body = custom_object(kind, self.namespace, name, spec)
        plural = kind.lower() + "s"
        made: Any = await self._api.create_namespaced_custom_object(GROUP, VERSION, self.namespace, plural, body)
        return made

    async def get(self, kind: str, name: str) -> dict[str, Any]:
        found: Any = await self._api.get_namespaced_custom_object(
            GROUP, VERSION, self.namespace, kind.lower() + "s", name
        )
        return found

    async def list(self, kind: str) -> list[dict[str, Any]]:
        found: Any = await self._api.list_namespaced_custom_object(GROUP, VERSION, self.namespace, kind.lower() + "s")
        return found["items"]

    async def versions(self, kind: str) -> dict[str, str]:
        return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in await self.list(kind)}

    async def patch(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        await self._api.patch_namespaced_custom_object(
            GROUP, VERSION, self.namespace, kind.lower() + "s", name, {"spec": spec},
            _content_type="application/merge-patch+json",
        )  # fmt: skip

    async def delete(self, kind: str, name: str) -> None:
        await self._api.delete_namespaced_custom_object(GROUP, VERSION, self.namespace, kind.lower() + "s", name)

    async def events(self, reason: str) -> list[Any]:
        found = await self._core.list_namespaced_event(self.namespace)
        return [event for event in found.items if event.reason == reason]

    async def watch(self, kind: str, until: Callable[[list[str]], bool]) -> list[str]:
        """What happened to objects of the kind, from the first on: ADDED, MODIFIED, DELETED."""
        changes: list[str] = []
        async with asyncio.timeout(PATIENCE_S), Watcher() as watcher:
            listing = self._api.list_namespaced_custom_object
            async for change in watcher.stream(listing, GROUP, VERSION, self.namespace, kind.lower() + "s"):
                changes.append(change["type"])
                if until(changes):
                    break
        return changes

    async def until_listed(self, kind: str, holds: Callable[[dict[str, str]], bool]) -> None:
        """Wait until the names and versions of the objects of a kind are so."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds(await self.versions(kind)):
                await asyncio.sleep(0.1)

    async def quota(self, resource: str, hard: int, used: int) -> None:
        """Bound the objects of a kind. `used` is said here: the controller that counts them does not run."""
        kind = f"count/{resource}"
        body = V1ResourceQuota(metadata=V1ObjectMeta(name="bound"), spec=V1ResourceQuotaSpec(hard={kind: str(hard)}))
        with contextlib.suppress(ApiException):  # it is there
            await self._core.create_namespaced_resource_quota(self.namespace, body)
        status = {"status": {"hard": {kind: str(hard)}, "used": {kind: str(used)}}}
        await self._core.patch_namespaced_resource_quota_status("bound", self.namespace, status)

    async def until(self, kind: str, name: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The object's status, once it is so."""
        status: dict[str, Any] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    status = (await self.get(kind, name)).get("status") or {}
                    if holds(status):
                        return status
                    await asyncio.sleep(0.1)
        raise AssertionError(f"{kind} {name} has the status {json.dumps(status, indent=1)}")


def moment(text: str) -> datetime:
    """Of a status: with milliseconds where there are any, so that the texts have another order."""
    return datetime.fromisoformat(text)


def condition(status: dict[str, Any], kind: str) -> tuple[str, str]:
    return next(((c["status"], c["reason"]) for c in status.get("conditions", ()) if c["type"] == kind), ("", ""))


def manual(**spec: Any) -> dict[str, Any]:
    return {"pool": "shops", "handler": "sync", "retry": {"limit": 0}, **spec}
