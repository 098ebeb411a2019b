"""One dev session at a time for a folder.

The lock is the kernel's (`flock`), so it ends with the process that holds it, however that ends; the file's text only
tells a second session who that is. The ledger would fence the older session off anyway: this is for peace, not safety.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from tickwheel_operator.dev.errors import DevError

__all__ = ["folder_lock"]


@contextlib.contextmanager
def folder_lock(path: Path, folder: Path) -> Iterator[None]:
    """Hold the lock file at `path` for `folder`. Raises `DevError` where another process has it."""
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise DevError(
                f"{folder} is being run by another `tickwheel dev`, process {holder}; end that one first "
                f"(Ctrl-C there, or kill {holder})"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
