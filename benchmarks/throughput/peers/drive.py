"""Measure one peer, from a cold Redis to its figures as JSON: `python -m ...peers.drive --peer NAME`.

Started by `run.py` with the interpreter of the peers' environment. Two stages, each with a new Redis and new workers:
as many dispatches as were asked for, as fast as the peer can; then dispatches at fixed instants. What is
measured is the same for every peer: from the first call of submit to the last durable result, seen in Redis by an
observer, and nothing counts that failed. Every wait here has a deadline, and everything that was started is ended.
"""

from __future__ import annotations

import argparse
import json
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.throughput.figures import Latency, LatencyStage, Side, ThroughputStage
from benchmarks.throughput.peers.contenders import Asynq, Celery, Contender, Taskiq
from benchmarks.throughput.peers.redis_server import RedisServer, durable_redis
from benchmarks.throughput.processes import cpu_seconds, running

__all__ = ["PeerFailed", "measure"]

_WARM_UP = 100
"""Tasks that each producer sends before the clock starts: they prove that the workers work and open connections."""
_READY_TIMEOUT_S = 60.0
_POLL_S = 0.005
"""Between looks at the number of durable results; the error of a throughput run's length is at most this."""


class PeerFailed(RuntimeError):
    """A peer did not do what was asked of it: the run has no figures for it."""


@dataclass(frozen=True, kw_only=True)
class _Observed:
    """One stage as it was seen."""

    redis_version: str
    seconds: float
    submit_seconds: float
    cpu: Mapping[str, float]
    received: int
    appended: int
    submits: list[dict[str, Any]]
    starts: dict[str, int]
    durables: dict[str, int]


