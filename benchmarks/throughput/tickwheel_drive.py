"""Drives Tickwheel's side: a control plane of its own, one operator, worker processes, both stages.

Everything is on this machine and the real thing: etcd with fsync, kube-apiserver, the operator with its own
ServiceAccount and the roles that ship, workers through the SDK over HTTP. See README.md for what is measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "cluster"))

from benchmarks.throughput.figures import Latency, LatencyStage, Side, ThroughputStage  # noqa: E402
from benchmarks.throughput.processes import end, running  # noqa: E402
from benchmarks.throughput.tickwheel_side import (  # noqa: E402
    API_SERVER_COUNTERS,
    ETCD_COUNTERS,
    Metrics,
    Snapshot,
    Usage,
    snapshot,
    usage,
)
from tests.integration.installation import apply, install  # noqa: E402
from tests.integration.processes import OperatorProcess  # noqa: E402

from tickwheel_cluster import ControlPlane  # noqa: E402

__all__ = ["measure_tickwheel"]

_WORKERS = int(os.environ.get("BENCH_WORKERS", "1"))
_SLOTS = int(os.environ.get("BENCH_SLOTS", "1000"))
_BATCH = 1_000
"""Runs per submission in the throughput stage: the protocol's limit."""
_SUBMITTERS = 4
_IDLE_S = 3.0


