"""The three peers: how each is started and tuned, and how one sees in Redis that a result is durable.

Used by `drive.py`, which treats them all alike through `Contender`. The tuning was chosen by trying (see README.md:
"How the peers were tuned"); the values stand here and are written into the results. What is common: workers that
acknowledge after the execution (at least once), a result or completion record that stays, two cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import redis
from benchmarks.throughput.peers.load import STARTS_VARIABLE
from benchmarks.throughput.peers.redis_server import RedisServer

__all__ = ["Asynq", "Celery", "Command", "Contender", "Taskiq"]

_PACKAGE = "benchmarks.throughput.peers"


@dataclass(frozen=True, kw_only=True)
class Command:
    """A program with its arguments and the variables added to its environment."""

    arguments: list[str]
    environment: Mapping[str, str]


class Contender(Protocol):
    """What the driver needs to know of a peer.

    A task whose id is X has exactly `writes_to_durable` keyspace events `event` of class `event_class` on the keys of
    `result_pattern`; the last of them is its durable result. Redis sends an event after the sync that covers it.
    """

    @property
    def name(self) -> str: ...

    @property
    def producers(self) -> int:
        """Producing processes in the throughput stage."""

    @property
    def in_flight(self) -> int:
        """Submissions under way at once, in each of them."""

    event_class: str
    event: bytes
    result_pattern: str
    writes_to_durable: int

    def settings(self) -> dict[str, Any]:
        """The tuning, for the record."""

    def versions(self) -> dict[str, str]:
        """What is measured."""

    def workers(self, server: RedisServer, *, starts: Path | None) -> list[Command]:
        """The worker processes; with `starts`, handlers append their start to that file."""

    def producer(self, server: RedisServer) -> Command:
        """A producer, without the arguments that are common to all."""

    def durable_counter(self, server: RedisServer) -> Callable[[], int]:
        """A cheap function that counts the durable results."""

    def failures(self, server: RedisServer) -> int:
        """How many of the tasks did not succeed."""


def _python_environment(server: RedisServer, starts: Path | None, **more: str) -> dict[str, str]:
    added = {"BENCH_REDIS_PORT": str(server.port), **more}
    return added if starts is None else {**added, STARTS_VARIABLE: str(starts)}


def _result_documents(client: redis.Redis) -> list[dict[str, Any]]:
    """All values of a result database, which hold JSON."""
    keys = list(client.scan_iter(count=1000))
    documents = []
    for begin in range(0, len(keys), 1000):
        values = client.mget(keys[begin : begin + 1000])
        documents += [json.loads(value) for value in values if value is not None]
    return documents


def _size_of_results(server: RedisServer) -> Callable[[], int]:
    client = server.client(1)
    return lambda: int(client.dbsize())


@dataclass(frozen=True, kw_only=True)
class Asynq:
    """asynq: several servers in one Go process, completed tasks retained."""

    binary: str
    servers: int = 16
    """Servers in the worker process: each dequeues one task at a time, a round trip each."""
    concurrency: int = 4
    """Executions at once per server."""
    check_interval_ms: int = 2
    """Between looks at an empty queue. asynq polls; its default of 1 s would be its whole latency."""
    producers: int = 1
    in_flight: int = 32

    name = "asynq"
    event_class = "h"
    event = b"hset"
    result_pattern = "__keyspace@0__:asynq:{default}:t:*"
    writes_to_durable = 3  # pending, active, completed

    def settings(self) -> dict[str, Any]:
        return {
            "servers": self.servers, "concurrency": self.concurrency, "task_check_interval_ms": self.check_interval_ms,
            "retention": "1h", "worker_processes": 1, "producers": self.producers, "in_flight": self.in_flight,
        }  # fmt: skip

    def versions(self) -> dict[str, str]:
        listing = subprocess.run(
            ["go", "version", "-m", self.binary], check=True, capture_output=True, text=True, timeout=30
        ).stdout.split("\n")
        modules = {fields[1]: fields[2] for line in listing if len(fields := line.split()) > 2}
        return {"asynq": modules["github.com/hibiken/asynq"], "go": listing[0].rsplit(" ", 1)[-1]}

    def workers(self, server: RedisServer, *, starts: Path | None) -> list[Command]:
        arguments = [
            self.binary, "work", "-redis", f"127.0.0.1:{server.port}", "-servers", str(self.servers),
            "-concurrency", str(self.concurrency), "-check-interval", f"{self.check_interval_ms}ms",
        ]  # fmt: skip
        return [Command(arguments=arguments + ([] if starts is None else ["-starts", str(starts)]), environment={})]

    def producer(self, server: RedisServer) -> Command:
        return Command(arguments=[self.binary, "enqueue", "--redis", f"127.0.0.1:{server.port}"], environment={})

    def durable_counter(self, server: RedisServer) -> Callable[[], int]:
        client = server.client()
        return lambda: int(client.zcard("asynq:{default}:completed"))

    def failures(self, server: RedisServer) -> int:
        with server.client() as client:
            return sum(client.zcard(f"asynq:{{default}}:{state}") for state in ("retry", "archived"))


@dataclass(frozen=True, kw_only=True)
class Celery:
    """Celery: late acknowledgement, results in Redis, a pool as large as the machine has cores."""

    pool: str = "solo"
    concurrency: int = 1
    """Processes or threads of a pool."""
    nodes: int = 6
    """Worker nodes, each with a pool: more than cores, since each waits for the disk between two messages."""
    prefetch: int = 64
    """Messages that a node holds, per process or thread of its pool."""
    producers: int = 2
    in_flight: int = 4

    name = "celery"
    event_class = "$"
    event = b"set"
    result_pattern = "__keyspace@1__:celery-task-meta-*"
    writes_to_durable = 1

    def settings(self) -> dict[str, Any]:
        return {
            "pool": self.pool, "concurrency": self.concurrency, "nodes": self.nodes,
            "prefetch_multiplier": self.prefetch, "acks_late": True, "reject_on_worker_lost": True,
            "events": False, "producers": self.producers, "in_flight": self.in_flight,
        }  # fmt: skip

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("celery", "kombu", "redis")} | {"python": sys.version.split()[0]}

    def workers(self, server: RedisServer, *, starts: Path | None) -> list[Command]:
        environment = _python_environment(server, starts, BENCH_CELERY_PREFETCH=str(self.prefetch))
        return [
            Command(
                arguments=[
                    sys.executable, "-m", "celery", "-A", f"{_PACKAGE}.celery_peer:application", "worker",
                    "--pool", self.pool, "--concurrency", str(self.concurrency), "--hostname", f"bench{node}@localhost",
                    "--loglevel", "WARNING", "-Ofair", "--without-gossip", "--without-mingle", "--without-heartbeat",
                ],
                environment=environment,
            )
            for node in range(self.nodes)
        ]  # fmt: skip

    def producer(self, server: RedisServer) -> Command:
        return Command(
            arguments=[sys.executable, "-m", f"{_PACKAGE}.celery_peer"], environment=_python_environment(server, None)
        )

    def durable_counter(self, server: RedisServer) -> Callable[[], int]:
        return _size_of_results(server)

    def failures(self, server: RedisServer) -> int:
        with server.client(1) as client:
            return sum(document["status"] != "SUCCESS" for document in _result_documents(client))


@dataclass(frozen=True, kw_only=True)
class Taskiq:
    """taskiq: Redis streams with acknowledgement when the result is saved, results in Redis."""

    processes: int = 2
    max_async_tasks: int = 100
    """Executions at once per process."""
    prefetch: int = 500
    connections: int = 32
    """Redis connections per process and pool."""
    producers: int = 2
    in_flight: int = 16

    name = "taskiq"
    event_class = "$"
    event = b"set"
    result_pattern = "__keyspace@1__:*"
    writes_to_durable = 1

    def settings(self) -> dict[str, Any]:
        return {
            "broker": "RedisStreamBroker", "processes": self.processes, "max_async_tasks": self.max_async_tasks,
            "max_prefetch": self.prefetch, "connections": self.connections, "ack_type": "when_saved",
            "uvloop": True, "hiredis": True, "producers": self.producers, "in_flight": self.in_flight,
        }  # fmt: skip

    def versions(self) -> dict[str, str]:
        names = ("taskiq", "taskiq-redis", "redis", "uvloop")
        return {name: version(name) for name in names} | {"python": sys.version.split()[0]}

    def _environment(self, server: RedisServer, starts: Path | None) -> dict[str, str]:
        return _python_environment(server, starts, BENCH_TASKIQ_CONNECTIONS=str(self.connections))

    def workers(self, server: RedisServer, *, starts: Path | None) -> list[Command]:
        arguments: Sequence[str] = [
            sys.executable, "-m", "taskiq", "worker", f"{_PACKAGE}.taskiq_peer:broker",
            "--workers", str(self.processes), "--max-async-tasks", str(self.max_async_tasks),
            "--max-prefetch", str(self.prefetch), "--ack-type", "when_saved", "--no-parse",
            "--log-level", "WARNING",
        ]  # fmt: skip
        return [Command(arguments=list(arguments), environment=self._environment(server, starts))]

    def producer(self, server: RedisServer) -> Command:
        return Command(
            arguments=[sys.executable, "-m", f"{_PACKAGE}.taskiq_peer"], environment=self._environment(server, None)
        )

    def durable_counter(self, server: RedisServer) -> Callable[[], int]:
        return _size_of_results(server)

    def failures(self, server: RedisServer) -> int:
        with server.client(1) as client:
            return sum(bool(document["is_err"]) for document in _result_documents(client))
