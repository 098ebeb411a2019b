"""From instant to handler start on a real API server: etcd with fsync, one operator process, worker processes.

Called by `run.py`. Tasks of one second, spread evenly over the second; the handler's first line notes the wall clock.
The same tasks are measured with early leases and without, on one control plane, with an operator and workers of their
own for each; and tasks that are all due at one instant. A run is durable in etcd before its handler starts, either way.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "cluster")]

from benchmarks.throughput.processes import cpu_seconds, end, running  # noqa: E402
from benchmarks.timers.distribution import Spread  # noqa: E402
from kubernetes.aio.client import ApiException, CustomObjectsApi  # noqa: E402
from kubernetes.aio.config import new_client_from_config  # noqa: E402
from tests.integration.installation import apply, install  # noqa: E402
from tests.integration.processes import OperatorProcess  # noqa: E402

from tickwheel_cluster import ControlPlane  # noqa: E402

__all__ = ["knows_early_leases", "measure_latency"]

_SLOTS = 1_000
_SETTLE_S = 5.0
"""Between the worker's start and the first instant that counts: the overdue is settled, the clocks are compared."""
_CREATE_AT_ONCE = 8
_ANCHOR_MS = 1_750_000_000_000
"""Of all triggers; long ago, so that the objects may be made whenever it suits."""
_BURST_S = 20
"""The tasks that are due at once are so every so many seconds; the anchor is a multiple of it."""
_CLOCK_ERROR_MS = 0.1
"""A worker knows the operator's clock from its exchanges, to half of the quickest; a start is early beyond that."""
_Start = tuple[str, int, int, int]
"""Task, instant (ms), begin (us), token: as `latency_worker.py` notes it."""
Say = Callable[[str], None]


