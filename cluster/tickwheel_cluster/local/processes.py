"""Programs in the nodes' network namespaces: started apart from this process, and ended all of them.

They outlive the process that starts them, since `make cluster-up` returns; so what runs is not known from children but
from the namespaces. Containers have namespaces of their own, but are in their node's cgroups; their shims are in
neither, and known by their socket's path.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from tickwheel_cluster.local.network import Network

__all__ = ["CGROUPS", "end_all", "log_tail", "remove_cgroups", "start"]

CGROUPS = Path("/sys/fs/cgroup")
CGROUP_PREFIX = "tickwheel-n"
"""Each kubelet's root is named as its node."""
_GENTLE_S = 5.0
_STEP_S = 0.1


def start(namespace: str, name: str, command: list[str], logs: Path, *, path: Path | None = None) -> int:
    """Start a program in the namespace; its id. `path` is put before PATH."""
    environment = dict(os.environ)
    if path is not None:
        environment["PATH"] = os.pathsep.join([str(path), environment.get("PATH", ""), "/usr/sbin", "/sbin"])
    with (logs / f"{name}.log").open("ab") as log:
        # nsenter and not `ip netns exec`, which mounts a fresh /sys, where kubelet finds no cgroups.
        process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{namespace}", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    return process.pid


def log_tail(logs: Path, name: str, lines: int = 15) -> str:
    """The last lines of a program's log."""
    file = logs / f"{name}.log"
    return "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.exists() else "(no log)"


def end_all(directory: Path) -> None:
    """End every process of the nodes and every container, and wait until they are gone."""

    def living() -> list[int]:
        found = {pid for name in Network.present() for pid in Network.processes(name)}
        return sorted((found | _shims(directory) | _contained()) - {os.getpid()})

    for number, patience_s in ((signal.SIGTERM, _GENTLE_S), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + patience_s
        signalled: set[int] = set()
        while (pids := living()) and time.monotonic() < deadline:
            for pid in set(pids) - signalled:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                signalled.add(pid)
            _reap()
            time.sleep(_STEP_S)


def _shims(directory: Path) -> set[int]:
    marker = str(directory).encode()
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes()
            if b"containerd-shim" in command and marker in command:
                found.add(int(folder.name))
    return found


def _contained() -> set[int]:
    """The processes of all pods: with a node's containerd gone, nobody else ends them."""
    found: set[int] = set()
    for root in (CGROUPS, *(folder for folder in CGROUPS.iterdir() if folder.is_dir())):
        for top in root.glob(f"{CGROUP_PREFIX}*"):
            for folder, _, _ in os.walk(top):  # which takes no offence at folders that vanish under it
                with contextlib.suppress(OSError):
                    found |= {int(word) for word in (Path(folder) / "cgroup.procs").read_text().split()}
    return found - {0}


def remove_cgroups() -> None:
    """Those of all nodes, children first; the processes in them must have ended."""
    for root in (CGROUPS, *(folder for folder in CGROUPS.iterdir() if folder.is_dir())):
        for top in root.glob(f"{CGROUP_PREFIX}*"):
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()


def _reap() -> None:
    """Children of ours that have ended would be counted as living."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