class _Producer:
    """A producing process on the other side of the barrier."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def _line(self) -> str:
        # A producer says one line at a time, so that nothing can hide from select in the pipe's own buffer.
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _READY_TIMEOUT_S)[0]:
            raise PeerFailed(f"a producer said nothing for {_READY_TIMEOUT_S:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise PeerFailed("a producer ended before its work was done; its log is above")
        return line

    def wait_until_ready(self) -> None:
        if (line := self._line()) != "ready\n":
            raise PeerFailed(f"a producer said {line!r} instead of ready")

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def report(self) -> dict[str, Any]:
        return dict(json.loads(self._line()))


@contextmanager
def _observer(contender: Contender, server: RedisServer) -> Iterator[dict[str, int]]:
    """Note when the durable result of each task is announced: a mapping that fills while the block runs."""
    durables: dict[str, int] = {}
    writes: Counter[str] = Counter()
    prefix = contender.result_pattern.removesuffix("*")
    stop = threading.Event()
    with server.client() as client, client.pubsub() as subscription:
        client.config_set("notify-keyspace-events", "K" + contender.event_class)
        subscription.psubscribe(contender.result_pattern)
        if subscription.get_message(timeout=5.0) is None:
            raise PeerFailed("Redis did not confirm the subscription to its keyspace events")

        def listen() -> None:
            while not stop.is_set():
                message = subscription.get_message(timeout=0.2)
                now_ns = time.monotonic_ns()
                if message is None or message["type"] != "pmessage" or message["data"] != contender.event:
                    continue
                task_id = message["channel"].decode().removeprefix(prefix)
                writes[task_id] += 1
                if writes[task_id] == contender.writes_to_durable:
                    durables[task_id] = now_ns

        thread = threading.Thread(target=listen, name="durable-observer")
        thread.start()
        try:
            yield durables
        finally:
            stop.set()
            thread.join()


def _wait_for_count(
    count: Callable[[], int], wanted: int, *, timeout_s: float, poll_s: float, alive: Callable[[], None]
) -> int:
    """Wait until so many results are durable; return the instant at which that was seen."""
    deadline = time.monotonic() + timeout_s
    while (found := count()) < wanted:
        if time.monotonic() > deadline:
            raise PeerFailed(f"{found} of {wanted} results were durable after {timeout_s:.0f} s")
        alive()
        time.sleep(poll_s)
    return time.monotonic_ns()


def _stage(contender: Contender, *, count: int, rate: float, timeout_s: float) -> _Observed:
    """Run `count` dispatches with a new Redis and new workers; `rate` 0 means as fast as it goes."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"tickwheel-bench-{contender.name}-")))
        log = folder / "log"
        starts_file = folder / "starts" if rate else None
        stack.callback(_show_log_on_failure, log)
        server = stack.enter_context(durable_redis())
        workers = [
            stack.enter_context(running(command.arguments, log=log, environment=command.environment))
            for command in contender.workers(server, starts=starts_file)
        ]
        shares = _shares(count, 1 if rate else contender.producers)
        command = contender.producer(server)
        producers = []
        for index, share in enumerate(shares):
            arguments = [
                *command.arguments, "--prefix", f"p{index}", "--count", str(share), "--rate", str(rate),
                "--concurrency", str(contender.in_flight), "--warm-up", str(_WARM_UP),
            ]  # fmt: skip
            process = stack.enter_context(
                running(arguments, log=log, environment=command.environment, conversation=True, grace_s=3.0)
            )
            producers.append(_Producer(process))

        def alive() -> None:
            for worker in workers:
                if worker.poll() is not None:
                    raise PeerFailed(f"a {contender.name} worker ended with status {worker.returncode}")

        for producer in producers:
            producer.wait_until_ready()
        durable = contender.durable_counter(server)
        base = _WARM_UP * len(producers)
        _wait_for_count(durable, base, timeout_s=_READY_TIMEOUT_S, poll_s=0.05, alive=alive)
        durables = stack.enter_context(_observer(contender, server)) if rate else {}

        parts = {
            "store": [server.pid],
            "workers": [worker.pid for worker in workers],
            "producers": [producer.pid for producer in producers],
        }
        cpu_before = {part: cpu_seconds(pids) for part, pids in parts.items()}
        bytes_before = server.store_bytes()
        for producer in producers:
            producer.go()
        end_ns = _wait_for_count(
            durable, base + count, timeout_s=timeout_s, poll_s=0.1 if rate else _POLL_S, alive=alive
        )
        cpu = {part: cpu_seconds(pids) - cpu_before[part] for part, pids in parts.items()}
        bytes_after = server.store_bytes()
        reports = [producer.report() for producer in producers]
        if failures := contender.failures(server):
            raise PeerFailed(f"{failures} of {count} tasks of {contender.name} failed")
        first_ns = min(report["first_ns"] for report in reports)
        if rate:
            _wait_for_observer(durables, count)
        return _Observed(
            redis_version=server.version(),
            seconds=(end_ns - first_ns) / 1e9,
            submit_seconds=(max(report["last_ns"] for report in reports) - first_ns) / 1e9,
            cpu=cpu,
            received=bytes_after.received - bytes_before.received,
            appended=bytes_after.appended - bytes_before.appended,
            submits=[submit for report in reports for submit in report["submits"]],
            starts=_read_starts(starts_file),
            durables=dict(durables),
        )


