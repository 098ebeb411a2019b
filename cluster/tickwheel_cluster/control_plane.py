"""etcd and kube-apiserver as processes of this one, on free loopback ports, with all their state in one folder.

There is no controller-manager: nothing makes `default` service accounts, collects garbage or finishes the deletion of
a namespace. The processes die with the process that started them, however it dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
from pathlib import Path
from typing import Self

from tickwheel_cluster.access import Access
from tickwheel_cluster.binaries import find_binaries
from tickwheel_cluster.certificates import write_certificates

__all__ = ["ControlPlane", "ControlPlaneError"]

_READY_S = 90
_STOP_S = 15
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

AUDIENCES = ("https://kubernetes.default.svc", "tickwheel")
"""What tokens may be made for; workers use the second."""


class ControlPlaneError(Exception):
    """The control plane does not run. The message has the last lines of the log."""


class ControlPlane(Access):
    """One etcd and one kube-apiserver. Use it as a context manager, or `start()` and `stop()` it."""

    def __init__(self, directory: Path, *, unsafe_no_fsync: bool = False) -> None:
        """`unsafe_no_fsync` makes etcd faster and not durable: for tests that measure nothing."""
        self.directory = directory
        self.logs = directory / "logs"
        self.admin_kubeconfig = directory / "admin.kubeconfig"
        self._pki = directory / "pki"
        self._unsafe_no_fsync = unsafe_no_fsync
        self._etcd: subprocess.Popen[bytes] | None = None
        self._api_server: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, int] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._ports['api']}"

    @property
    def etcd_url(self) -> str:
        """etcd's client endpoint, plain HTTP on the loopback address; also serves /metrics."""
        return f"http://127.0.0.1:{self._ports['etcd']}"

    @property
    def ca_file(self) -> Path:
        return self._pki / "ca.crt"

    @property
    def pids(self) -> dict[str, int]:
        """The processes that run now."""
        running = {"etcd": self._etcd, "kube-apiserver": self._api_server}
        return {name: p.pid for name, p in running.items() if p is not None and p.poll() is None}

    def start(self) -> None:
        """Start both and wait until the API server is ready (about 8 s). A second start reuses the folder's data."""
        self.logs.mkdir(parents=True, exist_ok=True)
        write_certificates(self._pki)
        ports_file = self.directory / "ports.json"
        if ports_file.exists():
            self._ports = json.loads(ports_file.read_text())
        else:
            self._ports = _free_ports("etcd", "peer", "api")
            ports_file.write_text(json.dumps(self._ports))
        self._write_kubeconfig(
            self.admin_kubeconfig,
            {
                "client-certificate": str(self._pki / "admin.crt"),
                "client-key": str(self._pki / "admin.key"),
            },
        )
        self._start_etcd()
        self._start_api_server()
        self.wait_ready()

    def stop(self) -> None:
        """Stop both, the API server first, and wait until they are gone."""
        for process in (self._api_server, self._etcd):
            _end(process)
        self._api_server = self._etcd = None

    def kill_api_server(self) -> None:
        """End the API server as a crash would: no goodbye."""
        if self._api_server is not None:
            self._api_server.kill()
            self._api_server.wait()

    def restart_api_server(self) -> None:
        """Start the API server again on its port, with its data, and wait until it is ready."""
        _end(self._api_server)
        self._start_api_server()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until /readyz answers 200. Raises `ControlPlaneError` when a process ended or it takes too long."""
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            for name, process in (("etcd", self._etcd), ("kube-apiserver", self._api_server)):
                if process is not None and process.poll() is not None:
                    raise ControlPlaneError(f"{name} ended with code {process.returncode}:\n{self._log_tail(name)}")
            with contextlib.suppress(OSError, urllib.error.URLError):
                self.request("GET", "/readyz")
                return
            time.sleep(0.1)
        raise ControlPlaneError(f"not ready after {_READY_S} s:\n{self._log_tail('kube-apiserver')}")

    def _admin(self) -> tuple[ssl.SSLContext, dict[str, str]]:
        tls = ssl.create_default_context(cafile=str(self.ca_file))
        tls.load_cert_chain(self._pki / "admin.crt", self._pki / "admin.key")
        return tls, {}

    # --- processes ---

    def _start_etcd(self) -> None:
        client, peer = self.etcd_url, f"http://127.0.0.1:{self._ports['peer']}"
        arguments = [
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=5m",
            "--quota-backend-bytes=4294967296",
        ]
        if self._unsafe_no_fsync:
            arguments.append("--unsafe-no-fsync")
        self._etcd = self._spawn("etcd", arguments)

    def _start_api_server(self) -> None:
        pki = self._pki
        self._api_server = self._spawn(
            "kube-apiserver",
            [
                f"--etcd-servers={self.etcd_url}",
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                f"--secure-port={self._ports['api']}",
                f"--tls-cert-file={pki / 'apiserver.crt'}",
                f"--tls-private-key-file={pki / 'apiserver.key'}",
                f"--client-ca-file={pki / 'ca.crt'}",
                f"--service-account-key-file={pki / 'sa.pub'}",
                f"--service-account-signing-key-file={pki / 'sa.key'}",
                f"--service-account-issuer={AUDIENCES[0]}",
                f"--api-audiences={','.join(AUDIENCES)}",
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--disable-admission-plugins=ServiceAccount",
                "--endpoint-reconciler-type=none",
                "--allow-privileged",
            ],
        )

    def _spawn(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        program = find_binaries() / name
        with (self.logs / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [str(program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def _log_tail(self, name: str) -> str:
        log = self.logs / f"{name}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(*names: str) -> dict[str, int]:
    """Ports that nobody listens on now. All are held open until the last is drawn, so that they differ."""
    sockets = []
    try:
        for _ in names:
            probe = socket.socket()
            probe.bind(("127.0.0.1", 0))
            sockets.append(probe)
        return {name: probe.getsockname()[1] for name, probe in zip(names, sockets, strict=True)}
    finally:
        for probe in sockets:
            probe.close()
