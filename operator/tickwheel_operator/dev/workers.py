"""Local worker processes: so many for each pool, replaced one by one when the handlers change.

The session calls `reconcile` at a regular pace and never waits here: each worker's place has a task of its own that
loads, replaces, restarts and drains. Invariants: a place is held by one process at a time; a process whose handlers
cannot be imported never replaces one that works; after `drain` or `kill` no process is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tickwheel_operator.dev.folder import LocalPool
from tickwheel_operator.dev.watched import Watched, listed
from tickwheel_operator.dev.worker_process import WorkerProcess, ending
from tickwheel_operator.engine.messages import WorkerKey

__all__ = ["Workers", "handler_files"]

_AGAIN_S = 15.0
"""Handlers that could not be imported are tried again so often: a package may have been installed meanwhile."""
_PAUSE_S = 1.0
"""Starts after crashes are so far apart at least; twice as far with each."""
_PAUSE_MAX_S = 30.0
_STEADY_S = 60.0
"""A worker that ran so long starts anew without a pause."""
_TURN_S = 0.1
"""How often a place looks whether it is its turn."""
_LOOK_S = 1.0
"""How often a place looks round when nothing wakes it."""
_DRAIN_MARGIN_S = 2.0
"""What a worker may take beyond its drain timeout, to report."""
_NOT_HANDLERS = ("__init__.py", "__main__.py", "conftest.py", "setup.py")


def handler_files(directory: Path) -> list[Path]:
    """The folder's Python files that are loaded for their handlers: all but tests and what Python itself names."""
    return [
        path
        for path in listed(directory, (".py",))
        if path.name not in _NOT_HANDLERS and not path.stem.startswith("test_") and not path.stem.endswith("_test")
    ]


class _Code:
    """The handlers as they are on disk."""

    def __init__(self, directory: Path) -> None:
        self.watched = Watched(lambda: handler_files(directory))
        self.files: list[Path] = []
        self.generation = 0
        """Grows with each edit."""
        self.broken = -1
        """The generation that could not be imported."""
        self.tried = 0.0
        self.turn: object = None
        """Whose process is being replaced: one at a time, so that work goes on in the others."""

    def refresh(self) -> bool:
        """Whether it is a new generation."""
        if self.generation and not self.watched.changed():
            return False
        self.files = self.watched.take()
        self.generation += 1
        return True


