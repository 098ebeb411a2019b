"""Processes of a benchmark run: started so that none is left behind, and their processor time.

Called by the driver of the peers (`peers/drive.py`), by `peers/redis_server.py`, `run.py` and `tickwheel_side.py`.
Two things are kept: a process started here dies with the benchmark, however that ends (each gets a session
of its own, is ended with its whole process group, and asks the kernel for SIGTERM when its parent dies); and
processor time is that of the process *and all its descendants*, those that have ended and been waited for
included, so that a pool of workers is charged whole.

Linux only: the figures come from /proc. Standard library only: it runs in the peers' environment too.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["cpu_seconds", "descendants", "end", "running"]

_PR_SET_PDEATHSIG = 1
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_LIBC = ctypes.CDLL(None)


def _die_with_the_parent() -> None:
    """Run in the child between fork and exec: the kernel ends it when the benchmark is killed."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@contextmanager
def running(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    conversation: bool = False,
    grace_s: float = 10.0,
) -> Iterator[subprocess.Popen[str]]:
    """Run a command for the length of a `with` block and end it, with its process group, afterwards.

    Parameters
    ----------
    command:
        The program and its arguments.
    log:
        File that takes standard error, and standard output unless `conversation`.
    environment:
        Variables added to those of this process.
    folder:
        Working folder; default: this process's.
    conversation:
        Give the caller pipes to standard input and output (the producers' barrier).
    grace_s:
        Seconds between SIGTERM and SIGKILL.
    """
    with log.open("a") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if conversation else subprocess.DEVNULL,
            stdout=subprocess.PIPE if conversation else sink,
            stderr=sink,
            env={**os.environ, **(environment or {})},
            cwd=folder,
            text=True,
            start_new_session=True,
            preexec_fn=_die_with_the_parent,
        )
    try:
        yield process
    finally:
        end(process, grace_s=grace_s)


def end(process: subprocess.Popen[str], *, grace_s: float = 10.0) -> None:
    """End a process made by `running` and everything in its process group; returns when it is gone."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(timeout=grace_s)
    except subprocess.TimeoutExpired:
        pass
    finally:
        # The group's leader may be gone while its pool is not: what is left gets no more grace.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _stat(pid: int) -> tuple[int, float] | None:
    """Parent's id and processor seconds (waited-for children included) of a process; None: it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name is in parentheses and may hold spaces: the fields begin after the last one.
    fields = text.rpartition(")")[2].split()
    parent = int(fields[1])
    ticks = sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return parent, ticks / _TICKS_PER_SECOND


def descendants(pids: Sequence[int]) -> set[int]:
    """The given processes and all that descend from them, now."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (stat := _stat(int(entry.name))) is not None:
            children.setdefault(stat[0], []).append(int(entry.name))
    family: set[int] = set()
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid not in family:
            family.add(pid)
            waiting.extend(children.get(pid, ()))
    return family


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor seconds, user and system, that the processes and their descendants have used so far.

    The difference of two calls is the use between them, as long as the given processes live through both:
    a descendant that ends meanwhile is then in its parent's account. Resolution: one clock tick (10 ms).
    """
    return sum(stat[1] for pid in descendants(pids) if (stat := _stat(pid)) is not None)