def knows_early_leases() -> bool:
    """Whether this operator has the setting."""
    asked = subprocess.run(
        [sys.executable, "-m", "tickwheel_operator.runtime", "--help"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return "--early-leases" in asked.stdout


def measure_latency(*, rates: Iterable[int], seconds: int, burst: int, workers: int, say: Say) -> dict[str, Any]:
    """All of it; `{"<mode>": {"<rate>": figures, "burst": figures}}`, the modes being `early` and `plain`.

    Raises RuntimeError with the operator's last words.
    """
    modes = {"early": "true", "plain": "false"} if knows_early_leases() else {"plain": ""}
    result: dict[str, Any] = {mode: {} for mode in modes}
    with tempfile.TemporaryDirectory(prefix="tickwheel-latency-") as name, ExitStack() as stack:
        folder = Path(name)
        say("starting etcd and the API server")
        bench = _Bench(folder, stack.enter_context(ControlPlane(folder / "cluster")), workers)
        for turn, rate in enumerate(rates):
            say(f"creating {rate} tasks of one second")
            bench.create(rate, f"every-{rate}", partial(_every_second, rate))
            # Turn about: the second of them has a ledger with the first's runs.
            for mode, value in list(modes.items())[:: -1 if turn % 2 else 1]:
                say(f"{rate} fires a second for {seconds} s, {mode}")
                result[mode][str(rate)] = bench.at_rate(rate, seconds, value)
            bench.delete(rate, f"every-{rate}")
        if burst:
            say(f"creating {burst} tasks that are all due at the same instants")
            bench.create(burst, "burst", lambda _: {"fixedRate": f"{_BURST_S}s", "anchor": _timestamp(_ANCHOR_MS)})
            for mode, value in modes.items():
                say(f"{burst} tasks at one instant, {mode}")
                result[mode]["burst"] = bench.at_once(burst, value)
    return result


def _every_second(rate: int, number: int) -> dict[str, Any]:
    return {"fixedRate": "1s", "anchor": _timestamp(_ANCHOR_MS + number * 1_000 // rate)}


def _timestamp(instant_ms: int) -> str:
    return datetime.fromtimestamp(instant_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _counts(starts: list[_Start], expected: int) -> dict[str, int]:
    """Runs, and how often one was started more than once: by another attempt, as at least once may, or by the same."""
    runs, attempts = len({(name, at) for name, at, _, _ in starts}), len({token for _, _, _, token in starts})
    return {
        "expected": expected,
        "started": runs,
        "dropped": expected - runs,
        "twice": len(starts) - runs,
        "twice_by_one_attempt": len(starts) - attempts,
    }


class _Bench:
    """A control plane with our kinds, and what is started on it."""

    def __init__(self, folder: Path, cluster: ControlPlane, workers: int) -> None:
        self._folder = folder
        self._cluster = cluster
        self._workers = workers
        self._lives = 0
        install(cluster)
        (folder / "token").write_text("benchmark")
        pool = {
            "apiVersion": "tickwheel.io/v1alpha1",
            "kind": "WorkerPool",
            "metadata": {"name": "bench", "namespace": "default"},
            "spec": {"slots": _SLOTS},
        }
        apply(cluster, pool)

    # --- objects ---

    def create(self, count: int, prefix: str, trigger: Callable[[int], dict[str, Any]]) -> None:
        async def create(api: CustomObjectsApi, number: int) -> None:
            body = {
                "apiVersion": "tickwheel.io/v1alpha1",
                "kind": "ScheduledTask",
                "metadata": {"name": f"{prefix}-{number}", "namespace": "default"},
                "spec": {"pool": "bench", "handler": "timed", "trigger": trigger(number)},
            }
            await api.create_namespaced_custom_object("tickwheel.io", "v1alpha1", "default", "scheduledtasks", body)

        asyncio.run(self._for_all(count, create))

    def delete(self, count: int, prefix: str) -> None:
        async def delete(api: CustomObjectsApi, number: int) -> None:
            try:
                await api.delete_namespaced_custom_object(
                    "tickwheel.io", "v1alpha1", "default", "scheduledtasks", f"{prefix}-{number}"
                )
            except ApiException as error:
                if error.status != 404:
                    raise

        asyncio.run(self._for_all(count, delete))

    async def _for_all(self, count: int, action: Callable[[CustomObjectsApi, int], Any]) -> None:
        client = await new_client_from_config(config_file=str(self._cluster.admin_kubeconfig))
        try:
            api, numbers = CustomObjectsApi(client), iter(range(count))

            async def some() -> None:
                for number in numbers:
                    await action(api, number)

            async with asyncio.TaskGroup() as group:
                for _ in range(_CREATE_AT_ONCE):
                    group.create_task(some())
        finally:
            await client.close()

    # --- one operator and its workers ---

    @contextmanager
    def _running(self, early: str) -> Iterator[tuple[OperatorProcess, Callable[[], list[_Start]]]]:
        """An operator and workers; the function ends the workers and gives what they noted."""
        self._lives += 1
        settings = {"TICKWHEEL_EARLY_LEASES": early} if early else {}
        operator = OperatorProcess(
            self._cluster, self._folder, f"operator-{self._lives}", TICKWHEEL_TOKEN_FILE=str(self._folder / "token"),
            TICKWHEEL_WATCH_NAMESPACES="default", **settings,
        )  # fmt: skip
        with ExitStack() as stack:
            stack.enter_context(operator)
            operator.wait_ready()
            workers = [stack.enter_context(self._worker(operator.url, number)) for number in range(self._workers)]

            def records() -> list[_Start]:
                for worker in workers:
                    end(worker, grace_s=30)
                found = []
                for number in range(self._workers):
                    path = self._record(number)
                    if not path.exists():
                        log = path.with_suffix(".log").read_text(errors="replace")[-3000:]
                        raise RuntimeError(f"worker {number} left no record; its last words:\n{log}")
                    found += json.loads(path.read_text())
                return found

            try:
                yield operator, records
            except Exception as error:
                raise RuntimeError(f"{error!r}; the operator's last words:\n{operator.log_tail()}") from error
            # SIGTERM gives the Lease back, so that the next operator leads at once.
            operator.terminate()

    def _record(self, number: int) -> Path:
        return self._folder / f"worker-{self._lives}-{number}.json"

    def _worker(self, url: str, number: int) -> Any:
        record = self._record(number)
        return running(
            [sys.executable, str(Path(__file__).with_name("latency_worker.py"))],
            log=record.with_suffix(".log"),
            environment={
                "TICKWHEEL_ENDPOINT": url,
                "TICKWHEEL_TOKEN": "benchmark",
                "TICKWHEEL_NAMESPACE": "default",
                "TICKWHEEL_POOL": "bench",
                "TICKWHEEL_WORKER_NAME": f"w-{self._lives}-{number}",
                "TICKWHEEL_SLOTS": str(_SLOTS),
                "BENCH_RECORD": str(record),
            },
        )

    # --- what is measured ---

    def at_rate(self, rate: int, seconds: int, early: str) -> dict[str, Any]:
        with self._running(early) as (operator, records):
            first_ms = (int(time.time() + _SETTLE_S) + 1) * 1000
            last_ms = first_ms + seconds * 1000
            alone = [sys.executable, str(Path(__file__).with_name("bare_timer.py"))]
            bare = subprocess.Popen([*alone, *map(str, (first_ms, last_ms, rate))], stdout=subprocess.PIPE, text=True)
            try:
                time.sleep(max(0.0, first_ms / 1000 - time.time()))
                parts = self._parts(operator)
                before = {name: cpu_seconds(pids) for name, pids in parts.items()}
                time.sleep(max(0.0, last_ms / 1000 - time.time()))
                used = {name: cpu_seconds(pids) - before[name] for name, pids in parts.items()}
                woken = Spread.of(json.loads(bare.communicate(timeout=30)[0]))
            finally:
                bare.kill()
            time.sleep(1.0)
            noted = records()
        starts = [start for start in noted if first_ms <= start[1] < last_ms]
        late = [began / 1000 - at for _, at, began, _ in starts]
        return {
            "rate": rate,
            **_counts(starts, rate * seconds),
            "early": sum(value < -_CLOCK_ERROR_MS for value in late),
            "earliest_ms": round(min(late), 3) if late else None,
            **Spread.of(late).to_json(),
            "bare_p50_ms": woken.p50_ms,
            "bare_p99_ms": woken.p99_ms,
            "bare_max_ms": woken.max_ms,
            "cpu_us_per_fire": {name: round(value * 1e6 / max(1, len(starts)), 1) for name, value in used.items()},
        }

    def at_once(self, tasks: int, early: str) -> dict[str, Any]:
        with self._running(early) as (_, records):
            # What was overdue when the operator came is over by then.
            period_ms, soonest_ms = _BURST_S * 1000, (time.time() + _SETTLE_S + tasks / 2_000) * 1000
            due_ms = _ANCHOR_MS + (int(soonest_ms - _ANCHOR_MS) // period_ms + 1) * period_ms
            time.sleep(due_ms / 1000 - time.time() + 3 + tasks / 1_000)
            noted = records()
        starts = [start for start in noted if start[1] == due_ms]
        if not starts:
            raise RuntimeError(f"none of {tasks} runs started")
        spread = Spread.of([began / 1000 - due_ms for _, _, began, _ in starts])
        return {
            "tasks": tasks,
            **_counts(starts, tasks),
            "first_start_ms": round(min(start[2] for start in starts) / 1000 - due_ms, 3),
            "p50_start_ms": spread.p50_ms,
            "all_started_ms": spread.max_ms,
            "workers": self._workers,
            "slots": _SLOTS,
        }

    def _parts(self, operator: OperatorProcess) -> dict[str, list[int]]:
        assert operator.process is not None
        return {"operator": [operator.process.pid], "store": list(self._cluster.pids.values())}


if __name__ == "__main__":
    os.chdir(ROOT)
    figures = measure_latency(
        rates=[int(word) for word in sys.argv[1].split(",")], seconds=int(sys.argv[2]), burst=int(sys.argv[3]),
        workers=int(sys.argv[4]), say=lambda text: print(text, file=sys.stderr, flush=True),
    )  # fmt: skip
    json.dump(figures, sys.stdout, indent=1)
