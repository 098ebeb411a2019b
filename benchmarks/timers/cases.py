"""One measurement in one process: what `wheel.py` and `contenders.py` start, one after the other, so that no case warms
or crowds another. Prints one JSON object.

All schedulers get the same seeded instants. Memory is the growth of the resident set, which counts what
the allocator really took; it is read after a collection. Costs are per operation, over all operations of a
batch, with the collector on, as in a server.
"""

import argparse
import asyncio
import gc
import heapq
import json
import math
import os
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import uvloop
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from tickwheel_operator.engine.triggers import FixedRateTrigger
from tickwheel_operator.engine.wheel import Timer, TimingWheel

START_MS = 1_900_000_000_000
DAY_MS = 86_400_000
CANCEL_SHARE = 10
"""One timer in so many is cancelled, and armed again."""


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def instants(timers: int) -> list[int]:
    """Return the instants of all timers: spread over a day."""
    source = random.Random(20_260_101)
    return [START_MS + source.randrange(DAY_MS) for _ in range(timers)]


# --- arming many timers -----------------------------------------------------------------------------------


def fill_wheel(timers: int) -> dict[str, float]:
    source = random.Random(20_260_101)
    gc.collect()
    before = resident_bytes()
    wheel = TimingWheel(START_MS)
    begun = time.perf_counter()
    for _ in range(timers):
        wheel.insert(START_MS + source.randrange(DAY_MS), None)
    insert_s = time.perf_counter() - begun - drawing_s(timers)
    gc.collect()
    grown = resident_bytes() - before

    # Handles to cancel: armed besides, so that the memory above is that of the timers alone.
    handles: list[Timer] = [wheel.insert(at, None) for at in instants(timers)[::CANCEL_SHARE]]
    random.Random(1).shuffle(handles)
    cancel_s = timed(lambda: [wheel.cancel(handle) for handle in handles])
    insert_late_s = timed(lambda: [wheel.insert(handle.at_ms, None) for handle in handles])
    armed = len(wheel)
    fire_s = timed(lambda: wheel.advance(START_MS + DAY_MS))
    return costs(timers, grown, insert_s, len(handles), cancel_s, insert_late_s, armed, fire_s)


def fill_heap(timers: int) -> dict[str, float]:
    """A binary heap whose cancelled entries stay until they surface: what the wheel was weighed against."""
    source = random.Random(20_260_101)
    serial = count()
    gc.collect()
    before = resident_bytes()
    heap: list[list[Any]] = []
    begun = time.perf_counter()
    for _ in range(timers):
        heapq.heappush(heap, [START_MS + source.randrange(DAY_MS), next(serial), None, True])
    insert_s = time.perf_counter() - begun - drawing_s(timers)
    gc.collect()
    grown = resident_bytes() - before

    handles = [[at, next(serial), None, True] for at in instants(timers)[::CANCEL_SHARE]]
    for handle in handles:
        heapq.heappush(heap, handle)
    random.Random(1).shuffle(handles)

    def cancel_all() -> None:
        for handle in handles:
            handle[3] = False

    def arm_again() -> None:
        for handle in handles:
            heapq.heappush(heap, [handle[0], next(serial), None, True])

    def fire_all() -> None:
        due = []
        while heap:
            entry = heapq.heappop(heap)
            if entry[3]:
                due.append(entry)

    cancel_s = timed(cancel_all)
    insert_late_s = timed(lambda: [heapq.heappush(heap, [handle[0], next(serial), None, True]) for handle in handles])
    armed = len(heap) - len(handles)
    fire_s = timed(fire_all)
    return costs(timers, grown, insert_s, len(handles), cancel_s, insert_late_s, armed, fire_s)


