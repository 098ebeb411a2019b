"""The peers' programs, made on first use in a cache folder: a Python environment and the asynq binary.

Called by `run.py`. The peers' packages never touch the product's environment or lock: they are pinned by
`peers/requirements.txt` (with hashes) and by `peers/asynq/go.sum`, and live in
`${XDG_CACHE_HOME:-~/.cache}/tickwheel`, under a key made of those files. A folder without its
mark of completion was left by an interrupted run and is made anew; a lock keeps two runs from making it at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["EnvironmentFailed", "asynq_binary", "peers_python"]

_PEERS = Path(__file__).parent / "peers"
_MAKE_TIMEOUT_S = 600.0


class EnvironmentFailed(RuntimeError):
    """The peers' programs could not be made; the message has the tool's own last words."""


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tickwheel"


def _key(files: list[Path], *more: str) -> str:
    digest = hashlib.sha256("\0".join(more).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], *, what: str, folder: Path | None = None, **variables: str) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=_MAKE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFailed(f"{what} took more than {_MAKE_TIMEOUT_S:.0f} s: {' '.join(command)}") from error
    if done.returncode != 0:
        words = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise EnvironmentFailed(f"{what} failed: {' '.join(command)}\n{words}")


def peers_python() -> Path:
    """The interpreter of an environment that has the Python peers; makes it if it is not there."""
    requirements = _PEERS / "requirements.txt"
    folder = _cache() / "bench-venv" / _key([requirements], platform.python_version())
    python = folder / "bin" / "python"
    mark = folder / "complete"
    with _locked(folder):
        if not mark.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(folder)], what="making the peers' environment")
            _run(
                [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(requirements)],
                what="installing the Python peers",
            )
            mark.touch()
    return python


def asynq_binary() -> Path:
    """The built asynq peer; builds it if it is not there."""
    if shutil.which("go") is None:
        raise EnvironmentFailed("go was not found on PATH; the asynq peer is built with it (Go 1.26 or later)")
    sources = _PEERS / "asynq"
    key = _key([sources / name for name in ("main.go", "go.mod", "go.sum")])
    folder = _cache() / "bench-asynq" / key
    binary = folder / "asynq-peer"
    with _locked(folder):
        if not binary.exists():
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = folder / "asynq-peer.new"
            _run(
                ["go", "build", "-trimpath", "-mod=readonly", "-o", str(unfinished), "."],
                what="building the asynq peer",
                folder=sources,
                CGO_ENABLED="0",
            )
            unfinished.rename(binary)
    return binary
