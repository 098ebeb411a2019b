"""Quartz beside the engine: built with Maven on first use, one Java process a case, the clustered store on PostgreSQL.

Called by `run.py`. The jar and what it needs live in the user's cache, under a key of the sources. Threads of the pool
are those that were fastest when tried (README.md).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.timers.case_process import CaseFailed, figures_of
from benchmarks.timers.postgres import Postgres, postgres

__all__ = ["THREADS", "build", "run_case"]

_PROJECT = Path(__file__).parent / "quartz"
_BUILD_S = 600.0
THREADS = {"ram": 64, "jdbc": 10}
"""Of the pool, and triggers that are acquired at a time."""


def build() -> Path:
    """The folder with the classes and jars; builds it if it is not there."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise CaseFailed(f"{program} was not found on PATH; install Debian's packages openjdk-17-jdk and maven")
    sources = sorted(path for path in _PROJECT.rglob("*") if path.suffix in (".xml", ".java"))
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "tickwheel" / "bench-quartz" / digest
    mark = folder / "complete"
    if not mark.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [
            "mvn", "--batch-mode", "--quiet", "--file", str(_PROJECT / "pom.xml"), f"-Dbuild.folder={folder}",
            "package",
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise CaseFailed(f"building Quartz's case took more than {_BUILD_S:.0f} s") from error
        if done.returncode != 0:
            words = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
            raise CaseFailed(f"building Quartz's case failed:\n{words}")
        mark.touch()
    return folder


def run_case(
    store: str, case: str, amount: int, seconds: int, *, timeout_s: float, threads: int | None = None
) -> dict[str, Any]:
    """One case in a process of its own; `jdbc` with a database of its own.

    Raises
    ------
    CaseFailed, PostgresMissing
        With the last words of what failed.
    """
    folder = build()
    context = postgres() if store == "jdbc" else nullcontext(None)
    with context as database:
        command = [
            "java", "-Xmx3g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
            "-cp", f"{folder / 'classes'}:{folder / 'lib'}/*", "bench.QuartzCase",
            store, case, str(amount), str(seconds), str(threads or THREADS[store]), *_access(database),
        ]  # fmt: skip
        variables = {"PGPASSWORD": database.password} if database else {}
        what = f"Quartz ({store}) {case} {amount}"
        figures = figures_of(command, what=what, timeout_s=timeout_s, environment=variables)
        if database:
            figures["database"] = database.version
        return figures


def _access(database: Postgres | None) -> list[str]:
    return [] if database is None else [database.jdbc_url, database.user]
