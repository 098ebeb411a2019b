"""`tickwheel dev DIR`: everything in one process but the workers.

The folder takes the place of the API server, SQLite that of etcd; engine, ledger protocol, gateway and workers are
the ones that run in a cluster. Ending is orderly: workers drain first, then the ledger gets the last facts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

from rich.console import Console
from rich.live import Live

from tickwheel_operator.clock import SystemClock
from tickwheel_operator.dev.folder import Folder
from tickwheel_operator.dev.processes import Workers
from tickwheel_operator.dev.table import Picture
from tickwheel_operator.gateway.auth import AllowAll, StaticTokenAuthenticator
from tickwheel_operator.gateway.config import GatewayConfig
from tickwheel_operator.gateway.server import Gateway
from tickwheel_operator.ledger.log import Ledger, LedgerLimits
from tickwheel_operator.ledger.sqlite import SqliteSegmentStore
from tickwheel_operator.runtime.backend import HostBackend
from tickwheel_operator.runtime.partition import PartitionHost

__all__ = ["STATE_FOLDER", "DevSession"]

STATE_FOLDER = ".tickwheel"
"""Inside the manifests' folder: ledger, object memory, token, worker logs."""

_POLL_S = 0.5


class _SoleTerm:
    """Dev mode has no rival to elect against; the ledger's fence still stops a second session on the same folder."""

    epoch_floor = 0

    def is_fresh(self) -> bool:
        return True


class DevSession:
    """One run of the dev command."""

    def __init__(self, directory: Path, console: Console, *, port: int = 0) -> None:
        self._directory = directory
        self._console = console
        self._state = directory / STATE_FOLDER
        self._state.mkdir(exist_ok=True)
        (self._state / ".gitignore").write_text("*\n", encoding="utf-8")
        self._port = port
        self._clock = SystemClock()
        self._folder = Folder(directory, self._state / "objects.json")
        self._picture = Picture()
        self._host: PartitionHost | None = None
        self._started = time.monotonic()
        self._stop = asyncio.Event()

    async def run(self, seconds: float | None = None) -> None:
        """Run until a signal comes, or for so many seconds."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        store = SqliteSegmentStore(self._state / "ledger.sqlite")
        ledger = Ledger(
            store,
            partition=0,
            leader=f"dev-{os.getpid()}",
            clock=self._clock,
            nonces=lambda: secrets.token_hex(8),
            limits=LedgerLimits(),
        )
        host = self._host = PartitionHost(ledger, _SoleTerm(), self._clock, sink=self._picture)
        self._folder.read(self._clock.now_ms())
        await host.take_over(self._folder.snapshot)
        leading = asyncio.create_task(host.run(), name="partition")
        try:
            async with self._serve(host) as workers:
                await self._watch(workers, leading, seconds)
                self._say("draining")
                await workers.stop()
            host.stop()
            await asyncio.wait_for(leading, timeout=10)
        finally:
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)
            await store.close()
        self._picture.show(host.engine.views(1_000_000))
        self._console.print(self._picture.summary(self._folder.tasks, time.monotonic() - self._started))

    @contextlib.asynccontextmanager
    async def _serve(self, host: PartitionHost) -> AsyncIterator[Workers]:
        token = secrets.token_urlsafe(24)
        backend = HostBackend(lambda: host, lambda: ("", 0), self._url, self._clock)
        config = GatewayConfig(host="127.0.0.1", port=self._port)
        gateway = Gateway(backend, StaticTokenAuthenticator(token), AllowAll(), config)
        await gateway.start()
        self._port = gateway.port
        self._write_access(token)
        try:
            yield Workers(self._directory, self._state, self._url(), token)
        finally:
            await gateway.stop()

    def _url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _write_access(self, token: str) -> None:
        """Where `curl` and other tools find this session: readable by its user only."""
        path = self._state / "access.env"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(f"TICKWHEEL_ENDPOINT={self._url()}\nTICKWHEEL_TOKEN={token}\n")

    async def _watch(self, workers: Workers, leading: asyncio.Task[None], seconds: float | None) -> None:
        """Follow edits and draw, until it is time to stop."""
        deadline = None if seconds is None else self._started + seconds
        with self._drawing() as live:
            while not self._stop.is_set() and not leading.done():
                if self._folder.changed() and self._host is not None:
                    for command in self._folder.read(self._clock.now_ms()):
                        self._host.post(command)
                await workers.reconcile(self._folder.pools.values())
                self._picture.notice = workers.last_exit or self._missing_handlers(workers)
                self._draw(live, workers)
                now = time.monotonic()
                if deadline is not None and now >= deadline:
                    return
                pause = _POLL_S if deadline is None else min(_POLL_S, deadline - now)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), pause)
        if leading.done():
            leading.result()

    def _missing_handlers(self, workers: Workers) -> str:
        if workers.handler_files():
            return ""
        return f"no handlers yet: put a Python file with @task functions into {self._directory}"

    def _drawing(self) -> contextlib.AbstractContextManager[Live | None]:
        if not self._console.is_terminal:
            return contextlib.nullcontext()
        return Live(console=self._console, refresh_per_second=4, screen=False)

    def _draw(self, live: Live | None, workers: Workers) -> None:
        if live is not None and self._host is not None:
            ledger = f"epoch {self._host.epoch}"
            live.update(
                self._picture.draw(self._folder.tasks, self._folder.faults, workers.running(), ledger, self._started)
            )
        elif live is None:
            self._report_plainly()

    _last_plain = 0.0
    _last_faults: tuple[object, ...] = ()

    def _report_plainly(self) -> None:
        faults = tuple(self._folder.faults)
        if faults != self._last_faults:
            self._last_faults = faults
            for fault in self._folder.faults:
                self._console.print(f"{fault.file}: {fault.path}: {fault.message}", highlight=False)
        now = time.monotonic()
        if now - self._last_plain >= 10:
            self._last_plain = now
            self._picture.print_plain(self._console, self._folder.tasks)

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False)