def _shares(count: int, producers: int) -> list[int]:
    """Split a number into parts that differ by one at most."""
    return [count // producers + (index < count % producers) for index in range(producers)]


def _wait_for_observer(durables: Mapping[str, int], count: int) -> None:
    """The count in Redis can be ahead of the announcements that are still under way."""
    deadline = time.monotonic() + 5.0
    while len(durables) < count:
        if time.monotonic() > deadline:
            raise PeerFailed(f"the observer was told of {len(durables)} of {count} durable results")
        time.sleep(0.02)


def _read_starts(file: Path | None) -> dict[str, int]:
    """First start of each task; a task that is delivered twice started at the first."""
    starts: dict[str, int] = {}
    if file is not None:
        for line in file.read_text().splitlines():
            task_id, instant = line.split()
            starts.setdefault(task_id, int(instant))
    return starts


def _show_log_on_failure(log: Path) -> None:
    """Called when a stage ends: its log goes to standard error if it ends by an error."""
    if sys.exc_info()[0] is not None and log.exists():
        sys.stderr.write("".join(log.read_text().splitlines(keepends=True)[-40:]))


def _throughput(contender: Contender, *, dispatches: int, timeout_s: float) -> tuple[ThroughputStage, str]:
    seen = _stage(contender, count=dispatches, rate=0.0, timeout_s=timeout_s)
    stage = ThroughputStage(
        dispatches=dispatches,
        seconds=round(seen.seconds, 3),
        per_second=round(dispatches / seen.seconds, 1),
        submit_seconds=round(seen.submit_seconds, 3),
        cpu_us_per_dispatch=_microseconds(seen.cpu, dispatches),
        store_bytes_per_dispatch={
            "received": round(seen.received / dispatches, 1),
            "appended": round(seen.appended / dispatches, 1),
        },
    )
    return stage, seen.redis_version


def _latency(contender: Contender, *, rate: float, seconds: float, timeout_s: float) -> LatencyStage:
    count = int(rate * seconds)
    seen = _stage(contender, count=count, rate=rate, timeout_s=seconds + timeout_s)
    return LatencyStage(
        rate=rate,
        seconds=seconds,
        start=Latency.of([seen.starts[submit["id"]] - submit["submit_ns"] for submit in seen.submits]),
        durable=Latency.of([seen.durables[submit["id"]] - submit["submit_ns"] for submit in seen.submits]),
        producer_late=Latency.of([submit["submit_ns"] - submit["due_ns"] for submit in seen.submits]),
        cpu_us_per_dispatch=_microseconds(seen.cpu, count),
    )


def _microseconds(cpu: Mapping[str, float], dispatches: int) -> dict[str, float]:
    return {part: round(seconds * 1e6 / dispatches, 1) for part, seconds in cpu.items()}


def measure(contender: Contender, *, dispatches: int, rate: float, seconds: float, timeout_s: float) -> Side:
    """Measure both stages of a peer.

    Parameters
    ----------
    dispatches:
        How many in the throughput stage.
    rate, seconds:
        Dispatches a second in the latency stage, and its length.
    timeout_s:
        Seconds that each stage may take beyond what its rate asks for; then the peer has failed.
    """
    throughput, redis_version = _throughput(contender, dispatches=dispatches, timeout_s=timeout_s)
    return Side(
        name=contender.name,
        versions={**contender.versions(), "redis-server": redis_version},
        settings=contender.settings(),
        throughput=throughput,
        latency=_latency(contender, rate=rate, seconds=seconds, timeout_s=timeout_s),
    )


def _end(_signal: int, _frame: object) -> NoReturn:
    """On SIGTERM leave through the `with` blocks, which end everything that was started."""
    raise SystemExit(143)


def main() -> None:
    """Parse the arguments, measure, write the figures as JSON."""
    parser = argparse.ArgumentParser("drive", description=__doc__)
    parser.add_argument("--peer", choices=["asynq", "celery", "taskiq"], required=True)
    parser.add_argument("--asynq-binary", default="", help="the built peers/asynq; only for asynq")
    parser.add_argument("--dispatches", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="dispatches a second in the latency stage")
    parser.add_argument("--seconds", type=float, required=True, help="length of the latency stage")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds that a stage may take")
    parser.add_argument("--out", type=Path, default=Path("/dev/stdout"), help="file for the figures as JSON")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    contenders: dict[str, Callable[[], Contender]] = {
        "asynq": lambda: Asynq(binary=arguments.asynq_binary),
        "celery": Celery,
        "taskiq": Taskiq,
    }
    contender = contenders[arguments.peer]()
    side = measure(
        contender,
        dispatches=arguments.dispatches,
        rate=arguments.rate,
        seconds=arguments.seconds,
        timeout_s=arguments.timeout,
    )
    arguments.out.write_text(json.dumps(side.to_json()))


if __name__ == "__main__":
    main()
