"""`python -m tickwheel drain`: the preStop hook of worker pods, for containers whose first process is a shell.

Kubernetes tells only the first process of a container to end. A shell (`sh -c "prepare; python -m tickwheel ..."`)
neither ends nor tells the worker, which is then killed with its work. This tells it: every process below that handles
SIGTERM gets one. Invariant: a worker is never told twice, since a second signal ends it at once; so any other first
process (the worker itself, tini, dumb-init) is trusted to handle the signal, and nothing is done.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["drain"]

_SHELLS = frozenset({"sh", "ash", "bash", "busybox", "dash", "ksh", "zsh"})
_TERM = 1 << (signal.SIGTERM - 1)


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    shell: bool
    catches: bool
    """SIGTERM. Inits that wait for signals instead cannot be told apart: hence `_SHELLS`."""


def drain(first: int = 1, proc: Path = Path("/proc")) -> list[int]:
    """Pass SIGTERM on where the container's `first` process is a shell that does not; returns who was told."""
    processes = {process.pid: process for process in _processes(proc)}
    told: list[int] = []
    if first not in processes or not processes[first].shell or processes[first].catches:
        return told
    ask = [first]
    while ask:
        process = processes[ask.pop()]
        if process.catches:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
                told.append(process.pid)
        else:
            ask += [child.pid for child in processes.values() if child.parent == process.pid]
    return told


def _processes(proc: Path) -> list[_Process]:
    found = []
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError, KeyError, ValueError):  # it may have ended meanwhile
            lines = (folder / "status").read_text(errors="replace").splitlines()
            fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            # Of a script it is its interpreter; of a login shell it begins with a dash.
            program = (folder / "cmdline").read_text(errors="replace").partition("\0")[0].lstrip("-")
            found.append(
                _Process(
                    pid=int(folder.name),
                    parent=int(fields["PPid"]),
                    shell=PurePosixPath(program).name in _SHELLS,
                    catches=bool(int(fields["SigCgt"], 16) & _TERM),
                )
            )
    return found
