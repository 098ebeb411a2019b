"""What Tickwheel's side of the benchmark costs: processor time of its processes, bytes at the API server and etcd.

Called around a stage: an opening snapshot, the dispatches, a closing one, and their difference by dispatch. The
opening snapshot reads the metrics first and the processor time last, the closing one the other way round, so that
the reading itself (the API server's metrics are megabytes) is charged to nobody. A control plane also works when it is
idle (leases, its own watches): `Usage.without` takes away what an idle stretch of the same cluster used.
"""

from __future__ import annotations

import ssl
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.throughput.processes import cpu_seconds

__all__ = ["API_SERVER_COUNTERS", "ETCD_COUNTERS", "Metrics", "Snapshot", "Usage", "snapshot", "total", "usage"]

ETCD_COUNTERS = (
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_mvcc_put_total",
    "etcd_network_client_grpc_received_bytes_total",
    "etcd_network_client_grpc_sent_bytes_total",
    "etcd_disk_wal_write_bytes_total",
)
"""etcd's own account: the size of its file, puts, bytes from and to its clients, bytes written to its log."""

API_SERVER_COUNTERS = (
    "apiserver_request_body_size_bytes_sum",
    "apiserver_response_sizes_sum",
    "apiserver_request_total",
)
"""The API server's: bytes of request bodies, of responses to reads, and requests; summed over resources and verbs."""

_SCRAPE_TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """A Prometheus endpoint and the counters that are taken from it."""

    url: str
    """For example `http://127.0.0.1:2381/metrics`."""
    counters: Sequence[str]
    token: str | None = None
    """Bearer token; the API server wants one, or a client certificate in `tls`."""
    tls: ssl.SSLContext | None = None

    def read(self) -> dict[str, float]:
        """The counters, now; one that the server does not have is left out."""
        request = urllib.request.Request(self.url)
        if self.token is not None:
            request.add_header("Authorization", f"Bearer {self.token}")
        with urllib.request.urlopen(request, timeout=_SCRAPE_TIMEOUT_S, context=self.tls) as answer:
            return total(answer.read().decode().splitlines(), self.counters)


def total(lines: Iterable[str], counters: Sequence[str]) -> dict[str, float]:
    """Sum the samples of each counter over its labels, from the Prometheus text format."""
    sums: dict[str, float] = {}
    wanted = set(counters)
    for line in lines:
        name = line.partition("{")[0].partition(" ")[0]
        if name in wanted:
            # After the labels: the value, and perhaps a timestamp.
            value = line.rpartition("}")[2].split()[0] if "{" in line else line.split()[1]
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The counters at one instant."""

    at_ns: int
    cpu: Mapping[str, float]
    """Processor seconds by part."""
    counters: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What was used between two snapshots."""

    seconds: float
    cpu: Mapping[str, float]
    counters: Mapping[str, float]

    def without(self, idle: Usage) -> Usage:
        """This usage less what an idle stretch uses in the same time; never below zero."""
        scale = self.seconds / idle.seconds
        return Usage(
            seconds=self.seconds,
            cpu={part: max(0.0, used - idle.cpu.get(part, 0.0) * scale) for part, used in self.cpu.items()},
            counters={
                name: max(0.0, used - idle.counters.get(name, 0.0) * scale) for name, used in self.counters.items()
            },
        )

    def cpu_us_per(self, dispatches: int) -> dict[str, float]:
        """Microseconds of processor time a dispatch, by part."""
        return {part: round(used * 1e6 / dispatches, 1) for part, used in self.cpu.items()}

    def counters_per(self, dispatches: int) -> dict[str, float]:
        """The counters a dispatch."""
        return {name: round(used / dispatches, 1) for name, used in self.counters.items()}


def snapshot(*, parts: Mapping[str, Sequence[int]], metrics: Sequence[Metrics], opening: bool) -> Snapshot:
    """Read all counters.

    Parameters
    ----------
    parts:
        Process ids by part, for example `{"operator": [pid], "api server": [pid], "store": [pid], "workers": [...]}`;
        descendants are included.
    metrics:
        Endpoints to read.
    opening:
        True before the stage, False after it: decides which is read first.
    """
    if opening:
        counters = _read(metrics)
        return Snapshot(at_ns=time.monotonic_ns(), cpu=_cpu(parts), counters=counters)
    at_ns, cpu = time.monotonic_ns(), _cpu(parts)
    return Snapshot(at_ns=at_ns, cpu=cpu, counters=_read(metrics))


def _cpu(parts: Mapping[str, Sequence[int]]) -> dict[str, float]:
    return {part: cpu_seconds(pids) for part, pids in parts.items()}


def _read(metrics: Sequence[Metrics]) -> dict[str, float]:
    return {name: value for endpoint in metrics for name, value in endpoint.read().items()}


def usage(before: Snapshot, after: Snapshot) -> Usage:
    """What was used between an opening and a closing snapshot of the same parts and endpoints."""
    if before.cpu.keys() != after.cpu.keys():
        raise ValueError(
            f"the snapshots are of different parts: {sorted(before.cpu)} before, {sorted(after.cpu)} after; "
            "take both with the same `parts`"
        )
    return Usage(
        seconds=(after.at_ns - before.at_ns) / 1e9,
        cpu={part: after.cpu[part] - before.cpu[part] for part in after.cpu},
        counters={name: value - before.counters.get(name, 0.0) for name, value in after.counters.items()},
    )
