"""Becomes another program, which the kernel ends when its parent is gone: `python lifeline.py PARENT_PID PROGRAM ...`.

`control_plane.py` starts etcd and kube-apiserver through this file. It is a program and not a `preexec_fn`, because
what runs between fork and exec in a process that has threads may hang. The pid stays the same through exec, so whoever
started this may signal and wait for PROGRAM.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)  # it was gone before the kernel knew what we wish
    # Exec hands on what is blocked and ignored: Python ignores SIGPIPE, and a caller may have blocked SIGTERM.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
