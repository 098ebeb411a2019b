"""One measurement of the engine in one process: what `engine.py` starts, one after the other. Prints one JSON object.

The engine as the operator runs it, behind `PartitionHost`, on uvloop, with a SQLite ledger that syncs every append;
no API server, and workers that are coroutines of the same process: what is left is the cost of time itself.

| case | what it does |
|---|---|
| arm | N tasks in the catalog of a leader that takes over; 100,000 more, one by one, and as many together |
| idle | N armed tasks of which none is due: the processor time of the sleeping host |
| cost | the engine alone, without host and ledger: microseconds to fire, to lease and to end a run |
| lateness | `--rate` tasks of one second, spread evenly over the second, while `--armed` others wait |
| burst | N tasks that are due at the same instant |

A task of its own timer is the dear kind (`--triggers own`: a fixed rate with an anchor of its own); `shared` is the
usual kind, cron expressions of which a day has 1,440, so that tasks share timers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import resource
import secrets
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402
import uvloop  # noqa: E402
from benchmarks.timers.distribution import Spread  # noqa: E402

from tickwheel._early import EarlyStarts  # noqa: E402
from tickwheel_operator.clock import SystemClock  # noqa: E402
from tickwheel_operator.controllers.catalog import TOGETHER  # noqa: E402
from tickwheel_operator.engine import messages as m  # noqa: E402
from tickwheel_operator.engine.core import Engine  # noqa: E402
from tickwheel_operator.engine.model.snapshot import Snapshot  # noqa: E402
from tickwheel_operator.engine.sources import ByClock  # noqa: E402
from tickwheel_operator.engine.spec import PoolSpec, TaskSpec  # noqa: E402
from tickwheel_operator.engine.triggers import CronTrigger, FixedRateTrigger, OnceTrigger, Trigger  # noqa: E402
from tickwheel_operator.ledger.facts import Fired  # noqa: E402
from tickwheel_operator.ledger.log import Ledger  # noqa: E402
from tickwheel_operator.ledger.sqlite import SqliteSegmentStore  # noqa: E402
from tickwheel_operator.runtime.memory import collect_rarely, leave_alone  # noqa: E402
from tickwheel_operator.runtime.partition import PartitionHost  # noqa: E402

Figures = dict[str, Any]

_DAY_MS = 86_400_000
_ADDED = 100_000
"""Tasks that come while the leader leads."""
_POOL = PoolSpec(namespace="shops", name="pool")
_WORKERS = 4
_SLOTS = 1_000
"""Of each worker. What is leased to it ends at once, as with a handler that does nothing."""
_PULL_MS = 20_000


def resident_bytes() -> int:
    """What this process has in memory now, after a collection."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def peak_mb() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


# --- tasks ------------------------------------------------------------------------------------------------


def task(number: int, trigger: Trigger, created_ms: int, source: random.Random) -> TaskSpec:
    """A task as `kinds.compile_task` makes it: strings of its own for what is its own, shared ones for the rest."""
    return TaskSpec(
        uid=str(uuid.UUID(int=source.getrandbits(128))), namespace="shops", name=f"task-{number:07d}", generation=1,
        created_ms=created_ms, source=ByClock(trigger), pool="pool", handler="greet",
    )  # fmt: skip


