"""The watch: kopf tells of the objects of all kinds and of worker pods; this hands them to the catalog.

kopf runs in a thread with an event loop of its own, as its documentation has it for embedding, for three reasons: when
it ends it cancels every task of its loop that it did not start itself, it takes the process's signal handlers, and its
work on a list of 20,000 objects must not delay the engine's timers. Handlers are the low-level ones: no finalizer, no
annotation, no index. What kopf does not tell (that a list is complete, that an object vanished while the watch was
broken) comes from `census`. Invariant: the catalog is called on the operator's loop only.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import kopf
import msgspec

from tickwheel_operator.api import GROUP, VERSION
from tickwheel_operator.clock import Clock
from tickwheel_operator.controllers.catalog import Catalog
from tickwheel_operator.controllers.census import Census
from tickwheel_operator.controllers.connection import connection_info
from tickwheel_operator.controllers.pods import POOL_LABEL, PodWatch
from tickwheel_operator.controllers.requests import Requests
from tickwheel_operator.controllers.shallow import shallow_session
from tickwheel_operator.controllers.stateless import NoDiffBase, NoProgress
from tickwheel_operator.kinds import AWAITED, KINDS, AnyKind
from tickwheel_operator.kinds.scheduledtask import SCHEDULED_TASK
from tickwheel_operator.kinds.seen import Seen
from tickwheel_operator.kinds.taskrun import TASK_RUN, SeenRun
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.kube.errors import ApiError
from tickwheel_operator.objectfaults import Layer, ObjectFaults
from tickwheel_operator.pools.deployments import Deployments

__all__ = ["Watch", "WatchConfig", "WatchHealth"]

_log = logging.getLogger(__name__)

_STOP_S = 15.0
_PROGRESS_S = 3.0
_LISTED_PER_S = 2_000
"""More than kopf tells of."""

_Read = TypeVar("_Read")


class WatchConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the API server is watched."""

    namespaces: tuple[str, ...] = ()
    """Namespaces that are served; empty: all of the cluster."""
    watch_pods: bool = True
    """Watch pods that have the label `tickwheel.io/pool`, so that a lost worker is known before it falls silent. Needs
    list and watch of pods."""
    page_size: int = 100
    """Objects a page of a list, 1 to 10,000. To decode a page holds up the whole process, the engine's timers too:
    measured with 20,000 tasks on two busy cores, 200 ms at 500 a page and 120 ms at 100, at the same total time."""
    request_timeout_s: float = 30.0
    """The longest a request other than a watch may take, in seconds; 10 to 30."""
    probe_s: float = 30.0
    """How often the number of objects is compared with the server's, in seconds."""
    stale_s: float = 120.0
    """After so long without agreement with the server, in seconds, the watch counts as stale."""
    restart_s: float = 5.0
    """Pause before a watch that broke down is started again, in seconds."""


class WatchHealth(msgspec.Struct, frozen=True, kw_only=True):
    """For /readyz and the metrics."""

    synced: bool
    event_age_s: float
    """Since the last event of any kind."""
    agreed_age_s: float
    """Since the catalog was last known to agree with the server, of the kind for which that is longest ago."""
    stale: bool
    problem: str
    """Why it does not agree, for people; empty: nothing is known to be wrong."""


