"""etcd and kube-apiserver as processes of this one, on free loopback ports, with all their state in one folder.

There is no controller-manager: nothing makes `default` service accounts, collects garbage or finishes the deletion of
a namespace. The processes end with the process that started them, however that ends, and with nobody else's.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from tickwheel_cluster import lifeline
from tickwheel_cluster.access import Access
from tickwheel_cluster.binaries import find_binaries
from tickwheel_cluster.certificates import write_certificates
from tickwheel_cluster.occupancy import Claim, holder
from tickwheel_cluster.ports import draw_ports

__all__ = ["ControlPlane", "ControlPlaneError"]

_READY_S = 90
_POLL_S = 2
_STOP_S = 15
_PORT_TRIES = 5
_TAKEN = "address already in use"

AUDIENCES = ("https://kubernetes.default.svc", "tickwheel")
"""What tokens may be made for; workers use the second."""


class ControlPlaneError(Exception):
    """The control plane does not run. The message has the last lines of the log."""


class _PortTaken(ControlPlaneError):
    """Somebody was faster on one of the ports that were drawn."""


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
        self._log_starts: dict[str, int] = {}
        self._claim: Claim | None = None
        self._starter: ThreadPoolExecutor | None = None

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
        """Start both and wait until the API server is ready (3 to 8 s). A second start reuses the folder's data.

        It also keeps the folder's ports, unless somebody else has taken one: then the admin's kubeconfig is written
        anew. Raises `ControlPlaneError`, and leaves nothing running, where it does not come up.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        claim = Claim.take(self.directory)
        if claim is None:
            raise ControlPlaneError(
                f"process {holder(self.directory)} runs a control plane in {self.directory}: stop it, or take another"
                " folder"
            )
        self._claim = claim
        try:
            write_certificates(self._pki)
            self._start_on_free_ports()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both, the API server first, and wait until they are gone."""
        for process in (self._api_server, self._etcd):
            _end(process)
        self._api_server = self._etcd = None
        if self._starter is not None:
            self._starter.shutdown()
            self._starter = None
        if self._claim is not None:
            self._claim.release()
            self._claim = None

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
        """Wait until the API server takes objects. Raises `ControlPlaneError` when a process ended or it takes long."""
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            self._check_alive()
            with contextlib.suppress(OSError, http.client.HTTPException):
                # Short waits: a stranger on our port may accept and never answer, while our own process has ended.
                self.request("GET", "/readyz", timeout_s=_POLL_S)
                self.request("GET", "/api/v1/namespaces/default", timeout_s=_POLL_S)  # made after /readyz is content
                return
            time.sleep(0.1)
        raise ControlPlaneError(f"not ready after {_READY_S} s:\n{self._log_tail('kube-apiserver')}")

    def _admin(self) -> tuple[ssl.SSLContext, dict[str, str]]:
        tls = ssl.create_default_context(cafile=str(self.ca_file))
        tls.load_cert_chain(self._pki / "admin.crt", self._pki / "admin.key")
        return tls, {}

    # --- processes ---

    def _start_on_free_ports(self) -> None:
        ports_file = self.directory / "ports.json"
        for attempt in range(_PORT_TRIES):
            # The folder's ports get a second chance: a predecessor that was killed may be on its way out.
            if attempt > 1 or not ports_file.exists():
                ports_file.write_text(json.dumps(draw_ports("etcd", "peer", "api")))
            self._ports = json.loads(ports_file.read_text())
            try:
                self._start_etcd()
                self._wait_etcd()
                self._start_api_server()
                self.wait_ready()
            except _PortTaken:
                _end(self._api_server)
                _end(self._etcd)
                self._api_server = self._etcd = None
                if attempt == _PORT_TRIES - 1:
                    raise
                time.sleep(0.2)
                continue
            self._write_kubeconfig(
                self.admin_kubeconfig,
                {
                    "client-certificate": str(self._pki / "admin.crt"),
                    "client-key": str(self._pki / "admin.key"),
                },
            )
            return

    @property
    def _etcd_name(self) -> str:
        """Tells our etcd from another control plane's on the same port."""
        return "tickwheel-" + hashlib.sha256(str(self.directory.resolve()).encode()).hexdigest()[:12]

    def _wait_etcd(self) -> None:
        """Wait for our etcd: an API server that finds a stranger's on the port would write its objects there."""
        question = urllib.request.Request(f"{self.etcd_url}/v3/cluster/member/list", data=b"{}", method="POST")
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            self._check_alive()
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                with urllib.request.urlopen(question, timeout=_POLL_S) as answer:
                    members = json.load(answer)["members"]
                if any(member.get("name") == self._etcd_name for member in members):
                    return
            time.sleep(0.05)
        raise ControlPlaneError(f"etcd not ready after {_READY_S} s:\n{self._log_tail('etcd')}")

    def _check_alive(self) -> None:
        for name, process in (("etcd", self._etcd), ("kube-apiserver", self._api_server)):
            if process is not None and process.poll() is not None:
                tail = self._log_tail(name)
                kind = _PortTaken if _TAKEN in tail else ControlPlaneError
                raise kind(f"{name} ended with code {process.returncode}; the end of {self.logs / name}.log:\n{tail}")

    def _start_etcd(self) -> None:
        client, peer = self.etcd_url, f"http://127.0.0.1:{self._ports['peer']}"
        arguments = [
            f"--name={self._etcd_name}",
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={self._etcd_name}={peer}",
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
        command = [sys.executable, "-I", "-S", lifeline.__file__, str(os.getpid()), str(find_binaries() / name)]
        # The kernel ties a child to the *thread* that started it. So one thread starts all of them, and it lives until
        # stop(): the caller's own thread may end before, as an event loop's or a test's helper thread does.
        if self._starter is None:
            self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="control-plane")
        path = self.logs / f"{name}.log"
        self._log_starts[name] = path.stat().st_size if path.exists() else 0
        with path.open("ab") as log:
            return self._starter.submit(
                subprocess.Popen,
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            ).result()

    def _log_tail(self, name: str) -> str:
        """The last lines since the program was started."""
        with (self.logs / f"{name}.log").open("rb") as log:
            log.seek(self._log_starts.get(name, 0))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-15:])


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