def waiting_tasks(count: int, triggers: str, *, seed: int = 20_260_101) -> list[TaskSpec]:
    """Tasks that are not due for an hour."""
    source = random.Random(seed)
    now_ms = time.time_ns() // 1_000_000
    first_ms = now_ms + 3_600_000
    crons: dict[int, CronTrigger] = {}

    def trigger(number: int) -> Trigger:
        if triggers == "own":
            return FixedRateTrigger(_DAY_MS, first_ms + source.randrange(_DAY_MS - 7_200_000))
        # An hour away too: minutes of the day that begin one hour from now.
        minute = (first_ms // 60_000 + 1 + number % 1_320) % 1_440
        return crons.setdefault(minute, CronTrigger(f"{minute % 60} {minute // 60} * * *"))

    return [task(number, trigger(number), now_ms, source) for number in range(count)]


# --- the host and its workers -----------------------------------------------------------------------------


class _Term:
    """A lease that is always fresh."""

    epoch_floor = 0

    def is_fresh(self) -> bool:
        return True


@asynccontextmanager
async def leading(specs: list[TaskSpec]) -> AsyncIterator[PartitionHost]:
    """A host that leads the tasks, with a ledger in a temporary folder."""

    def catalog() -> Iterator[m.Command]:
        yield m.PoolApplied(spec=_POOL)
        for spec in specs:
            yield m.TaskApplied(spec=spec)

    clock = SystemClock()
    with tempfile.TemporaryDirectory(prefix="tickwheel-timers-") as folder:
        store = SqliteSegmentStore(Path(folder) / "ledger.sqlite")
        ledger = Ledger(store, partition=0, leader="bench", clock=clock, nonces=lambda: secrets.token_hex(8))
        host = PartitionHost(ledger, _Term(), clock)
        # As the operator does when its catalog is complete, before it leads.
        collect_rarely()
        leave_alone()
        await host.take_over(catalog)
        running = asyncio.create_task(host.run(), name="host")
        try:
            yield host
        finally:
            host.stop()
            await asyncio.wait({running}, timeout=10)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)  # it may be writing, into the folder that goes
            await store.close()
        if running.done() and not running.cancelled() and (error := running.exception()):
            raise error


