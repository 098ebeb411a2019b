"""Operator and worker processes as a user would run them: own identity, own token, killed like processes are."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Self

from tests.integration.installation import OPERATOR_ACCOUNT, SYSTEM_NAMESPACE

from tickwheel_cluster import ControlPlane

__all__ = ["OperatorProcess", "WorkerProcess"]

FAST_LEASE = {
    "TICKWHEEL_LEASE_DURATION_MS": "3000",
    "TICKWHEEL_RENEW_DEADLINE_MS": "2000",
    "TICKWHEEL_RETRY_PERIOD_MS": "400",
}


class _Process:
    """A program with a log, in a session of its own."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    def terminate(self, timeout: float = 20) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout)

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""


class OperatorProcess(_Process):
    """One replica, with the ServiceAccount's token and exactly the roles that ship."""

    def __init__(self, cluster: ControlPlane, folder: Path, name: str, **environment: str) -> None:
        kubeconfig = cluster.service_account_kubeconfig(SYSTEM_NAMESPACE, OPERATOR_ACCOUNT)
        self.port, self.metrics_port = _free_port(), _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            name,
            [sys.executable, "-m", "tickwheel_operator.runtime"],
            {
                **FAST_LEASE,
                "TICKWHEEL_KUBECONFIG": str(kubeconfig),
                "TICKWHEEL_NAMESPACE": SYSTEM_NAMESPACE,
                "TICKWHEEL_IDENTITY": name,
                "TICKWHEEL_GATEWAY_HOST": "127.0.0.1",
                "TICKWHEEL_GATEWAY_PORT": str(self.port),
                "TICKWHEEL_METRICS_HOST": "127.0.0.1",
                "TICKWHEEL_METRICS_PORT": str(self.metrics_port),
                "TICKWHEEL_ADVERTISE_URL": self.url,
                **environment,
            },
            folder / f"{name}.log",
        )

    def wait_ready(self, timeout: float = 60) -> None:
        """Wait until /readyz answers 200: the catalog is complete, whether it leads or follows."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not self.alive:
                raise AssertionError(f"{self.name} ended:\n{self.log_tail()}")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/readyz", timeout=2).close()
                return
            time.sleep(0.1)
        raise AssertionError(f"{self.name} is not ready:\n{self.log_tail()}")

    def metrics(self) -> dict[str, float]:
        """All samples of /metrics by `name{labels}`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        samples = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples


class WorkerProcess(_Process):
    """One worker of a pool, with a token of audience `tickwheel`."""

    def __init__(
        self, endpoints: str, folder: Path, name: str, *, namespace: str, pool: str, token: str, handlers: Path,
        slots: int = 16, **environment: str,
    ) -> None:  # fmt: skip
        token_file = folder / f"{name}.token"
        token_file.write_text(token)
        super().__init__(
            name,
            [sys.executable, "-m", "tickwheel", str(handlers)],
            {
                "TICKWHEEL_ENDPOINT": endpoints,
                "TICKWHEEL_TOKEN_FILE": str(token_file),
                "TICKWHEEL_NAMESPACE": namespace,
                "TICKWHEEL_POOL": pool,
                "TICKWHEEL_WORKER_NAME": name,
                "TICKWHEEL_SLOTS": str(slots),
                **environment,
            },
            folder / f"{name}.log",
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
