"""A Redis server for one stage of the benchmark: a process on a free loopback port, durable at every write.

Started by `drive.py` for each stage anew, so that no stage pays for another's leftovers. The invariant that the
comparison stands on: `appendfsync always`, so Redis answers a write only when it is on the disk (it writes and syncs
the append-only file before it sends the answers of an event loop's turn). The server is asked whether it
really runs so before anything is measured. Its data is in a temporary folder and is removed with it.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from benchmarks.throughput.processes import running

__all__ = ["RedisServer", "RedisUnavailable", "StoreBytes", "durable_redis"]

_START_TIMEOUT_S = 10.0
_DURABILITY = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}


class RedisUnavailable(RuntimeError):
    """Redis could not be started, or does not run as durably as the comparison needs."""


@dataclass(frozen=True, kw_only=True)
class StoreBytes:
    """What Redis has received and written so far."""

    received: int
    """Bytes of requests from all clients."""
    appended: int
    """Size of the append-only file (it is never rewritten during a run)."""


@dataclass(frozen=True, kw_only=True)
class RedisServer:
    """A running server."""

    port: int
    pid: int
    folder: Path

    def client(self, database: int = 0) -> redis.Redis:
        """A new client of the given database."""
        return redis.Redis(host="127.0.0.1", port=self.port, db=database)

    def store_bytes(self) -> StoreBytes:
        """The counters, now."""
        with self.client() as client:
            info = client.info()
        return StoreBytes(received=info["total_net_input_bytes"], appended=info["aof_current_size"])

    def version(self) -> str:
        """The server's version."""
        with self.client() as client:
            return str(client.info("server")["redis_version"])


def _binary() -> str:
    if (path := shutil.which("redis-server")) is None:
        raise RedisUnavailable(
            "redis-server was not found on PATH; the peers need it. Install Debian's package, without its service: "
            "`apt-get update && apt-get install --no-install-recommends redis-server`, then "
            "`systemctl disable --now redis-server` where systemd runs."
        )
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int, process: subprocess.Popen[str]) -> bool:
    """Wait until the server answers; False when it ended instead (the port was taken meanwhile)."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    with redis.Redis(host="127.0.0.1", port=port) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return False
            try:
                client.ping()
            except (redis.ConnectionError, redis.BusyLoadingError):
                time.sleep(0.02)
            else:
                # Another process's Redis on the same port would answer too: this one must be ours.
                return int(client.info("server")["process_id"]) == process.pid
    return False


def _check_durability(port: int) -> None:
    with redis.Redis(host="127.0.0.1", port=port, decode_responses=True) as client:
        for option, wanted in _DURABILITY.items():
            if (found := client.config_get(option).get(option)) != wanted:
                raise RedisUnavailable(f"Redis runs with {option}={found}; the comparison needs {option}={wanted}")
        if client.info("persistence")["aof_enabled"] != 1:
            raise RedisUnavailable("Redis has its append-only file disabled; the comparison needs it enabled")


@contextmanager
def durable_redis(*, tries: int = 3) -> Iterator[RedisServer]:
    """Run a Redis that syncs every write, for the length of a `with` block.

    Another process may take the port between the look for a free one and the start; so it is tried `tries` times.
    """
    binary = _binary()
    for _ in range(tries):
        port = _free_port()
        with tempfile.TemporaryDirectory(prefix="tickwheel-bench-redis-") as name:
            folder = Path(name)
            command = [
                binary, "--bind", "127.0.0.1", "--port", str(port), "--dir", name, "--save", "",
                "--auto-aof-rewrite-percentage", "0",
            ]  # fmt: skip
            for option, value in _DURABILITY.items():
                command += [f"--{option}", value]
            with running(command, log=folder / "redis.log") as process:
                if not _answers(port, process):
                    continue
                _check_durability(port)
                yield RedisServer(port=port, pid=process.pid, folder=folder)
                return
    raise RedisUnavailable(f"redis-server did not answer on a free loopback port, {tries} times over")