class Worker:
    """Pulls and reports through the host, as the gateway does for a worker; a lease is done when it begins."""

    def __init__(self, host: PartitionHost, number: int, started: Callable[[m.Delivery], None]) -> None:
        self._host = host
        self._number = number
        self._started = started
        self._seen = m.WorkerSeen(
            key=m.WorkerKey("shops", "pool", f"w-{number}"), instance="i", handlers=("greet",), slots=_SLOTS,
            clock_error_us=0,
        )  # fmt: skip
        self._received = 0
        self._requests = 0
        self._done: list[int] = []
        self._wake = asyncio.Event()
        # The SDK's own, which waits for the instant to a tenth of a millisecond.
        self._early = EarlyStarts(self._start)

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pull())
                group.create_task(self._report())
        finally:
            self._early.close()

    async def _pull(self) -> None:
        while True:
            pull = m.Pull(
                request=self._request(), worker=self._seen, free=_SLOTS, received=self._received,
                until_ms=time.time_ns() // 1_000_000 + _PULL_MS,
            )  # fmt: skip
            pulled = await self._host.call(pull)
            assert isinstance(pulled, m.Pulled), pulled
            for delivery in pulled.deliveries:
                self._received = max(self._received, delivery.token)
                early_s = delivery.not_before_ms / 1000 - time.time() if delivery.not_before_ms else 0.0
                if early_s > 0:
                    self._early.add(delivery, time.monotonic() + early_s)  # type: ignore[arg-type]
                else:
                    self._start([delivery])

    def _start(self, deliveries: list[Any]) -> None:
        for delivery in deliveries:
            self._started(delivery)
            self._done.append(delivery.token)
        self._wake.set()

    async def _report(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            done, self._done = self._done, []
            await self._host.call(m.Report(request=self._request(), worker=self._seen, succeeded=done))

    def _request(self) -> tuple[int, int]:
        self._requests += 1
        return self._number, self._requests


@asynccontextmanager
async def working(host: PartitionHost, started: Callable[[m.Delivery], None]) -> AsyncIterator[None]:
    """Workers that take all there is."""
    workers = [asyncio.create_task(Worker(host, number, started).run()) for number in range(_WORKERS)]
    try:
        yield
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def watch_fires(host: PartitionHost, decided: Callable[[Fired, float], None]) -> None:
    """Call `decided` with each fact of a firing, and the instant (s) at which the engine had made it."""
    handle = host.engine.handle

    def watched(*command_and_time: Any) -> m.Output:
        output = handle(*command_and_time)
        now = time.time()
        for fact in output.facts:
            if isinstance(fact, Fired):
                decided(fact, now)
        return output

    host.engine.handle = watched  # type: ignore[method-assign,assignment]


class Stops:
    """What holds the loop up while it fires: slices of checkpoints, full collections, slow appends (milliseconds)."""

    def __init__(self, host: PartitionHost) -> None:
        self._checkpoints = 0
        self._slice_max_ms = 0.0
        self._collections: list[float] = []
        self._appends: list[float] = []
        self._began = 0.0
        self._snapshot = host.engine.snapshot
        host.engine.snapshot = self._watched  # type: ignore[method-assign,assignment]
        host.append_observer = lambda seconds, size, facts: self._appends.append(seconds * 1000)
        gc.callbacks.append(self._collected)

    def _watched(self) -> _TimedSnapshot:
        began = time.perf_counter()
        snapshot = self._snapshot()
        self._checkpoints += 1
        self._stood_still((time.perf_counter() - began) * 1000)
        return _TimedSnapshot(snapshot, self._stood_still)

    def _stood_still(self, milliseconds: float) -> None:
        self._slice_max_ms = max(self._slice_max_ms, milliseconds)

    def _collected(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self._collections.append((time.perf_counter() - self._began) * 1000)

    def to_json(self) -> Figures:
        appends = Spread.of(self._appends)
        return {
            "appends": appends.count,
            "append_p50_ms": appends.p50_ms,
            "append_p99_ms": appends.p99_ms,
            "checkpoints": self._checkpoints,
            "checkpoint_slice_max_ms": self._slice_max_ms,
            "collection_max_ms": max(self._collections, default=0.0),
        }


class _TimedSnapshot:
    """Tells how long each chunk took to make."""

    def __init__(self, snapshot: Snapshot, took_ms: Callable[[float], None]) -> None:
        self._snapshot = snapshot
        self._took_ms = took_ms

    def __iter__(self) -> Iterator[bytes]:
        chunks = iter(self._snapshot)
        while True:
            began = time.perf_counter()
            chunk = next(chunks, None)
            self._took_ms((time.perf_counter() - began) * 1000)
            if chunk is None:
                return
            yield chunk

    def end(self) -> None:
        self._snapshot.end()


# --- the cases --------------------------------------------------------------------------------------------


async def arm(tasks: int, triggers: str) -> Figures:
    before = resident_bytes()
    specs = waiting_tasks(tasks, triggers)
    specified = resident_bytes()
    started = time.perf_counter()
    async with leading(specs) as host:
        taken_over_s = time.perf_counter() - started
        armed = resident_bytes()
        more = waiting_tasks(_ADDED, triggers, seed=7)
        # Their names are those of tasks that exist: another namespace, so that they are others.
        commands = [m.TaskApplied(spec=msgspec.structs.replace(spec, namespace="stores")) for spec in more]
        one_by_one_s = _timed(lambda: [host.post(command) for command in commands])
        more = waiting_tasks(_ADDED, triggers, seed=8)
        commands = [m.TaskApplied(spec=msgspec.structs.replace(spec, namespace="markets")) for spec in more]
        added_s = _timed(lambda: [host.post_all(some) for some in _batches(commands)])
        timers = len(host.engine.wheel)
    return {
        "tasks": tasks,
        "timers": timers,
        "take_over_s": taken_over_s,
        "arm_100k_s": taken_over_s * _ADDED / tasks,
        "add_100k_s": added_s,
        "add_100k_one_by_one_s": one_by_one_s,
        "spec_bytes_per_task": (specified - before) / tasks,
        "engine_bytes_per_task": (armed - specified) / tasks,
        "bytes_per_task": (armed - before) / tasks,
        "engine_mb": (armed - specified) / 1e6,
        "memory_mb": (armed - before) / 1e6,
        "peak_mb": peak_mb(),
    }


def _batches(commands: list[m.Command]) -> Iterator[list[m.Command]]:
    """As the catalog posts them where a pool or a calendar of many tasks has changed."""
    return (commands[first : first + TOGETHER] for first in range(0, len(commands), TOGETHER))


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


async def idle(tasks: int, seconds: float) -> Figures:
    async with leading(waiting_tasks(tasks, "own")):
        await asyncio.sleep(2.0)
        used, begun = time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        used, lasted = time.process_time() - used, time.monotonic() - begun
    return {"tasks": tasks, "seconds": lasted, "cpu_s": used, "cpu_share": used / lasted}


async def cost(tasks: int) -> Figures:
    now_ms = 1_900_000_000_000
    source = random.Random(1)
    engine = Engine(now_ms=now_ms)
    engine.handle(m.PoolApplied(spec=_POOL), now_ms)
    # Ten a millisecond, as at 10,000 fires a second.
    lasts_ms = max(1, tasks // 10)
    for number in range(tasks):
        spec = task(number, OnceTrigger(now_ms + 1 + source.randrange(lasts_ms)), now_ms, source)
        engine.handle(m.TaskApplied(spec=spec), now_ms)
    engine.handle(m.CatalogSynced(), now_ms)
    gc.collect()
    gc.freeze()
    started = time.perf_counter()
    # All in one tick would be a misfire; a tick of each millisecond is what a host does under load.
    for at_ms in range(now_ms + 1, now_ms + lasts_ms + 1):
        engine.handle(m.Tick(), at_ms)
    fired_s = time.perf_counter() - started
    fired = engine.stats.runs_created
    at_ms = now_ms + lasts_ms
    seen = m.WorkerSeen(key=m.WorkerKey("shops", "pool", "w"), instance="i", handlers=("greet",), slots=_SLOTS)
    received, ended, leased_s, ended_s = 0, 0, 0.0, 0.0
    while ended < fired:
        begun = time.perf_counter()
        output = engine.handle(m.Pull(request=1, worker=seen, free=500, received=received, until_ms=at_ms + 1), at_ms)
        tokens = [d.token for effect in output.effects if isinstance(effect, m.Pulled) for d in effect.deliveries]
        leased_s += time.perf_counter() - begun
        if not tokens:
            raise RuntimeError(f"{ended} of {fired} runs were leased, then none")
        received = tokens[-1]
        begun = time.perf_counter()
        engine.handle(m.Report(request=2, worker=seen, succeeded=tokens), at_ms)
        ended_s += time.perf_counter() - begun
        ended += len(tokens)
    return {
        "tasks": tasks,
        "fired": fired,
        "fire_us": fired_s / fired * 1e6,
        "lease_us": leased_s / fired * 1e6,
        "end_us": ended_s / fired * 1e6,
        "run_us": (fired_s + leased_s + ended_s) / fired * 1e6,
    }


def add(host: PartitionHost, triggers: list[Trigger]) -> None:
    """Tasks that fire, beside those that wait: they come while the host leads."""
    source, now_ms = random.Random(1), time.time_ns() // 1_000_000
    for number, trigger in enumerate(triggers):
        host.post(m.TaskApplied(spec=task(10_000_000 + number, trigger, now_ms, source)))


async def lateness(rate: int, seconds: int, armed: int) -> Figures:
    decided: list[float] = []
    begun: list[float] = []
    async with leading(waiting_tasks(armed, "own")) as host:
        first_ms = (time.time_ns() // 1_000_000_000 + 3) * 1000
        last_ms = first_ms + seconds * 1000

        def on_fire(fact: Fired, now: float) -> None:
            if first_ms <= fact.scheduled_ms < last_ms:
                decided.extend([now * 1000 - fact.scheduled_ms] * len(fact.tasks))

        def on_start(delivery: m.Delivery) -> None:
            if first_ms <= delivery.scheduled_ms < last_ms:
                begun.append(time.time_ns() / 1e6 - delivery.scheduled_ms)

        watch_fires(host, on_fire)
        stops = Stops(host)
        async with working(host, on_start):
            add(host, [FixedRateTrigger(1_000, first_ms + number * 1000 // rate - 1_000) for number in range(rate)])
            await asyncio.sleep(first_ms / 1000 - 0.1 - time.time())
            used, began = time.process_time(), time.time()
            await asyncio.sleep(last_ms / 1000 + 0.1 - time.time())
            used, lasted = time.process_time() - used, time.time() - began
            patience = time.monotonic() + seconds
            while len(begun) < rate * seconds and time.monotonic() < patience:
                await asyncio.sleep(0.1)
    expected = rate * seconds
    return {
        "rate": rate,
        "expected": expected,
        "fired": len(decided),
        "started": len(begun),
        "dropped": expected - len(begun),
        "decided": Spread.of(decided).to_json(),
        "start": Spread.of(begun).to_json(),
        "cpu_share": used / lasted,
        "cpu_us_per_fire": used / max(1, len(begun)) * 1e6,
        **stops.to_json(),
    }


async def burst(tasks: int, triggers: str, armed: int) -> Figures:
    decided: list[float] = []
    begun: list[float] = []
    done = asyncio.Event()
    async with leading(waiting_tasks(armed, "own")) as host:
        due_ms = (time.time_ns() // 1_000_000_000 + 3 + tasks // 20_000) * 1000

        def trigger(number: int) -> Trigger:
            # Different triggers that happen to meet have a timer each; equal ones share one.
            return FixedRateTrigger(3_600_000 + number, due_ms) if triggers == "own" else OnceTrigger(due_ms)

        def on_fire(fact: Fired, now: float) -> None:
            if fact.scheduled_ms == due_ms:
                decided.append(now * 1000 - due_ms)

        def on_start(_: m.Delivery) -> None:
            begun.append(time.time_ns() / 1e6 - due_ms)
            if len(begun) == tasks:
                done.set()

        watch_fires(host, on_fire)
        async with working(host, on_start):
            add(host, [trigger(number) for number in range(tasks)])
            left_s = due_ms / 1000 - time.time()
            if left_s < 0.5:
                raise RuntimeError(f"the tasks were added {0.5 - left_s:.1f} s too late for their instant")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s + 30):
                    await done.wait()
            # Time for a run that would be started twice.
            await asyncio.sleep(0.5)
    return {
        "tasks": tasks,
        "started": len(begun),
        "dropped": tasks - len(begun),
        "decided_ms": max(decided),
        "first_start_ms": min(begun),
        "p50_start_ms": Spread.of(begun).p50_ms,
        "all_started_ms": max(begun),
        "workers": _WORKERS,
        "slots": _SLOTS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=["arm", "idle", "cost", "lateness", "burst"])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--triggers", choices=["own", "shared"], default="own")
    parser.add_argument("--armed", type=int, default=0)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--seconds", type=int, default=10)
    chosen = parser.parse_args()
    match chosen.case:
        case "arm":
            measure = arm(chosen.tasks, chosen.triggers)
        case "idle":
            measure = idle(chosen.tasks, chosen.seconds)
        case "cost":
            measure = cost(chosen.tasks)
        case "lateness":
            measure = lateness(chosen.rate, chosen.seconds, chosen.armed)
        case _:
            measure = burst(chosen.tasks, chosen.triggers, chosen.armed)
    print(json.dumps(uvloop.run(measure)))
    sys.stdout.flush()
    # Tearing down a million objects one by one takes seconds that nobody asked for.
    os._exit(0)


if __name__ == "__main__":
    main()
