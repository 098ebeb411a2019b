"""One operator without gateway and election, in a process of its own so that its memory is its own.

`run.py` starts it; it prints one JSON object when every status is right and it was watched idling, and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import secrets
import sys
import time
from collections import Counter
from pathlib import Path

from kubernetes.aio.config import new_client_from_config

from tickwheel_operator.clock import SystemClock
from tickwheel_operator.controllers.catalog import Catalog
from tickwheel_operator.controllers.requests import Requests
from tickwheel_operator.controllers.watch import Watch, WatchConfig
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.sqlite import SqliteSegmentStore
from tickwheel_operator.projection.config import ProjectionConfig
from tickwheel_operator.projection.projector import Projector
from tickwheel_operator.runtime.memory import settle_memory
from tickwheel_operator.runtime.partition import PartitionHost

_QUIET_S = 5.0
"""So long without a write: every status is right."""


class Term:
    """A lease that is always fresh."""

    epoch_floor = 0

    def is_fresh(self) -> bool:
        return True


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**20, 1)


def peak_resident_mb() -> float:
    # getrusage would also count what the parent had when it forked.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)


class Lag:
    """The longest that the event loop kept a timer waiting, in milliseconds."""

    def __init__(self) -> None:
        self.worst_ms = 0.0

    async def measure(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            self.worst_ms = max(self.worst_ms, (time.perf_counter() - before) * 1000 - 5)

    def take(self) -> float:
        worst, self.worst_ms = self.worst_ms, 0.0
        return round(worst, 1)


async def idle(host: PartitionHost, seconds: float) -> dict[str, object]:
    """The CPU share of this process, in percent, while all it does is wait; `idle_runs` of 0: nothing was due."""
    runs, started, cpu = len(host.engine.state.runs), time.monotonic(), time.process_time()
    await asyncio.sleep(seconds)
    share = (time.process_time() - cpu) / (time.monotonic() - started)
    return {"idle_cpu_percent": round(100 * share, 3), "idle_runs": len(host.engine.state.runs) - runs}


async def measure(kubeconfig: str, ledger: str, writes_per_s: float, idle_s: float) -> dict[str, object]:
    faults: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(repr(context)))
    client = await new_client_from_config(config_file=kubeconfig)
    clock, catalog = SystemClock(), Catalog()
    requests = Requests(clock.now_ms, catalog.objects)
    kube = KubeClient(client)
    watch = Watch(kube, catalog, requests, clock, config=WatchConfig(watch_pods=False))
    projector = Projector(
        kube,
        catalog.objects,
        catalog,
        requests,
        clock,
        config=ProjectionConfig(writes_per_s=writes_per_s, burst=20),
    )
    catalog.on_change.append(projector.changed)
    requests.on_change = projector.changed
    log = Ledger(
        SqliteSegmentStore(Path(ledger)), partition=0, leader="bench", clock=clock,
        nonces=lambda: secrets.token_hex(8),
    )  # fmt: skip
    host = PartitionHost(log, Term(), clock, sink=projector)
    lag, figures = Lag(), {"resident_before_mb": resident_mb()}
    started, cpu = time.monotonic(), time.process_time()
    measuring = asyncio.create_task(lag.measure())
    parts = (settle_memory(catalog), watch.run(), requests.run(), projector.run())
    running = [asyncio.create_task(part) for part in parts]
    await catalog.wait_synced()
    figures |= {
        "listed_s": round(time.monotonic() - started, 2),
        "listed_cpu_s": round(time.process_time() - cpu, 2),
        "listed_resident_mb": resident_mb(),
        "listed_worst_lag_ms": lag.take(),
    }
    before = time.monotonic()
    await host.take_over(catalog.snapshot)
    catalog.attach(host.post_all)
    projector.lead()
    running.append(asyncio.create_task(host.run()))
    figures["armed_s"] = round(time.monotonic() - before, 2)
    await asyncio.sleep(0.1)
    figures["armed_worst_lag_ms"] = lag.take()
    figures["tasks"] = len(catalog.tasks())
    figures["armed"] = sum(entry.fault is None for entry in catalog.tasks())
    written = -1
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < _QUIET_S:
        await asyncio.sleep(0.2)
        now = sum(projector.writes.values())
        if now != written or projector.pending or host.engine.has_news:
            written, quiet_since = now, time.monotonic()
    figures |= {
        "shown_s": round(quiet_since - before, 2),
        "shown_worst_lag_ms": lag.take(),
        "resident_mb": resident_mb(),
        "peak_resident_mb": peak_resident_mb(),
        "cpu_s": round(time.process_time() - cpu, 2),
        "requests": dict(Counter({f"{kind} {outcome}": n for (kind, outcome), n in projector.writes.items()})),
    }
    measuring.cancel()  # it wakes 200 times a second, which no operator does
    figures |= await idle(host, idle_s)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await client.close()
    if faults:
        raise RuntimeError(f"figures of an operator that failed are none: {faults[0]}")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kubeconfig")
    parser.add_argument("ledger")
    parser.add_argument("--writes-per-s", type=float, default=500.0)
    parser.add_argument("--idle-s", type=float, default=10.0, help="how long it is watched idling")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        measured = measure(options.kubeconfig, options.ledger, options.writes_per_s, options.idle_s)
        json.dump(asyncio.run(measured), sys.stdout)


if __name__ == "__main__":
    main()
