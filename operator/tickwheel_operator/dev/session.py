"""`tickwheel dev DIR`: everything in one process but the workers.

The folder takes the place of the API server, SQLite that of etcd; engine, ledger protocol, gateway and workers are
the ones that run in a cluster. Ending is orderly: firing stops, the workers drain, then the ledger gets the last
facts. A second signal cuts that short, and a killed session leaves a ledger that the next one goes on from.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.live import Live

from tickwheel_operator.api.documents import SUFFIXES
from tickwheel_operator.clock import SystemClock
from tickwheel_operator.dev.errors import DevError
from tickwheel_operator.dev.folder import Folder
from tickwheel_operator.dev.lock import folder_lock
from tickwheel_operator.dev.table import Headline, Picture
from tickwheel_operator.dev.terms import Terms
from tickwheel_operator.dev.watched import listed
from tickwheel_operator.dev.workers import Workers, handler_files
from tickwheel_operator.engine.messages import WorkerGone
from tickwheel_operator.gateway.config import GatewayConfig
from tickwheel_operator.gateway.server import Gateway
from tickwheel_operator.identity.callers import AllowAll, StaticTokenAuthenticator
from tickwheel_operator.ledger.log import Ledger, LedgerLimits
from tickwheel_operator.ledger.sqlite import SqliteSegmentStore
from tickwheel_operator.runtime.backend import HostBackend
from tickwheel_operator.runtime.partition import PartitionHost

__all__ = ["LEDGER_FILE", "STATE_FOLDER", "DevSession"]

STATE_FOLDER = ".tickwheel"
"""Inside the manifests' folder: ledger, object memory, token, logs."""
LEDGER_FILE = "ledger.sqlite"

_LOOK_S = 0.25
"""Files are looked at, and the table is drawn, so often."""
_LINES_S = 10.0
"""Without a terminal, the tasks are told of so often."""
_NEWS_S = 30.0
"""How long the table shows what has happened once, such as the end of a worker."""
_LAST_APPEND_S = 10.0
_PATIENT_MS = 365 * 86_400_000
"""How long an append is tried: nobody else could take over, so a full disk is waited for, as long as the user likes."""


class _SoleTerm:
    """Dev mode has no rival to elect against: the folder's lock keeps a second session out, and were there one, the
    ledger's fence would stop this."""

    epoch_floor = 0

    def is_fresh(self) -> bool:
        return True