class Watch:
    """Keeps a catalog and the TaskRun requests in line with the API server."""

    def __init__(
        self,
        client: KubeClient,
        catalog: Catalog,
        requests: Requests,
        clock: Clock,
        *,
        config: WatchConfig | None = None,
        pods: PodWatch | None = None,
        deployments: Deployments | None = None,
        faults: ObjectFaults | None = None,
    ) -> None:
        """`pods` hears of worker pods, and `deployments` of those with a pool's label, if they are to be watched."""
        self._client = client
        self._catalog = catalog
        self._requests = requests
        self._clock = clock
        self._config = config or WatchConfig()
        self._pods = pods if self._config.watch_pods else None
        self._deployments = deployments
        self._faults = faults or ObjectFaults()
        self._census = Census(client, self._config.namespaces, timeout_s=self._config.request_timeout_s)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()
        self._progress = asyncio.Event()
        self._recount: dict[str, asyncio.Event] = {kind.name: asyncio.Event() for kind in KINDS.values()}
        self._counted: set[str] = set()
        """Kinds whose first list is complete."""
        self._event_ms = self._agreed_from = clock.boot_ms()
        self._agreed_ms: dict[str, int] = {}
        self._problems: dict[str, str] = {}

    async def run(self) -> None:
        """Watch until cancelled. A watch that breaks down is started again."""
        self._loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            for kind in AWAITED:
                group.create_task(self._count(kind), name=f"census-{kind.name}")
            while True:
                await self._served()
                await self._run_kopf()
                _log.warning("the watch ended; it is started again in %.0f s", self._config.restart_s)
                await asyncio.sleep(self._config.restart_s)

    def health(self) -> WatchHealth:
        """How far the catalog can be trusted now."""
        now = self._clock.boot_ms()
        oldest = min((self._agreed_ms.get(kind.name, self._agreed_from) for kind in AWAITED), default=now)
        agreed_age_s = (now - oldest) / 1000
        return WatchHealth(
            synced=self._catalog.synced,
            event_age_s=(now - self._event_ms) / 1000,
            agreed_age_s=agreed_age_s,
            stale=agreed_age_s > self._config.stale_s,
            problem="; ".join(self._problems.values()),
        )

    # --- kopf ---

    async def _served(self) -> None:
        """Wait until the server knows all kinds: kopf looks for them once, when it starts."""
        while True:
            try:
                for kind in AWAITED:
                    await self._census.count(kind.plural)
                    self._problems.pop(kind.name, None)
                return
            except ApiError as error:
                self._problems[kind.name] = str(error)
                _log.warning("cannot watch yet: %s", error)
                await asyncio.sleep(self._config.restart_s)

    async def _run_kopf(self) -> None:
        """One life of kopf. Returns when it ended, for whatever reason."""
        registry = kopf.OperatorRegistry()
        loop = asyncio.get_running_loop()

        async def login(**_: Any) -> kopf.AiohttpSession:
            # On the operator's loop, where the client's token is refreshed.
            asked = asyncio.run_coroutine_threadsafe(connection_info(self._client.configuration), loop)
            return shallow_session(await asyncio.wrap_future(asked))

        kopf.on.login(id="kubernetes-client", registry=registry)(login)
        for kind in KINDS.values():
            handler = functools.partial(self._seen, kind)
            kopf.on.event(GROUP, VERSION, kind.plural, id=kind.plural, registry=registry)(handler)
        if self._pods is not None:
            kopf.on.event("", "v1", "pods", id="pods", registry=registry)(self._pod_seen)
        if self._deployments is not None:
            seen = functools.partial(self._deployment_seen, self._deployments)
            kopf.on.event("apps", "v1", "deployments", id="deployments", registry=registry)(seen)
        ended: asyncio.Future[None] = loop.create_future()
        stop = self._stop = threading.Event()
        thread = threading.Thread(
            target=self._thread, args=(registry, stop, ended), name="tickwheel-watch", daemon=True
        )
        thread.start()
        try:
            await asyncio.shield(ended)
        finally:
            stop.set()
            # Its last words may need this loop; a thread that hangs is left behind, and ends with the process.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(ended), _STOP_S)

    def _thread(self, registry: kopf.OperatorRegistry, stop: threading.Event, ended: asyncio.Future[None]) -> None:
        try:
            asyncio.run(self._operate(registry, stop))
        except Exception:
            _log.exception("the watch broke down")
        finally:
            self._on_loop(lambda: None if ended.done() else ended.set_result(None))

    async def _operate(self, registry: kopf.OperatorRegistry, stop: threading.Event) -> None:
        await kopf.operator(
            registry=registry,
            settings=self._settings(),
            clusterwide=not self._config.namespaces,
            namespaces=self._config.namespaces,
            standalone=True,
            stop_flag=stop,
        )

    def _settings(self) -> kopf.OperatorSettings:
        # kopf says of each event that its handler succeeded: 20,000 lines for a list.
        logging.getLogger("kopf.objects").setLevel(logging.WARNING)
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.peering.standalone = True
        settings.scanning.disabled = True
        settings.process.ultimate_exiting_timeout = None
        settings.persistence.consistency_timeout = 0
        settings.persistence.diffbase_storage = NoDiffBase()
        settings.persistence.progress_storage = NoProgress()
        settings.networking.request_timeout = self._config.request_timeout_s
        settings.networking.connect_timeout = 10.0
        settings.watching.connect_timeout = 10.0
        settings.watching.chunk_size = self._config.page_size
        settings.watching.reconnect_backoff = 1.0
        # One task per object lives this long after its last event: 5 s, the default, is 20,000 tasks after a list.
        settings.queueing.idle_timeout = 0.05
        settings.queueing.worker_limit = 200
        for kind in KINDS.values():
            if kind.selector:
                settings.watching.label_selectors[GROUP, VERSION, kind.plural] = kind.selector
        settings.watching.label_selectors["", "v1", "pods"] = POOL_LABEL
        settings.watching.label_selectors["apps", "v1", "deployments"] = POOL_LABEL
        return settings

    # --- events, in the watch's thread ---

    async def _seen(self, kind: AnyKind, event: Mapping[str, Any], **_: Any) -> None:
        """kopf awaits it for each event of an object, in their order. A type of None: it comes from a list."""
        raw = event["object"]
        if event["type"] == "DELETED":
            self._on_loop(self._gone, kind, raw["metadata"]["uid"])
            return
        observed = self._observe(kind, raw)
        if observed is not None:
            self._on_loop(self._take, kind, observed, event["type"] is None)

    async def _pod_seen(self, event: Mapping[str, Any], **_: Any) -> None:
        pods = self._pods
        if pods is None:
            return
        pod = self._read("Pod", event["object"], lambda raw: pods.read(raw, deleted=event["type"] == "DELETED"))
        if pod is not None:
            self._on_loop(pods.seen, pod)

    async def _deployment_seen(self, deployments: Deployments, event: Mapping[str, Any], **_: Any) -> None:
        raw = event["object"]
        if event["type"] == "DELETED":
            metadata = raw["metadata"]
            self._on_loop(deployments.gone, metadata["namespace"], metadata["name"], metadata["uid"])
        elif (read := self._read("Deployment", raw, deployments.read)) is not None:
            self._on_loop(deployments.seen, read)

    def _read(self, kind: str, raw: Mapping[str, Any], read: Callable[[Mapping[str, Any]], _Read]) -> _Read | None:
        """None: this code cannot read it, which is counted and logged; as if no event had come."""
        try:
            return read(raw)
        except Exception as error:
            metadata = raw["metadata"]
            self._faults.record(Layer.WATCH, kind, metadata["namespace"], metadata["name"], error)
            return None

    def _observe(self, kind: AnyKind, raw: Mapping[str, Any]) -> Seen | None:
        metadata = raw["metadata"]
        try:
            observed: Seen | None = kind.observe(raw, self._catalog.objects.get(kind, metadata["uid"]))
        except Exception as error:
            # One object that this code cannot read must not hide the others, nor itself.
            message = self._faults.record(Layer.WATCH, kind.name, metadata["namespace"], metadata["name"], error)
            observed = kind.unreadable(raw, message)
        return observed

    def _on_loop(self, call: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                self._loop.call_soon_threadsafe(call, *arguments)

    # --- events, on the operator's loop ---

    def _take(self, kind: AnyKind, observed: Seen, listed: bool) -> None:
        self._event_ms = self._clock.boot_ms()
        try:
            self._tell(observed)
        except Exception as error:
            self._faults.record(Layer.CATALOG, kind.name, observed.namespace, observed.name, error)
        if kind.name in self._counted and listed:
            self._recount[kind.name].set()
        self._progress.set()

    def _tell(self, observed: Seen) -> None:
        if isinstance(observed, SeenRun):
            self._requests.run_seen(observed)
            return
        self._catalog.seen(observed)
        if observed.kind == SCHEDULED_TASK.name:
            self._requests.task_changed(observed.namespace, observed.name)

    def _gone(self, kind: AnyKind, uid: str) -> None:
        self._event_ms = self._clock.boot_ms()
        self._forget(kind, uid)
        self._progress.set()

    def _forget(self, kind: AnyKind, uid: str) -> None:
        if kind is TASK_RUN:
            self._requests.run_gone(uid)
        else:
            self._catalog.gone(kind, uid)

    # --- the census ---

    async def _count(self, kind: AnyKind) -> None:
        """Find out when the kind's first list is complete; from then on, whether the watch is still right."""
        while not await self._compare(kind):
            await self._some_progress()
        self._counted.add(kind.name)
        self._catalog.mark_synced(kind)
        while True:
            relisted = await self._probe_due(kind)
            if not relisted and await self._same_number(kind):
                self._agreed(kind)
            else:
                await self._some_progress()
                await self._compare(kind)

    async def _compare(self, kind: AnyKind) -> bool:
        """Compare all uids with the server's: forget what is gone, and say whether nothing is missing."""
        before = self._catalog.objects.uids(kind)
        try:
            exist = await self._census.uids(kind.plural, kind.selector)
        except ApiError as error:
            self._disagreed(kind, str(error))
            await asyncio.sleep(1)
            return False
        for uid in before - exist:
            self._forget(kind, uid)
        missing = exist - self._catalog.objects.uids(kind)
        while missing:
            if not await self._some_progress(len(missing) / _LISTED_PER_S):
                self._disagreed(kind, f"the watch has not told of {len(missing)} of {len(exist)} {kind.plural} yet")
                return False
            missing -= self._catalog.objects.uids(kind)
        self._agreed(kind)
        return True

    async def _same_number(self, kind: AnyKind) -> bool:
        if kind.selector:
            # The server does not count what a selector chooses; requests are few.
            return await self._compare(kind)
        try:
            count = await self._census.count(kind.plural)
        except ApiError as error:
            self._disagreed(kind, str(error))
            return False
        return count == len(self._catalog.objects.uids(kind))

    async def _probe_due(self, kind: AnyKind) -> bool:
        """Wait for the next comparison; True when one is due since kopf listed anew."""
        listed = self._recount[kind.name]
        try:
            await asyncio.wait_for(listed.wait(), self._config.probe_s)
        except TimeoutError:
            return False
        while listed.is_set():  # once, when the list has come to its end
            listed.clear()
            await asyncio.sleep(_PROGRESS_S)
        return True

    async def _some_progress(self, rest_s: float = 0.0) -> bool:
        """Wait until an event came; False when none did for a while. `rest_s`: how long the rest will take at least."""
        self._progress.clear()
        try:
            await asyncio.wait_for(self._progress.wait(), _PROGRESS_S)
        except TimeoutError:
            return False
        # A list brings thousands: look at them together, and not at a hundred thousand ten times a second.
        await asyncio.sleep(max(0.1, min(rest_s / 2, _PROGRESS_S)))
        return True

    def _agreed(self, kind: AnyKind) -> None:
        self._agreed_ms[kind.name] = self._clock.boot_ms()
        self._problems.pop(kind.name, None)

    def _disagreed(self, kind: AnyKind, problem: str) -> None:
        if self._problems.get(kind.name) != problem:
            _log.warning("%s", problem)
        self._problems[kind.name] = problem
