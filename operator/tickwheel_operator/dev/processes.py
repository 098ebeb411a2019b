"""Local worker processes: one set for each pool, restarted when a handler file changes or a process dies."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tickwheel_operator.dev.folder import LocalPool

__all__ = ["Workers"]

_RESTART_PAUSE_S = 1.0
_LOG_BYTES = 4 * 1024 * 1024


class _Process:
    """One worker's place: at most one process at a time holds it."""

    def __init__(self, pool: LocalPool, number: int) -> None:
        self.pool = pool
        self.name = f"{pool.name}-{number}"
        self.process: asyncio.subprocess.Process | None = None
        self.started = 0.0
        self.exits = 0


class Workers:
    """Keeps the processes in line with the pools and the handler files."""

    def __init__(self, directory: Path, state: Path, endpoint: str, token: str) -> None:
        self._directory = directory
        self._logs = state / "logs"
        self._logs.mkdir(exist_ok=True)
        self._environment = {
            **os.environ,
            "TICKWHEEL_ENDPOINT": endpoint,
            "TICKWHEEL_TOKEN": token,
            "PYTHONUNBUFFERED": "1",
        }
        self._places: dict[tuple[str, str], _Process] = {}
        self._stamps: dict[Path, int] = {}
        self.last_exit = ""
        """What a person should know of the last process that died by itself."""

    def handler_files(self) -> list[Path]:
        """The folder's Python files: each registers handlers when it is imported."""
        return sorted(self._directory.glob("*.py"))

    async def reconcile(self, pools: Iterable[LocalPool]) -> None:
        """Start what is missing, stop what is too many, restart all when a handler file changed."""
        stamps = {path: path.stat().st_mtime_ns for path in self.handler_files()}
        if stamps != self._stamps:
            changed, self._stamps = bool(self._stamps), stamps
            if changed:
                await self._stop(list(self._places.values()))
        wanted = {(pool.name, f"{pool.name}-{n}"): (pool, n) for pool in pools for n in range(pool.replicas)}
        await self._stop([place for key, place in self._places.items() if key not in wanted])
        self._places = {key: place for key, place in self._places.items() if key in wanted}
        if not stamps:
            return
        for key, (pool, number) in wanted.items():
            place = self._places.get(key)
            if place is None or place.pool != pool:
                if place is not None:
                    await self._stop([place])
                place = self._places[key] = _Process(pool, number)
            await self._keep_alive(place)

    async def stop(self) -> None:
        """Drain: each process finishes what it runs and reports it."""
        await self._stop(list(self._places.values()))

    def running(self) -> int:
        return sum(p.process is not None and p.process.returncode is None for p in self._places.values())

    async def _keep_alive(self, place: _Process) -> None:
        if place.process is not None:
            if place.process.returncode is None:
                return
            if time.monotonic() - place.started < _RESTART_PAUSE_S * min(2**place.exits, 30):
                return
            place.exits = 0 if time.monotonic() - place.started > 60 else place.exits + 1
            self.last_exit = f"worker {place.name} ended with code {place.process.returncode}; see {self._log(place)}"
        environment = {
            **self._environment,
            "TICKWHEEL_NAMESPACE": place.pool.namespace,
            "TICKWHEEL_POOL": place.pool.name,
            "TICKWHEEL_WORKER_NAME": place.name,
            "TICKWHEEL_SLOTS": str(place.pool.slots),
        }
        log = self._log(place)
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_suffix(".old"))
        place.started = time.monotonic()
        with log.open("ab") as output:
            # A session of its own: Ctrl-C reaches only the dev command, which then drains the workers in order.
            place.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tickwheel", *map(str, self.handler_files()),
                env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    async def _stop(self, places: list[_Process]) -> None:
        running = [p.process for p in places if p.process is not None and p.process.returncode is None]
        for process in running:
            process.terminate()
        waits = [asyncio.create_task(process.wait()) for process in running]
        if waits:
            _, late = await asyncio.wait(waits, timeout=20)
            for process in running:
                if process.returncode is None:
                    process.kill()
            if late:
                await asyncio.wait(late, timeout=5)
        for place in places:
            place.process = None

    def _log(self, place: _Process) -> Path:
        return self._logs / f"{place.name}.log"
