"""The worker: settings and handlers in, and then a process that takes leases and runs them until it is told to stop.

Users call `Worker().run()`; `python -m tickwheel` does so for them. It owns what all links share (the slots, the HTTP
client, the load meter) and decides which replicas there are links to.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from pathlib import Path
from time import monotonic, time_ns
from typing import Any, NoReturn

from ._attempt import Attempt
from ._cgroup import LoadMeter
from ._client import Backoff, OperatorClient, RefusedError, UnreachableError
from ._execution import Execution
from ._link import Link
from ._protocol import MAX_HANDLERS, Topology, WorkerIdentity
from ._ready import Readiness
from ._registry import Registry, registry
from ._schemas import describe
from ._settings import Settings, make_settings
from ._watchdog import Watchdog
from .errors import HandlerError, HandlerStuckError

__all__ = ["Worker"]

_log = logging.getLogger("tickwheel.worker")

_STUCK_STATUS = 70
"""Of a process that ends itself since a handler would not stop: EX_SOFTWARE of sysexits.h."""


class Worker:
    """Runs handlers for one worker pool.

    Every argument may be left out: then its environment variable counts, then its default.

    Parameters
    ----------
    endpoint:
        The operator's gateway, such as `https://tickwheel-gateway.tickwheel-system:8443`. `TICKWHEEL_ENDPOINT`; must be
        set one way or the other.
    namespace:
        The pool's namespace. `TICKWHEEL_NAMESPACE`; default: the pod's own, else `default`.
    pool:
        The WorkerPool. `TICKWHEEL_POOL`; default `default`.
    name:
        The worker's name, unique in its pool. `TICKWHEEL_WORKER_NAME`; default: the host's name.
    slots:
        How many attempts run at once, 1 to 10,000. `TICKWHEEL_SLOTS`; default 16.
    token, token_file:
        The bearer token, or the file that holds it (read again whenever it changes). `TICKWHEEL_TOKEN`,
        `TICKWHEEL_TOKEN_FILE`; default none.
    ca_file:
        A PEM file with the authority of the gateway's certificate. `TICKWHEEL_CA_FILE`; default: the system's.
    drain_timeout:
        Seconds that running handlers may take to finish after SIGTERM. `TICKWHEEL_DRAIN_TIMEOUT`; default 60.
    pull_wait:
        Seconds that a pull waits for work before it asks again, 0 to 30. `TICKWHEEL_PULL_WAIT`; default 20.
    ready_port:
        A TCP port that accepts connections once the gateway has accepted the worker, for a probe.
        `TICKWHEEL_READY_PORT`; default none.
    labels:
        Labels that tasks may select workers by. `TICKWHEEL_LABELS`, as `gpu=true,zone=a`; default none.
    handlers:
        The handlers by name; default: all that `@task` registered before `run`.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        namespace: str | None = None,
        pool: str | None = None,
        name: str | None = None,
        slots: int | None = None,
        token: str | None = None,
        token_file: str | Path | None = None,
        ca_file: str | Path | None = None,
        drain_timeout: float | None = None,
        pull_wait: float | None = None,
        ready_port: int | None = None,
        labels: Mapping[str, str] | None = None,
        handlers: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self._settings = make_settings(
            {
                "endpoint": endpoint,
                "namespace": namespace,
                "pool": pool,
                "name": name,
                "slots": slots,
                "token": token,
                "token_file": token_file,
                "ca_file": ca_file,
                "drain_timeout": drain_timeout,
                "pull_wait": pull_wait,
                "ready_port": ready_port,
                "labels": labels,
            }
        )
        self._registry = registry
        if handlers is not None:
            self._registry = Registry()
            for handler_name, function in handlers.items():
                self._registry.add(handler_name, function)
        self._links: dict[str, Link] = {}
        self._retiring: dict[Link, asyncio.Task[None]] = {}
        """Links of a ledger that is gone, while their handlers stop."""
        self._left_behind = 0
        self._stuck = ""
        self._stopping = asyncio.Event()
        self._freed = asyncio.Event()

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, then drain and return; a second signal ends the process at once.

        A handler that does not stop within its grace, and cannot be interrupted, ends the process with status 70 once
        the others have finished, or at once if it blocks the event loop. Uses uvloop if it is installed.
        """
        if self._registry.in_child:
            return
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(self._run_with_signals())

    def drain(self) -> None:
        """Take nothing new; `serve` returns once the handlers that run have finished. Call it in the event loop."""
        self._stopping.set()

    async def serve(self) -> None:
        """Work until `drain` is called: `run` without the signals, for a program that has a loop of its own.

        Raises `HandlerStuckError` where `run` would end the process; a blocked loop it cannot notice.
        """
        if self._registry.in_child:
            return
        handlers = self._registry.handlers()
        if not handlers:
            raise HandlerError(
                "no handlers are registered: import the modules with the @task functions before Worker().run()"
            )
        if len(handlers) > MAX_HANDLERS:
            raise HandlerError(
                f"{len(handlers)} handlers are registered, and a worker may have {MAX_HANDLERS}: divide their modules "
                "among several WorkerPools"
            )
        settings = self._settings
        described = describe(handlers)
        execution = Execution(settings.slots, handlers.values(), freed=self._freed.set, stuck=self._handler_stuck)
        load = LoadMeter()
        readiness = Readiness(settings.ready_port)
        _log.info(
            "worker %s of pool %s/%s: %d slots, handlers %s, load from %s",
            *(settings.name, settings.namespace, settings.pool, settings.slots),
            *(", ".join(sorted(handlers)), load.kind),
        )

        async with OperatorClient(settings) as client:

            async def look_up(link: Link) -> None:
                try:
                    self._follow(await client.topology(), make_link)
                except (UnreachableError, RefusedError) as error:
                    _log.debug("the leader cannot be looked up, so %s is tried again: %s", link.url, error)

            def free() -> int:
                return -((execution.taken - execution.slots) // max(1, len(self._links)))

            def make_link(url: str) -> Link:
                _log.info("taking work from %s", url)
                return Link(
                    url,
                    settings=settings,
                    identity=_identity(settings),
                    handlers=handlers,
                    described=described,
                    execution=execution,
                    client=client,
                    load=load,
                    free=free,
                    wait_for_free=self._wait_for_free,
                    look_up=look_up,
                    readiness=readiness,
                    begin_anew=lambda link: self._replace(link, make_link),
                )

            try:
                await self._connect(client, make_link)
                await self._until_stopped()
                deadline = monotonic() + settings.drain_timeout
                await asyncio.gather(*(link.drain(deadline) for link in self._links.values()))
            finally:
                for link in (*self._links.values(), *self._retiring):
                    await link.close()
                self._links.clear()
                readiness.close()
                await execution.stop()
                self._left_behind = execution.taken
        if self._stuck:
            raise HandlerStuckError(self._stuck)
        _log.info("worker %s has left", settings.name)

    async def _connect(self, client: OperatorClient, make_link: Callable[[str], Link]) -> None:
        """Find the leaders for the first time, or return at once when `drain` is called."""
        finding = asyncio.create_task(self._find_leaders(client, make_link), name="tickwheel-finding-leaders")
        stopping = asyncio.create_task(self._stopping.wait(), name="tickwheel-stopping")
        try:
            await asyncio.wait({finding, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if finding.done():
                finding.result()  # raises what went wrong
        finally:
            finding.cancel()
            stopping.cancel()

    async def _find_leaders(self, client: OperatorClient, make_link: Callable[[str], Link]) -> None:
        """Patient, since a worker may start before the operator does."""
        backoff = Backoff()
        warned_at = -inf
        while True:
            try:
                self._follow(await client.topology(), make_link)
                if self._links:
                    return
                problem = f"{self._settings.endpoint} knows no leader yet"
            except (UnreachableError, RefusedError) as error:
                problem = str(error)
            if monotonic() - warned_at > 30:
                warned_at = monotonic()
                _log.warning("the worker waits for the operator: %s", problem)
            await asyncio.sleep(backoff.next())

    def _follow(self, topology: Topology, make_link: Callable[[str], Link]) -> None:
        """Have one link per leading replica. A link whose replica leads no longer moves to one that has no link yet,
        with all that it holds: the new leader has replayed those attempts and knows them by their tokens."""
        wanted = [replica.url.rstrip("/") for replica in topology.replicas if replica.partitions]
        links = {link.url: link for link in self._links.values()}
        orphans = [link for url, link in links.items() if url not in wanted]
        for url in wanted:
            if url in links:
                continue
            if orphans:
                link = orphans.pop()
                _log.info("the leader moved from %s to %s", link.url, url)
                link.move(url)
            else:
                link = make_link(url)
            links[url] = link
        self._links = {link.url: link for link in links.values()}

    def _replace(self, link: Link, make_link: Callable[[str], Link]) -> None:
        """The link's ledger is gone: a new one, which knows nothing, takes its place."""
        if self._links.get(link.url) is not link or self._stopping.is_set():
            return
        held = len(link.held.attempts)
        _log.warning(
            "the operator's ledger is not the one of before: beginning anew under it; %d handlers are stopped, since "
            "nobody can take their outcomes",
            held,
        )
        self._links[link.url] = make_link(link.url)
        retiring = self._retiring[link] = asyncio.create_task(link.retire(), name=f"tickwheel-retire {link.url}")
        retiring.add_done_callback(lambda _: self._retiring.pop(link, None))

    async def _until_stopped(self) -> None:
        """Until `drain` is called; or a loop of a link fails, which is a fault of the SDK and must not go unseen."""
        stopping = asyncio.create_task(self._stopping.wait(), name="tickwheel-stopping")
        try:
            while not stopping.done():
                loops = {task for link in self._links.values() for task in link.tasks}
                # The timeout: links may come while it waits.
                done, _ = await asyncio.wait({stopping, *loops}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {stopping}:
                    if not task.cancelled():  # a pull that was ended because the leader moved
                        task.result()
        finally:
            stopping.cancel()

    def _wait_for_free(self, seconds: float) -> Awaitable[None]:
        """Until a slot may have become free after this call, or for so long."""
        self._freed.clear()  # now, not when it is awaited: what is freed meanwhile must not be missed
        return self._until_freed(seconds)

    async def _until_freed(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._freed.wait(), seconds)

    def _handler_stuck(self, attempt: Attempt) -> None:
        """Only the end of this process can stop it: let the others finish, and then end."""
        stuck = (
            f"handler {attempt.handler.name} of run {attempt.lease.run} did not stop within its grace of "
            f"{attempt.lease.grace_ms} ms: the worker ends itself"
        )
        _log.critical("%s, after up to %g s for what else runs", stuck, self._settings.drain_timeout)
        self._stuck = self._stuck or stuck
        self.drain()

    async def _run_with_signals(self) -> None:
        loop = asyncio.get_running_loop()

        def stop(number: signal.Signals) -> None:
            if self._stopping.is_set():
                _log.warning("%s again: leaving at once", number.name)
                _exit(128 + number)
            _log.info("%s: finishing what runs, up to %g s", number.name, self._settings.drain_timeout)
            self.drain()

        # Around all of it, so that it also ends a process that cannot say its last words.
        with Watchdog(loop, lambda: [*self._links.values(), *self._retiring], lambda: _exit(_STUCK_STATUS)):
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop, number)
            try:
                await self.serve()
                if self._left_behind:
                    # Closing the loop would wait for handlers that swallow their cancellation, for ever.
                    _log.warning("%d handlers would not stop: leaving without them", self._left_behind)
                    _exit(0)
            except HandlerStuckError as error:
                _log.critical("%s now", error)
                _exit(_STUCK_STATUS)
            finally:
                for number in (signal.SIGTERM, signal.SIGINT):
                    loop.remove_signal_handler(number)


def _identity(settings: Settings) -> WorkerIdentity:
    """With an instance that nobody has heard of."""
    return WorkerIdentity(
        namespace=settings.namespace,
        pool=settings.pool,
        name=settings.name,
        instance=secrets.token_hex(8),
        started_ms=time_ns() // 1_000_000,
    )


def _exit(status: int) -> NoReturn:
    """End the process without waiting for anything but what was written."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
