"""Operator and worker processes as a user would run them: own identity, own token, killed like processes are.

No process outlives its test: `Crew` kills what it started, and the kernel kills the rest when the test's process dies.
Start them in the main thread: they die with the thread that started them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

from tests.integration.installation import (
    OPERATOR_ACCOUNT,
    SYSTEM_NAMESPACE,
    apply,
    create_namespace,
    install_operator,
    service_account,
)

from tickwheel_cluster import Access
from tickwheel_cluster.ports import draw_ports

__all__ = ["PATIENT_LEASE", "Crew", "OperatorProcess", "Program", "Service", "WorkerProcess", "customized"]

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

FAST_LEASE = {
    "TICKWHEEL_LEASE_DURATION_MS": "3000",
    "TICKWHEEL_RENEW_DEADLINE_MS": "2000",
    "TICKWHEEL_RETRY_PERIOD_MS": "400",
}
PATIENT_LEASE = {
    "TICKWHEEL_LEASE_DURATION_MS": "600000",
    "TICKWHEEL_RENEW_DEADLINE_MS": "400000",
    "TICKWHEEL_RETRY_PERIOD_MS": "400",
}
"""For tests that mind who leads: a machine that stands still for some seconds deposes nobody."""


def customized(folder: Path, site: str) -> dict[str, str]:
    """The environment of a Python process that runs `site` before anything else."""
    (folder / "sitecustomize.py").write_text(site)
    root = Path(__file__).parents[2]
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(root), os.environ.get("PYTHONPATH", "")])}


class Program:
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
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
            )
        return self

    def kill(self) -> None:
        """SIGKILL, which a stopped process obeys too, and wait until it is gone."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def terminate(self, timeout: float = 60) -> int:
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


class OperatorProcess(Program):
    """One replica, with the ServiceAccount's token and exactly the roles that ship."""

    def __init__(
        self, cluster: Access, folder: Path, name: str, *, namespace: str = SYSTEM_NAMESPACE, **environment: str
    ) -> None:
        """`namespace` is the operator's own; see `installation.install_operator`."""
        kubeconfig = folder / f"{name}.kubeconfig"
        # Of its own: the next replica's is written where this one's was, perhaps while this one reads it.
        shutil.copy(cluster.service_account_kubeconfig(namespace, OPERATOR_ACCOUNT), kubeconfig)
        self.port, self.metrics_port = draw_ports("gateway", "metrics").values()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(
            name,
            [sys.executable, "-m", "tickwheel_operator.runtime"],
            {
                **FAST_LEASE,
                "TICKWHEEL_KUBECONFIG": str(kubeconfig),
                "TICKWHEEL_NAMESPACE": namespace,
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

    def wait_ready(self, timeout: float = 120) -> None:
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
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        samples = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples


class WorkerProcess(Program):
    """One worker of a pool, with a token of audience `tickwheel`."""

    def __init__(
        self, endpoint: str, folder: Path, name: str, *, namespace: str, pool: str, token: str, handlers: Path,
        slots: int = 16, **environment: str,
    ) -> None:  # fmt: skip
        token_file = folder / f"{name}.token"
        token_file.write_text(token)
        super().__init__(
            name,
            [sys.executable, "-m", "tickwheel", str(handlers)],
            {
                "TICKWHEEL_ENDPOINT": endpoint,
                "TICKWHEEL_TOKEN_FILE": str(token_file),
                "TICKWHEEL_NAMESPACE": namespace,
                "TICKWHEEL_POOL": pool,
                "TICKWHEEL_WORKER_NAME": name,
                "TICKWHEEL_SLOTS": str(slots),
                **environment,
            },
            folder / f"{name}.log",
        )


class Service:
    """One address for several replicas, as a Kubernetes Service is: a connection goes to a replica that is ready."""

    def __init__(self, replicas: Callable[[], Iterable[OperatorProcess]]) -> None:
        self._replicas = replicas
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="service", daemon=True)
        self._listening = threading.Event()
        self._stop = asyncio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._accept())

    async def _accept(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        replicas = [replica for replica in self._replicas() if replica.alive]
        random.shuffle(replicas)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            for replica in replicas:
                if await _is_ready(replica.port):
                    there = await asyncio.open_connection("127.0.0.1", replica.port)
                    await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))
                    break
        writer.close()


async def _is_ready(port: int) -> bool:
    """What kubelet's readiness probe would say. A stopped process still has a kernel that accepts connections."""
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
            status = await reader.readline()
            writer.close()
    except (OSError, TimeoutError):
        return False
    return b" 200 " in status


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


class Crew:
    """The operators and workers of one test: started through it, reached through one `service`, killed when it ends."""

    @classmethod
    def installed(cls, cluster: Access, folder: Path, namespace: str) -> Self:
        """A crew with a Lease and a ledger of its own, in `<namespace>-system`; workers have the account `worker`."""
        crew = cls(cluster, folder, system=f"{namespace}-system", namespace=namespace)
        install_operator(cluster, crew.system)
        create_namespace(cluster, namespace)
        apply(cluster, service_account(namespace, "worker"))
        return crew

    def __init__(self, cluster: Access, folder: Path, *, system: str, namespace: str) -> None:
        """`system` is the operators' own namespace, `namespace` the one whose objects they serve."""
        self.cluster = cluster
        self.folder = folder
        self.system = system
        self.namespace = namespace
        self.operators: list[OperatorProcess] = []
        self.workers: list[WorkerProcess] = []
        self.service = Service(lambda: list(self.operators))

    def __enter__(self) -> Self:
        self.service.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for process in (*self.workers, *self.operators):
            process.kill()
        self.service.__exit__()
        if kind is not None:
            for process in (*self.operators, *self.workers):
                lines = (line[:300] for line in process.log_tail(25).splitlines())
                print(f"--- {process.name}", *lines, sep="\n", file=sys.stderr)

    def operator(self, name: str, **environment: str) -> OperatorProcess:
        """Start a replica."""
        settings = {"TICKWHEEL_WATCH_NAMESPACES": self.namespace, **environment}
        operator = OperatorProcess(self.cluster, self.folder, name, namespace=self.system, **settings)
        self.operators.append(operator)
        return operator.start()

    def worker(
        self, name: str, *, pool: str, account: str = "worker", handlers: Path, slots: int = 16,
        environment: dict[str, str],
    ) -> WorkerProcess:  # fmt: skip
        """Start a worker with a token of the account."""
        token = self.cluster.service_account_token(self.namespace, account, audience="tickwheel")
        worker = WorkerProcess(
            self.service.url, self.folder, name, namespace=self.namespace, pool=pool, token=token, handlers=handlers,
            slots=slots, **environment,
        )  # fmt: skip
        self.workers.append(worker)
        return worker.start()


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
