"""What runs in a local worker process: `python -m tickwheel_operator.dev.child FD HANDLER_FILE...`.

It imports the handlers, tells the dev session what came of it, and becomes a worker when the session says so: so a
worker whose new code cannot be imported never takes the place of one that works. The socket `FD` is also the leash:
when the session is gone, however it ended, the socket ends, and this process ends too, with all that it started.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import msgspec

__all__ = ["Loaded"]

_GO = b"go\n"
_LAST_WORDS_S = 1.0
"""How long handlers may go on when the session is gone: nobody takes their results any more."""


class Loaded(msgspec.Struct, frozen=True, omit_defaults=True):
    """The child's one message: a line of JSON."""

    files: list[str] = []
    """Modules beside the handler files that were imported: an edit of theirs counts as one of the handlers."""
    fault: str = ""
    """Why the handlers cannot be used, with file and line."""


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0 after a drain, 2 when the handlers cannot be used."""
    leash = socket.socket(fileno=int(arguments[0]))
    leash.set_inheritable(False)
    files = list(arguments[1:])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    go = threading.Event()
    threading.Thread(target=_hold, args=(leash, go), name="leash", daemon=True).start()
    loaded = _load(files)
    leash.sendall(msgspec.json.encode(loaded) + b"\n")
    if loaded.fault:
        return 2
    go.wait()
    from tickwheel import Worker

    Worker().run()
    return 0


def _load(files: Sequence[str]) -> Loaded:
    from tickwheel import TickwheelError, registered
    from tickwheel.__main__ import load

    directory = Path(files[0]).parent
    sys.path.insert(0, "")  # as `python -m tickwheel` has it
    try:
        for file in files:
            load(file)
        fault = "" if registered() else f"{_names(files)}: no function has @task(...), so there is no handler"
    except TickwheelError as error:
        fault = f"{_names(files)}: {error}"
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        fault = _described(error, directory)
    imported = {str(path) for module in list(sys.modules.values()) if (path := _beside(module, directory)) is not None}
    return Loaded(sorted(imported - set(files)), fault)


def _names(files: Sequence[str]) -> str:
    return ", ".join(Path(file).name for file in files)


def _described(error: BaseException, directory: Path) -> str:
    """One line: where in the person's own files, and what."""
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        what = f"{type(error).__name__}: {error.msg}"
        if error.filename:
            return f"{_shown(Path(error.filename), directory)}, line {error.lineno}: {what}"
    where = ""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.is_relative_to(directory):
            where = f"{_shown(path, directory)}, line {trace.tb_lineno}: "
        trace = trace.tb_next
    return where + " ".join(what.split())


def _shown(path: Path, directory: Path) -> str:
    return str(path.relative_to(directory)) if path.is_relative_to(directory) else str(path)


def _beside(module: object, directory: Path) -> Path | None:
    """The module's file, where it is one of the person's own."""
    file = getattr(module, "__file__", None)
    if not file:
        return None
    path = Path(file)
    own = path.is_relative_to(directory) and not {"site-packages", "dist-packages"} & set(path.parts)
    return path if own else None


def _hold(leash: socket.socket, go: threading.Event) -> None:
    """In a thread: wait for the word to begin, and then for the session's end."""
    if _said(leash):
        go.set()
        while _said(leash):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_LAST_WORDS_S)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # with what the handlers started
    os._exit(1)


def _said(leash: socket.socket) -> bytes:
    """What the session said; nothing: it is gone."""
    try:
        return leash.recv(len(_GO))
    except ConnectionError:  # it was killed before it read what came of the import
        return b""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