def fill_apscheduler(timers: int) -> dict[str, float]:
    async def fill() -> dict[str, float]:
        scheduler = AsyncIOScheduler(timezone=UTC)
        scheduler.start(paused=True)
        dates = [datetime.fromtimestamp(at / 1000, UTC) for at in instants(timers)]
        gc.collect()
        before = resident_bytes()
        insert_s = timed(lambda: [scheduler.add_job(nothing, "date", run_date=date) for date in dates])
        gc.collect()
        grown = resident_bytes() - before
        jobs = random.Random(1).sample(scheduler.get_jobs(), timers // CANCEL_SHARE)
        cancel_s = timed(lambda: [job.remove() for job in jobs])
        insert_late_s = timed(
            lambda: [scheduler.add_job(nothing, "date", run_date=date) for date in dates[: len(jobs)]]
        )
        scheduler.shutdown(wait=False)
        return costs(timers, grown, insert_s, len(jobs), cancel_s, insert_late_s, 0, 0.0)

    return asyncio.run(fill())


def nothing() -> None:
    """Stands for a job; never called while the scheduler is paused."""


def drawing_s(timers: int) -> float:
    """Return what drawing the instants costs, to be taken off the time of a loop that draws them."""
    source = random.Random(20_260_101)
    begun = time.perf_counter()
    for _ in range(timers):
        source.randrange(DAY_MS)
    return time.perf_counter() - begun


def costs(
    timers: int,
    grown: int,
    insert_s: float,
    cancelled: int,
    cancel_s: float,
    insert_late_s: float,
    fired: int,
    fire_s: float,
) -> dict[str, float]:
    result = {
        "timers": timers,
        "insert_total_s": insert_s,
        "insert_us": insert_s / timers * 1e6,
        "insert_when_full_us": insert_late_s / cancelled * 1e6,
        "cancel_us": cancel_s / cancelled * 1e6,
        "memory_mb": grown / 1e6,
        "bytes_per_timer": grown / timers,
    }
    if fired:
        result["fire_us"] = fire_s / fired * 1e6
    return result


# --- lateness ---------------------------------------------------------------------------------------------


def lateness_of_wheel(rate: int, seconds: int, *, whole_ms: bool) -> dict[str, float]:
    """`rate` timers that fire once a second, spread evenly, in a loop that sleeps until the next one.

    uvloop rounds a sleep to the nearest millisecond, so that a loop which asks for the exact rest wakes too
    early, up to some fifteen times for one instant. Rounded up (`whole_ms`) it wakes once, a little later.
    """

    async def drive() -> dict[str, float]:
        lateness: list[float] = []
        first_ms = (int(time.time()) + 2) * 1000
        last_ms = first_ms + seconds * 1000
        wheel = TimingWheel(int(time.time() * 1000))
        for number in range(rate):
            trigger = FixedRateTrigger(period_ms=1_000, anchor_ms=first_ms + number * 1000 // rate)
            wheel.insert(trigger.anchor_ms, trigger)
        used = time.process_time()
        wakes = 0
        while (at := wheel.next_occupied()) is not None:
            delay = at / 1000 - time.time()
            if delay > 0:
                await asyncio.sleep(math.ceil(delay * 1000) / 1000 if whole_ms else delay)
            wakes += 1
            for timer in wheel.advance(int(time.time() * 1000)):
                lateness.append(time.time() * 1000 - timer.at_ms)
                following = timer.payload.next_after(timer.at_ms)
                if following is not None and following < last_ms:
                    wheel.insert(following, timer.payload)
        return spread(lateness, rate * seconds, time.process_time() - used) | {"wakes": wakes}

    return uvloop.run(drive())


def lateness_of_apscheduler(rate: int, seconds: int) -> dict[str, float]:
    """The same with interval jobs that are coroutines, the quickest kind that its asyncio executor has."""

    async def drive() -> dict[str, float]:
        lateness: list[float] = []
        first_ms = (int(time.time()) + 4) * 1000  # adding the jobs takes a while
        last_ms = first_ms + seconds * 1000
        scheduler = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"misfire_grace_time": None, "coalesce": False, "max_instances": 1_000},
        )

        class Job:
            def __init__(self, anchor_ms: int) -> None:
                self.at_ms = anchor_ms

            async def __call__(self) -> None:
                lateness.append(time.time() * 1000 - self.at_ms)
                self.at_ms += 1_000

        scheduler.start(paused=True)
        for number in range(rate):
            anchor_ms = first_ms + number * 1000 // rate
            scheduler.add_job(
                Job(anchor_ms).__call__,
                "interval",
                seconds=1,
                start_date=datetime.fromtimestamp(anchor_ms / 1000, UTC),
                end_date=datetime.fromtimestamp((last_ms - 1) / 1000, UTC),
            )
        used = time.process_time()
        scheduler.resume()
        give_up = last_ms / 1000 + seconds
        while len(lateness) < rate * seconds and time.time() < give_up and scheduler.get_jobs():
            await asyncio.sleep(0.25)
        await asyncio.sleep(0.25)
        result = spread(lateness, rate * seconds, time.process_time() - used)
        scheduler.shutdown(wait=False)
        return result

    return uvloop.run(drive())