class _Bench:
    """A running Tickwheel."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.cluster = stack.enter_context(ControlPlane(folder / "cluster"))
        install(self.cluster)
        self.token = "benchmark"
        (folder / "token").write_text(self.token)
        apply(
            self.cluster,
            {
                "apiVersion": "tickwheel.io/v1alpha1",
                "kind": "WorkerPool",
                "metadata": {"name": "bench", "namespace": "default"},
                "spec": {"replicas": _WORKERS, "slots": _SLOTS},
            },
            *(_task(name) for name in ("noop", "timed")),
        )
        self.operator = OperatorProcess(
            self.cluster,
            folder,
            "operator",
            TICKWHEEL_TOKEN_FILE=str(folder / "token"),
            TICKWHEEL_LEASE_DURATION_MS="15000",
            TICKWHEEL_RENEW_DEADLINE_MS="10000",
            TICKWHEEL_RETRY_PERIOD_MS="2000",
            TICKWHEEL_MAX_BACKLOG="1000000",
        )
        stack.enter_context(self.operator)
        self.operator.wait_ready()
        self.workers = [self._worker(number) for number in range(_WORKERS)]
        for process in self.workers:
            stack.callback(end, process)

    def _worker(self, number: int) -> Any:
        return self._stack.enter_context(
            running(
                [sys.executable, str(Path(__file__).with_name("tickwheel_worker.py"))],
                log=self.folder / f"worker-{number}.log",
                environment={
                    **os.environ,
                    "TICKWHEEL_ENDPOINT": self.operator.url,
                    "TICKWHEEL_TOKEN": self.token,
                    "TICKWHEEL_NAMESPACE": "default",
                    "TICKWHEEL_POOL": "bench",
                    "TICKWHEEL_WORKER_NAME": f"w-{number}",
                    "TICKWHEEL_SLOTS": str(_SLOTS),
                    "BENCH_PROGRESS": str(self.folder / f"progress-{number}"),
                    "BENCH_RECORD": str(self.folder / f"record-{number}"),
                },
            )
        )

    def snapshot(self, *, opening: bool) -> Snapshot:
        pids = self.cluster.pids
        assert self.operator.process is not None
        parts = {
            "store": list(pids.values()),
            "operator": [self.operator.process.pid],
            "workers": [process.pid for process in self.workers],
            "producers": [os.getpid()],
        }
        tls = ssl.create_default_context(cafile=str(self.cluster.ca_file))
        pki = self.cluster.directory / "pki"
        tls.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        metrics = [
            Metrics(url=f"{self.cluster.etcd_url}/metrics", counters=ETCD_COUNTERS),
            Metrics(url=f"{self.cluster.url}/metrics", counters=API_SERVER_COUNTERS, tls=tls),
        ]
        # Our own other children (control plane, operator, workers) have parts of their own.
        taken = snapshot(parts={k: v for k, v in parts.items() if k != "producers"}, metrics=metrics, opening=opening)
        own = time.process_time()
        return Snapshot(at_ns=taken.at_ns, cpu={**taken.cpu, "producers": own}, counters=taken.counters)

    def done(self) -> tuple[int, int]:
        """Dispatches that are durable so far, and the instant of the last (nanoseconds, monotonic)."""
        count, last = 0, 0
        for number in range(_WORKERS):
            path = self.folder / f"progress-{number}"
            words = path.read_text().split() if path.exists() else []
            if len(words) == 2:
                count += int(words[0])
                last = max(last, int(words[1]))
        return count, last

    async def submit(self, session: aiohttp.ClientSession, task: str, runs: list[dict[str, Any]]) -> None:
        url = f"{self.operator.url}/v1/tasks/default/{task}/runs"
        while True:
            async with session.post(url, json={"runs": runs}) as answer:
                if answer.status in (421, 429, 503):
                    await asyncio.sleep(0.05)
                    continue
                if answer.status != 200:
                    raise RuntimeError(f"submit answered {answer.status}: {await answer.text()}")
                await answer.read()
                return

    def session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(headers={"Authorization": f"Bearer {self.token}"})


def _task(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "ScheduledTask",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"pool": "bench", "handler": name},
    }


async def _throughput(bench: _Bench, dispatches: int, timeout_s: float) -> tuple[float, float, Usage]:
    """Seconds in all, seconds of submitting, and what it used."""
    idle = await _idle(bench)
    already, _ = bench.done()
    before = bench.snapshot(opening=True)
    started = time.monotonic_ns()
    batches = [min(_BATCH, dispatches - at) for at in range(0, dispatches, _BATCH)]

    async with bench.session() as session:

        async def producer() -> None:
            while batches:
                await bench.submit(session, "noop", [{}] * batches.pop())

        await asyncio.gather(*(producer() for _ in range(_SUBMITTERS)))
        submitted = time.monotonic_ns()
        async with asyncio.timeout(timeout_s):
            while bench.done()[0] - already < dispatches:
                await asyncio.sleep(0.02)
    after = bench.snapshot(opening=False)
    last = bench.done()[1]
    return (last - started) / 1e9, (submitted - started) / 1e9, usage(before, after).without(idle)


async def _idle(bench: _Bench) -> Usage:
    before = bench.snapshot(opening=True)
    await asyncio.sleep(_IDLE_S)
    return usage(before, bench.snapshot(opening=False))


async def _latency(bench: _Bench, rate: float, seconds: float) -> tuple[list[int], list[int], Usage]:
    """When each dispatch was due and when it was submitted (nanoseconds, monotonic)."""
    idle = await _idle(bench)
    before = bench.snapshot(opening=True)
    count = int(rate * seconds)
    first = time.monotonic_ns() + 200_000_000
    due = [first + int(number * 1e9 / rate) for number in range(count)]
    called = [0] * count

    async with bench.session() as session, asyncio.TaskGroup() as group:
        for number in range(count):
            pause = (due[number] - time.monotonic_ns()) / 1e9
            if pause > 0:
                await asyncio.sleep(pause)
            called[number] = time.monotonic_ns()
            group.create_task(bench.submit(session, "timed", [{"parameters": {"number": number}}]))
    await asyncio.sleep(1.0)
    return due, called, usage(before, bench.snapshot(opening=False)).without(idle)


async def _measure(bench: _Bench, dispatches: int, rate: float, seconds: float, timeout_s: float) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            async with bench.session() as session:
                await bench.submit(session, "noop", [{}])
            await asyncio.sleep(0.5)
            if bench.done()[0]:
                break
    total_s, submit_s, used = await _throughput(bench, dispatches, timeout_s)
    due, called, used_at_rate = await _latency(bench, rate, seconds)
    for process in bench.workers:
        end(process, grace_s=30)
    records = [r for n in range(_WORKERS) for r in json.loads((bench.folder / f"record-{n}").read_text())]
    if len(records) != len(due):
        raise RuntimeError(f"{len(records)} of {len(due)} timed dispatches were reported")
    counters = used.counters_per(dispatches)
    return Side(
        name="tickwheel",
        versions={"python": sys.version.split()[0], "kubernetes": "1.36.3"},
        settings={"workers": _WORKERS, "slots": _SLOTS, "batch": _BATCH, "commit_interval_ms": 10},
        throughput=ThroughputStage(
            dispatches=dispatches,
            seconds=total_s,
            per_second=dispatches / total_s,
            submit_seconds=submit_s,
            cpu_us_per_dispatch=used.cpu_us_per(dispatches),
            store_bytes_per_dispatch={
                "received": counters["apiserver_request_body_size_bytes_sum"],
                "appended": counters["etcd_disk_wal_write_bytes_total"],
            },
        ),
        latency=LatencyStage(
            rate=rate,
            seconds=seconds,
            start=Latency.of([start - called[number] for number, start, _ in records]),
            durable=Latency.of([durable - called[number] for number, _, durable in records]),
            producer_late=Latency.of([at - when for at, when in zip(called, due, strict=True)]),
            cpu_us_per_dispatch=used_at_rate.cpu_us_per(len(due)),
        ),
    ).to_json()


def measure_tickwheel(dispatches: int, rate: float, seconds: float, timeout_s: float) -> dict[str, Any]:
    """Both stages. Raises what went wrong, with the operator's last words."""
    import uvloop

    with tempfile.TemporaryDirectory(prefix="tickwheel-bench-") as name, ExitStack() as stack:
        bench = _Bench(Path(name), stack)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(_measure(bench, dispatches, rate, seconds, timeout_s))
        except Exception as error:
            raise RuntimeError(f"{error!r}; the operator's last words:\n{bench.operator.log_tail()}") from error


if __name__ == "__main__":
    json.dump(measure_tickwheel(*map(float, sys.argv[1:])) if sys.argv[1:] else {}, sys.stdout, indent=1)