class _LogFile(logging.FileHandler):
    """A log that cannot be written is no reason to fill the terminal with tracebacks: the session says the cause."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class DevSession:
    """One run of the dev command."""

    def __init__(self, directory: Path, console: Console, *, port: int = 0) -> None:
        """`port` 0 takes a free one."""
        self._directory = directory.resolve()
        self._console = console
        self._state = self._directory / STATE_FOLDER
        self._logs = self._state / "logs"
        self._port = port
        self._clock = SystemClock()
        self._picture = Picture()
        self._started = time.monotonic()
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        self._ending = ""
        self._news: list[tuple[float, str]] = []
        """What has happened once, with when: shown for a while, or said in a line where there is no terminal."""
        self._said: set[str] = set()
        self._undrawn: set[str] = set()
        """Why the table could not be drawn, each said once."""
        self._lines_due = 0.0

    async def run(self, seconds: float | None = None) -> bool:
        """Run until a signal comes, or for so many seconds. Returns whether it could drain.

        Raises `DevError` where it cannot start, and the ledger's errors.
        """
        if not any(listed(self._directory, SUFFIXES)) and not handler_files(self._directory):
            raise DevError(
                f"there is nothing to run in {self._directory}: it has no manifests (*.yaml with a ScheduledTask) and "
                "no handlers (*.py with @task functions); examples/quickstart shows both"
            )
        with self._state_folder():
            self._logs.mkdir(parents=True, exist_ok=True)
            (self._state / ".gitignore").write_text("*\n", encoding="utf-8")
        with folder_lock(self._state / "lock", self._directory), self._signals(), self._logging():
            return await self._lead(seconds)

    async def _lead(self, seconds: float | None) -> bool:
        folder = Folder(self._directory, self._state / "objects.json")
        store = SqliteSegmentStore(self._state / LEDGER_FILE)
        terms = Terms(lambda: self._host(store), folder, self._tell)
        try:
            folder.read(self._clock.now_ms())
            async with self._gateway(terms) as token:
                if not await self._take_over(terms, store):
                    return False
                await self._work(terms, folder, store, token, seconds)
        finally:
            await store.close()
        self._picture.show(terms.engine.views(1_000_000))
        self._say_faults(folder)
        self._print(self._picture.summary(folder.tasks, time.monotonic() - self._started))
        return not self._at_once.is_set()

    def _host(self, store: SqliteSegmentStore) -> PartitionHost:
        ledger = Ledger(
            store,
            partition=0,
            leader=f"dev-{os.getpid()}",
            clock=self._clock,
            nonces=lambda: secrets.token_hex(8),
            limits=LedgerLimits(append_deadline_ms=_PATIENT_MS),
        )
        return PartitionHost(ledger, _SoleTerm(), self._clock, sink=self._picture)

    async def _take_over(self, terms: Terms, store: SqliteSegmentStore) -> bool:
        """Read the ledger, and say what keeps it from being written. Returns whether nobody ended the session."""
        taking = asyncio.create_task(terms.take_over(), name="takeover")
        try:
            while not taking.done() and not self._stop.is_set():
                await asyncio.wait({taking}, timeout=_LOOK_S)
                if store.problem and store.problem not in self._said:
                    self._said.add(store.problem)
                    self._print(store.problem)
            if taking.done():
                taking.result()
                return True
            return False
        finally:
            await _ended(taking)

    async def _work(
        self, terms: Terms, folder: Folder, store: SqliteSegmentStore, token: str, seconds: float | None
    ) -> None:
        """The term: as long as the partition is led, and nobody ends the session."""
        leading = asyncio.create_task(terms.run(), name="partition")
        workers = Workers(
            self._directory,
            self._logs,
            self._url(),
            token,
            on_gone=lambda key: terms.post(WorkerGone(key=key)),
            say=self._tell,
        )
        problems = lambda: [text for text in (workers.problem, store.problem, folder.keep()) if text]  # noqa: E731
        working = asyncio.create_task(self._watch(terms, folder, workers, problems, seconds), name="watch")
        try:
            async with workers:
                try:
                    await asyncio.wait({leading, working}, return_when=asyncio.FIRST_COMPLETED)
                    if working.done():
                        working.result()
                finally:
                    await _ended(working)
            terms.stop()
            await asyncio.wait({leading}, timeout=_LAST_APPEND_S)
            if not leading.done():
                why = store.problem or f"see {self._logs}"
                raise DevError(f"the ledger did not take the last facts in {_LAST_APPEND_S:.0f} s: {why}")
            leading.result()
        finally:
            await _ended(leading)

    async def _watch(
        self,
        terms: Terms,
        folder: Folder,
        workers: Workers,
        problems: Callable[[], list[str]],
        seconds: float | None,
    ) -> None:
        """Follow edits and draw; then drain, drawing on."""
        deadline = None if seconds is None else self._started + seconds
        draining: asyncio.Task[None] | None = None
        with self._drawing() as live:
            while draining is None or not draining.done():
                if draining is None:
                    if folder.changed():
                        for command in folder.read(self._clock.now_ms()):
                            terms.post(command)
                    workers.reconcile(folder.pools.values())
                self._show(live, terms, folder, workers, problems())
                now = time.monotonic()
                if draining is None and (self._stop.is_set() or (deadline is not None and now >= deadline)):
                    self._ending = "draining; Ctrl-C again ends at once"
                    if live is None:
                        self._print("draining")
                    for command in folder.paused():
                        terms.post(command)
                    draining = asyncio.create_task(workers.drain(), name="drain")
                    continue
                if draining is None:
                    await _within(_LOOK_S if deadline is None else min(_LOOK_S, deadline - now), self._stop)
                    continue
                if self._at_once.is_set():
                    workers.kill()
                await asyncio.wait({draining}, timeout=_LOOK_S)
            self._show(live, terms, folder, workers, problems())
        draining.result()

    # --- its surroundings ---

    @contextlib.asynccontextmanager
    async def _gateway(self, terms: Terms) -> AsyncIterator[str]:
        """The gateway on the loopback address; gives the token that it asks for."""
        token = secrets.token_urlsafe(24)
        backend = HostBackend(lambda: terms.host, lambda: ("", 0), self._url, self._clock)
        config = GatewayConfig(host="127.0.0.1", port=self._port)
        gateway = Gateway(backend, StaticTokenAuthenticator(token), AllowAll(), config)
        try:
            try:
                await gateway.start()
            except OSError as error:
                raise DevError(
                    f"the gateway cannot listen on 127.0.0.1 port {self._port}: {error.strerror or error}; name "
                    "another --port, or leave it out for a free one"
                ) from error
            self._port = gateway.port
            self._write_access(token)
            yield token
        finally:
            await gateway.stop()

    def _url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _write_access(self, token: str) -> None:
        """Where `curl` and other tools find this session: readable by its user only."""
        path = self._state / "access.env"
        with self._state_folder():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"TICKWHEEL_ENDPOINT={self._url()}\nTICKWHEEL_TOKEN={token}\n")

    @contextlib.contextmanager
    def _state_folder(self) -> Iterator[None]:
        """What the session cannot do without: it does not begin where this cannot be written."""
        try:
            yield
        except OSError as error:
            what = error.strerror or error
            raise DevError(f"{self._state} cannot be written: {what}; dev mode keeps its ledger there") from error

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """The first signal drains, the second ends at once. A terminal that was closed takes no more text."""
        loop = asyncio.get_running_loop()

        def stop(number: signal.Signals) -> None:
            if number is signal.SIGHUP:
                self._console.quiet = True
            (self._at_once if self._stop.is_set() else self._stop).set()

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, stop, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    @contextlib.contextmanager
    def _logging(self) -> Iterator[None]:
        """The log goes to a file: on the terminal it would tear the table apart."""
        with self._state_folder():
            handler = _LogFile(self._logs / "dev.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root = logging.getLogger()
        before = root.level
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        try:
            yield
        finally:
            root.removeHandler(handler)
            root.setLevel(before)
            with contextlib.suppress(OSError):
                handler.close()

    # --- what a person sees ---

    def _drawing(self) -> contextlib.AbstractContextManager[Live | None]:
        if not self._console.is_terminal:
            return contextlib.nullcontext()
        # Transient: the summary takes its place at the end.
        return Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")

    def _show(self, live: Live | None, terms: Terms, folder: Folder, workers: Workers, problems: list[str]) -> None:
        """What cannot be shown costs nobody a run."""
        try:
            self._draw(live, terms, folder, workers, problems)
        except OSError:
            raise
        except Exception as error:
            text = f"the tasks cannot be shown: {error!r}; dev.log has the traceback, please report it"
            if text not in self._undrawn:
                self._undrawn.add(text)
                logging.getLogger(__name__).exception(text)
                self._print(text)

    def _draw(self, live: Live | None, terms: Terms, folder: Folder, workers: Workers, problems: list[str]) -> None:
        self._picture.pools = terms.engine.views(0).pools
        faults = [*problems, *(str(fault) for fault in folder.faults)]
        notes = self._notes(folder, workers)
        if live is None:
            self._say_lines(folder, faults, notes)
            return
        now = time.monotonic()
        self._news = [(at, text) for at, text in self._news if now - at < _NEWS_S]
        headline = Headline(
            workers=workers.running(), seconds=now - self._started, url=self._url(), ending=self._ending
        )
        notes += [text for _, text in self._news]
        live.update(self._picture.draw(self._console, folder.tasks, headline, faults, notes), refresh=True)

    def _notes(self, folder: Folder, workers: Workers) -> list[str]:
        notes = []
        if not folder.tasks and not folder.faults:
            notes.append(f"no tasks yet: put a manifest (*.yaml) with a ScheduledTask into {self._directory}")
        if workers.missing:
            notes.append(f"no handlers yet: put a Python file with @task functions into {self._directory}")
        if not self._ending:
            notes += self._picture.unregistered(folder.tasks.values())
        return notes + folder.remarks

    def _say_lines(self, folder: Folder, faults: list[str], notes: list[str]) -> None:
        """Without a terminal: each message once, and the tasks now and then."""
        news, self._news = [text for _, text in self._news], []
        standing = [*faults, *notes]
        for text in (*(text for text in standing if text not in self._said), *news):
            self._print(text)
        self._said = set(standing)
        if time.monotonic() >= self._lines_due:
            self._lines_due = time.monotonic() + _LINES_S
            for line in self._picture.lines(folder.tasks):
                self._print(line)

    def _say_faults(self, folder: Folder) -> None:
        """The summary would read as if all were well."""
        if self._console.is_terminal:
            for fault in folder.faults:
                self._print(str(fault))

    def _tell(self, text: str) -> None:
        self._news.append((time.monotonic(), text))
        logging.getLogger(__name__).info(text)

    def _print(self, what: object) -> None:
        try:
            if isinstance(what, str):
                self._console.print(what, highlight=False, markup=False, soft_wrap=not self._console.is_terminal)
            else:
                self._console.print(what)
        except OSError:
            # Whoever read the output is gone (`| head`): that ends the session, in order.
            self._console.quiet = True
            self._stop.set()


async def _within(seconds: float, event: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
