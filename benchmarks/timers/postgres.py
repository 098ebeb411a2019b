"""A PostgreSQL server of the benchmark's own: made in a temporary folder, on loopback, removed afterwards.

Used by `quartz.py`. The server is Debian's, or any other that is installed; its service need not run and is not
touched. It refuses to run as root, so a run as root starts it as the user `postgres`. What is committed is on the disk
(`fsync` and `synchronous_commit` stay on), as with Tickwheel's ledger.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.throughput.processes import running

__all__ = ["Postgres", "PostgresMissing", "postgres"]

_START_S = 60.0


class PostgresMissing(RuntimeError):
    """There is no server to run; the message says what to install."""


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A server that runs."""

    version: str
    port: int
    user: str
    password: str

    @property
    def jdbc_url(self) -> str:
        return f"jdbc:postgresql://127.0.0.1:{self.port}/postgres"


def _programs() -> Path:
    """The folder that has the server's programs; the newest of those installed."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    # Debian keeps each version in a folder of its own, off PATH.
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not folders:
        raise PostgresMissing("no PostgreSQL server: initdb is not there; install Debian's package `postgresql`")
    return folders[-1].parent


def _server_user() -> str | None:
    """Whom the server runs as; None: as we do."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise PostgresMissing(
            "PostgreSQL refuses to run as root and there is no user `postgres`; install Debian's package `postgresql`,"
            " or run the benchmark as another user"
        ) from None


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server for the length of a `with` block.

    Raises
    ------
    PostgresMissing
        It is not installed.
    RuntimeError
        It did not start; the message has its own last words.
    """
    programs, user = _programs(), _server_user()
    version = subprocess.run(
        [str(programs / "postgres"), "--version"], capture_output=True, text=True, timeout=30, check=True
    ).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="tickwheel-postgres-") as name:
        folder = Path(name)
        data, log, secret = folder / "data", folder / "log", folder / "password"
        made = Postgres(version=version, port=_free_port(), user="bench", password=secrets.token_urlsafe(16))
        secret.write_text(made.password)
        if user is not None:
            # Its own folder: a directory of root's is closed to it.
            for path in (folder, secret):
                shutil.chown(path, user)
        _run(
            [
                str(programs / "initdb"), "--pgdata", str(data), "--username", made.user, "--pwfile", str(secret),
                "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale",
            ],
            user,
        )  # fmt: skip
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(made.port),
            "unix_socket_directories": str(folder),
            "fsync": "on",
            "synchronous_commit": "on",
            # The defaults are for a machine with a tenth of the memory that any has today.
            "shared_buffers": "256MB",
            "max_wal_size": "2GB",
            "max_connections": "200",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(programs / "postgres"), "-D", str(data), *options]
        if user is not None:
            # A change of user forgets whose death ends the process; it is said once more.
            who = [f"--reuid={user}", f"--regid={user}", "--init-groups", "--pdeathsig=TERM"]
            command = ["setpriv", *who, *command]
        with running(command, log=log) as server:
            deadline = time.monotonic() + _START_S
            while not _accepts(programs, made.port):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text(errors='replace')[-3000:]}")
                time.sleep(0.1)
            yield made


def _run(command: list[str], user: str | None) -> None:
    done = subprocess.run(
        command, user=user, group=user, extra_groups=[] if user else None, cwd="/", capture_output=True, text=True,
        timeout=_START_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        words = re.sub(r"\n+", "\n", done.stdout + done.stderr)[-2000:]
        raise RuntimeError(f"{Path(command[0]).name} failed:\n{words}")


def _accepts(programs: Path, port: int) -> bool:
    asked = subprocess.run(
        [str(programs / "pg_isready"), "--quiet", "--host", "127.0.0.1", "--port", str(port)], timeout=30, check=False
    )
    return asked.returncode == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