class Workers:
    """Keeps the processes in line with the pools and the handler files. An asynchronous context: at its end all
    processes have ended."""

    def __init__(
        self,
        directory: Path,
        logs: Path,
        endpoint: str,
        token: str,
        *,
        on_gone: Callable[[WorkerKey], None] = lambda key: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`on_gone` is told of each worker whose process has ended, `say` what a person should know once."""
        self.logs = logs
        self.code = _Code(directory)
        self.environment = {
            **os.environ,
            "TICKWHEEL_ENDPOINT": endpoint,
            "TICKWHEEL_TOKEN": token,
            "PYTHONUNBUFFERED": "1",
            # A cached module is told from an edited one by size and second: two quick edits would look the same.
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.on_gone = on_gone
        self.say = say
        self.problem = ""
        """Why the handlers on disk are not the ones that run; empty when they are."""
        self._places: dict[tuple[str, str, int], _Place] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Workers:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reconcile(self, pools: Iterable[LocalPool]) -> None:
        """Look at the files, and have each pool's workers started, replaced or drained. Raises what a place's task
        raised, which is a fault of this module."""
        if self.code.refresh():
            for place in self._places.values():
                place.code_changed()
        wanted = {(pool.namespace, pool.name, n): pool for pool in pools for n in range(pool.replicas)}
        for key, place in self._places.items():
            if key not in wanted:
                place.retire()
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.discard(task)
            task.result()
        # A place that is drained is taken out first; a new one of the same name begins when that has ended.
        self._places = {key: place for key, place in self._places.items() if not place.left}
        for key, pool in wanted.items():
            existing = self._places.get(key)
            if existing is None:
                place = self._places[key] = _Place(self, pool, key[2])
                self._tasks.add(asyncio.create_task(place.run(), name=f"place {place.name}"))
            else:
                existing.set_pool(pool)

    @property
    def missing(self) -> bool:
        """Whether there is no handler file at all."""
        return not self.code.files

    def running(self) -> int:
        """How many processes serve."""
        return sum(place.serving for place in self._places.values())

    async def drain(self) -> None:
        """Each process finishes what it runs, as long as its pool allows, and reports it. Returns when all ended."""
        for place in self._places.values():
            place.retire()
        await asyncio.gather(*self._tasks)

    def kill(self) -> None:
        """End all at once."""
        for place in self._places.values():
            place.kill()

    def broke(self, fault: str) -> None:
        """The handlers of this generation cannot be used."""
        self.code.broken = self.code.generation
        self.code.tried = time.monotonic()
        going_on = "; the workers go on with the handlers as they were" if self.running() else ""
        self.problem = f"{fault}{going_on}"


class _Place:
    """A worker's name and its task."""

    def __init__(self, workers: Workers, pool: LocalPool, number: int) -> None:
        self.name = f"{pool.name}-{number}"
        self.left = False
        """Its task has ended."""
        self._workers = workers
        self._code = workers.code
        self._pool = pool
        self._serving: WorkerProcess | None = None
        self._serves: tuple[int, LocalPool] | None = None
        """Generation and pool of the process that serves."""
        self._loading: WorkerProcess | None = None
        self._retiring = False
        self._started = 0.0
        self._crashes = 0
        self._wake = asyncio.Event()
        prefix = "" if pool.namespace == "default" else f"{pool.namespace}-"
        self._log = workers.logs / f"{prefix}{self.name}.log"

    @property
    def serving(self) -> bool:
        return self._serving is not None and self._serving.exit_code is None

    # --- told from outside: nothing here waits ---

    def set_pool(self, pool: LocalPool) -> None:
        if pool != self._pool:
            self._pool = pool
            self._wake.set()

    def code_changed(self) -> None:
        """What is being imported is out of date already (and may hang)."""
        if self._loading is not None:
            self._loading.kill()
        self._wake.set()

    def retire(self) -> None:
        """Drain, and end the task."""
        self._retiring = True
        if self._loading is not None:
            self._loading.kill()
        self._wake.set()

    def kill(self) -> None:
        self.retire()
        if self._serving is not None:
            self._serving.kill()

    # --- the task ---

    async def run(self) -> None:
        try:
            while not self._retiring:
                self._wake.clear()
                if self._serving is None:
                    await self._begin()
                elif self._serving.exit_code is not None:
                    self._ended(self._serving.exit_code)
                elif self._outdated():
                    await self._replace()
                else:
                    await self._pause(_LOOK_S)
            if self._serving is not None:
                await self._drain(self._serving, "has left")
        finally:
            for process in (self._serving, self._loading):
                if process is not None:
                    process.kill()
                    await process.wait()
            self.left = True

    def _outdated(self) -> bool:
        code = self._code
        current = (code.generation, self._pool)
        return bool(code.files) and self._serves != current and not self._known_broken()

    def _known_broken(self) -> bool:
        code = self._code
        return code.broken == code.generation and time.monotonic() - code.tried < _AGAIN_S

    async def _begin(self) -> None:
        """Nobody serves: start a process, unless it is known to be of no use."""
        if not self._code.files or self._known_broken():
            await self._pause(_LOOK_S)
            return
        rest = min(_PAUSE_MAX_S, _PAUSE_S * 2 ** (self._crashes - 1)) - (time.monotonic() - self._started)
        if self._crashes and rest > 0:
            await self._pause(rest)
            return
        if (fresh := await self._load()) is not None:
            self._serve(fresh)

    async def _replace(self) -> None:
        """Load the new handlers first; then drain the old process, and let the new one take the place."""
        code = self._code
        if code.turn is not None:
            await self._pause(_TURN_S)
            return
        code.turn = self
        try:
            fresh = await self._load()
            if fresh is None:
                return
            if self._serving is not None:
                await self._drain(self._serving, "is replaced, since its handlers or its pool changed")
            if self._retiring:
                fresh.kill()
                await fresh.wait()
            else:
                self._serve(fresh)
        finally:
            code.turn = None

    async def _load(self) -> WorkerProcess | None:
        """A process that has imported the handlers, and takes no work yet; None where they are of no use."""
        code, pool = self._code, self._pool
        generation = code.generation
        environment = {
            **self._workers.environment,
            "TICKWHEEL_NAMESPACE": pool.namespace,
            "TICKWHEEL_POOL": pool.name,
            "TICKWHEEL_WORKER_NAME": self.name,
            "TICKWHEEL_SLOTS": str(pool.slots),
            "TICKWHEEL_DRAIN_TIMEOUT": str(pool.drain_ms / 1000),
        }
        try:
            process = self._loading = await WorkerProcess.start(code.files, environment, self._log, self._wake.set)
        except OSError as error:
            self._workers.broke(f"worker {self.name} cannot be started: {error}")
            return None
        if self._retiring:
            process.kill()
        try:
            loaded = await process.loaded()
        except BaseException:
            process.kill()
            raise
        finally:
            self._loading = None
        if self._retiring or generation != code.generation:
            process.kill()
            await process.wait()
            return None
        code.watched.also(map(Path, loaded.files))
        if loaded.fault:
            await process.drain(1.0)
            self._workers.broke(loaded.fault)
            return None
        code.broken, self._workers.problem = -1, ""
        self._serves = (generation, pool)
        return process

    def _serve(self, process: WorkerProcess) -> None:
        self._started = time.monotonic()
        self._serving = process
        process.go()

    def _ended(self, code: int) -> None:
        """The process ended by itself."""
        if self._serving is not None:
            self._serving.kill()
        self._serving = self._serves = None
        self._workers.on_gone(WorkerKey(self._pool.namespace, self._pool.name, self.name))
        steady = time.monotonic() - self._started > _STEADY_S
        self._crashes = 0 if steady else self._crashes + 1
        last = _last_line(self._log) if code > 0 else ""
        self._workers.say(f"worker {self.name} {ending(code)} and is started again; see {self._log}{last}")

    async def _drain(self, process: WorkerProcess, what: str) -> None:
        if await process.drain(self._pool.drain_ms / 1000 + _DRAIN_MARGIN_S):
            self._workers.say(f"worker {self.name} {what}")
        elif not self._retiring:
            self._workers.say(f"worker {self.name} did not end in its drainTimeout and was killed; see {self._log}")
        self._serving = None
        self._workers.on_gone(WorkerKey(self._pool.namespace, self._pool.name, self.name))

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)


def _last_line(log: Path) -> str:
    """What the process said last, for a person."""
    with contextlib.suppress(OSError):
        lines = log.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()
        if lines:
            return f" ({lines[-1].strip()[:200]})"
    return ""