# --- many at once ------------------------------------------------------------------------------------------


def burst_of_apscheduler(tasks: int, *, grace_s: int | None) -> dict[str, float]:
    """Jobs that are due at the same instant; `grace_s` is `misfire_grace_time`, whose default is 1."""

    async def drive() -> dict[str, float]:
        begun: list[float] = []
        scheduler = AsyncIOScheduler(timezone=UTC, job_defaults={"misfire_grace_time": grace_s})
        scheduler.start(paused=True)
        due_s = int(time.time()) + 3 + tasks // 20_000

        async def job() -> None:
            begun.append(time.time() - due_s)

        date = datetime.fromtimestamp(due_s, UTC)
        for _ in range(tasks):
            scheduler.add_job(job, "date", run_date=date)
        scheduler.resume()
        give_up = due_s + 30
        while len(begun) < tasks and time.time() < give_up and scheduler.get_jobs():
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        scheduler.shutdown(wait=False)
        begun.sort()
        return {
            "tasks": tasks,
            "started": len(begun),
            "dropped": tasks - len(begun),
            "first_start_ms": begun[0] * 1000 if begun else math.nan,
            "p50_start_ms": begun[len(begun) // 2] * 1000 if begun else math.nan,
            "all_started_ms": begun[-1] * 1000 if begun else math.nan,
        }

    return uvloop.run(drive())


def spread(lateness: list[float], expected: int, cpu_s: float) -> dict[str, float]:
    ordered = sorted(lateness)
    return {
        "expected": expected,
        "fired": len(ordered),
        "p50_ms": ordered[len(ordered) // 2],
        "p99_ms": ordered[len(ordered) * 99 // 100],
        "max_ms": ordered[-1],
        "cpu_s": cpu_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["fill", "lateness", "burst", "burst-default"])
    parser.add_argument("scheduler", choices=["wheel", "wheel-whole-ms", "heap", "apscheduler"])
    parser.add_argument("--timers", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--seconds", type=int, default=10)
    chosen = parser.parse_args()
    match chosen.what, chosen.scheduler:
        case "fill", "wheel":
            result = fill_wheel(chosen.timers)
        case "fill", "heap":
            result = fill_heap(chosen.timers)
        case "fill", "apscheduler":
            result = fill_apscheduler(chosen.timers)
        case "lateness", "wheel":
            result = lateness_of_wheel(chosen.rate, chosen.seconds, whole_ms=False)
        case "lateness", "wheel-whole-ms":
            result = lateness_of_wheel(chosen.rate, chosen.seconds, whole_ms=True)
        case "lateness", "apscheduler":
            result = lateness_of_apscheduler(chosen.rate, chosen.seconds)
        case "burst", "apscheduler":
            result = burst_of_apscheduler(chosen.timers, grace_s=None)
        case "burst-default", "apscheduler":
            result = burst_of_apscheduler(chosen.timers, grace_s=1)
        case what, scheduler:
            parser.error(f"there is no case {what} for {scheduler}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
