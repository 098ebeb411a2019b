"""Whose a control plane's folder is: at most one running control plane uses it, and `down` must know which process.

The claim is a lock that the kernel drops when its holder ends, however it ends. So a folder is never blocked by a
process that is gone, and a process id that is read while the lock is held is the holder's and not a stranger's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO

__all__ = ["Claim", "holder"]

_NAME = "lock"


class Claim:
    """A folder that is this process's, until `release()`."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    @classmethod
    def take(cls, directory: Path) -> Claim | None:
        """Claim the folder, which must exist; None where another control plane has it."""
        file = (directory / _NAME).open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        return cls(file)

    def release(self) -> None:
        self._file.close()


def holder(directory: Path) -> int | None:
    """The id of the process that has claimed the folder."""
    with contextlib.suppress(FileNotFoundError), (directory / _NAME).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read() or 0) or None
    return None
