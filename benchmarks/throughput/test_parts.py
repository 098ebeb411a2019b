"""Tests of the benchmark's own parts; `pytest benchmarks/throughput`. None of them says how fast anything is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from benchmarks.throughput import run
from benchmarks.throughput.figures import Latency, LatencyStage, Side, ThroughputStage, percentile
from benchmarks.throughput.processes import cpu_seconds, descendants, running
from benchmarks.throughput.tickwheel_side import Metrics, Snapshot, Usage, snapshot, usage
from rich.console import Console

_BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
METRICS = """\
# TYPE apiserver_request_body_size_bytes histogram
apiserver_request_body_size_bytes_bucket{resource="a",verb="create",le="+Inf"} 3
apiserver_request_body_size_bytes_sum{resource="a b",verb="create"} 1000
apiserver_request_body_size_bytes_sum{resource="c",verb="update"} 2.5e+03
etcd_mvcc_put_total 7
"""


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not _alive(pid)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([5, 1, 4, 2, 3], 0.5) == 3
    assert percentile(list(range(1, 101)), 0.99) == 99
    assert percentile(list(range(1, 101)), 1) == 100
    with pytest.raises(ValueError, match="measured nothing"):
        percentile([], 0.5)


def test_processor_time_of_ended_and_of_living_children_is_charged(tmp_path: Path) -> None:
    # given a process with a child that has burnt time and ended, and one that has burnt time and lives
    parent = (
        "import subprocess, sys, time\n"
        f"subprocess.run([sys.executable, '-c', {_BURN!r}])\n"
        f"child = subprocess.Popen([sys.executable, '-c', {_BURN + 'print(1, flush=True); time.sleep(60)'!r}],"
        " stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\nprint('burnt', flush=True)\ntime.sleep(60)\n"
    )
    with running([sys.executable, "-c", parent], log=tmp_path / "log", conversation=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        # then both are in its account
        assert len(descendants([process.pid])) == 2
        assert cpu_seconds([process.pid]) >= 0.58


def test_what_a_block_started_is_gone_after_it_with_its_children(tmp_path: Path) -> None:
    shell = ["sh", "-c", "trap '' TERM; sleep 60 & echo $!; wait; sleep 60"]
    with running(shell, log=tmp_path / "log", conversation=True, grace_s=0.2) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert _alive(child)
    assert _gone(process.pid)
    assert _gone(child)


def test_a_process_ends_when_the_benchmark_itself_is_killed(tmp_path: Path) -> None:
    benchmark = (
        "import time\nfrom pathlib import Path\nfrom benchmarks.throughput.processes import running\n"
        f"with running(['sleep', '60'], log=Path({str(tmp_path / 'log')!r})) as process:\n"
        "    print(process.pid, flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", benchmark], stdout=subprocess.PIPE, text=True, cwd=run.ROOT)
    try:
        assert process.stdout is not None
        child = int(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert _gone(child)


@pytest.fixture
def endpoint() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers["Authorization"] == "Bearer secret"
            self.send_response(200 if allowed else 401)
            self.end_headers()
            self.wfile.write(METRICS.encode() if allowed else b"")

        def log_message(self, *_: Any) -> None:
            """Keep the test's output quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_snapshot_sums_a_counter_over_its_labels_and_knows_its_parts(endpoint: str) -> None:
    counters = ["apiserver_request_body_size_bytes_sum", "etcd_mvcc_put_total", "not_there"]
    metrics = Metrics(url=endpoint, counters=counters, token="secret")
    seen = snapshot(parts={"me": [os.getpid()]}, metrics=[metrics], opening=True)
    assert seen.counters == {"apiserver_request_body_size_bytes_sum": 3500.0, "etcd_mvcc_put_total": 7.0}
    assert seen.cpu["me"] > 0


def test_usage_is_a_difference_less_what_idleness_uses() -> None:
    before = Snapshot(at_ns=0, cpu={"store": 1.0}, counters={"bytes": 100.0})
    after = Snapshot(at_ns=10_000_000_000, cpu={"store": 3.0}, counters={"bytes": 1100.0})
    idle = Usage(seconds=5.0, cpu={"store": 0.5}, counters={"bytes": 100.0})
    used = usage(before, after).without(idle)
    assert used.cpu_us_per(1000) == {"store": 1000.0}
    assert used.counters_per(100) == {"bytes": 8.0}
    with pytest.raises(ValueError, match="different parts"):
        usage(before, Snapshot(at_ns=1, cpu={"other": 1.0}, counters={}))


def _side(name: str, per_second: float) -> dict[str, Any]:
    latency = Latency.of([1_000_000, 2_000_000])
    return Side(
        name=name,
        versions={},
        settings={},
        throughput=ThroughputStage(
            dispatches=100,
            seconds=1.0,
            per_second=per_second,
            submit_seconds=1.0,
            cpu_us_per_dispatch={"store": 10.0},
            store_bytes_per_dispatch={"received": 10.0, "appended": 10.0},
        ),
        latency=LatencyStage(
            rate=100.0,
            seconds=1.0,
            start=latency,
            durable=latency,
            producer_late=latency,
            cpu_us_per_dispatch={"store": 10.0},
        ),
    ).to_json()


def test_the_table_has_the_ratio_to_each_peer_and_the_median_of_the_rounds() -> None:
    console = Console(width=160)
    load = run.Load(dispatches=100, rate=100.0, seconds=1.0, timeout_s=1.0)
    rounds = {
        "asynq": [_side("asynq", speed) for speed in (900.0, 400.0, 500.0)],
        "tickwheel": [_side("tickwheel", 1500.0)],
    }
    with console.capture() as capture:
        console.print(run.table(rounds, load))
    text = capture.get()
    assert "tickwheel / asynq" in text
    line = next(line for line in text.splitlines() if "dispatches/s" in line)
    assert "500" in line
    assert "3.00" in line


def test_an_unknown_side_is_refused_with_what_is_allowed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--peers", "asynq,sidekiq"])
    with pytest.raises(SystemExit):
        run.main()
    message = capsys.readouterr().err
    assert "sidekiq is not a side" in message
    assert "celery" in message
