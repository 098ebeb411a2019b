"""A dev session as a person starts it: the command in a process of its own, on a folder of its own."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tickwheel_operator.dev.session import LEDGER_FILE, STATE_FOLDER
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.ledger import codec
from tickwheel_operator.ledger.facts import Fact

PATIENCE_S = 60.0
"""For what takes a second on an idle machine."""

COMMAND = (sys.executable, "-c", "from tickwheel_operator.cli.main import main; main()")

POOL = """\
apiVersion: tickwheel.io/v1alpha1
kind: WorkerPool
metadata: {name: local}
spec: {replicas: %d, slots: 4}
"""
TASK = """\
---
apiVersion: tickwheel.io/v1alpha1
kind: ScheduledTask
metadata: {name: %s}
spec:
  trigger: {%s}
  pool: local
  handler: %s
"""
HANDLERS = """\
import asyncio, os, pathlib
from tickwheel import Context, task

HERE = pathlib.Path(__file__).parent


@task("tick")
async def tick(ctx: Context, word: str = "one") -> str:
    return word


@task("gated")
async def gated(ctx: Context) -> str:
    (HERE / "began").touch()
    while not (HERE / "open").exists():
        await asyncio.sleep(0.02)
    return "done"


@task("endless")
async def endless(ctx: Context) -> None:
    (HERE / "began").write_text(str(os.getpid()))
    if ctx.attempt == 1:
        await asyncio.sleep(3600)
"""


def manifests(*tasks: tuple[str, str, str], replicas: int = 1, more: str = "") -> str:
    """A pool, and a task for each name, trigger and handler; `more` goes into the last one's spec."""
    return POOL % replicas + "".join(TASK % task for task in tasks) + more


class Session:
    """`tickwheel dev FOLDER ...`."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self._log = folder.parent / f"output-{time.monotonic_ns()}"
        self._output = self._log.open("wb")
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what most people do not have
        self.process = subprocess.Popen(
            [*COMMAND, "dev", str(folder), *options],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for it; a session that ended meanwhile will never get there."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S} s; the output is\n{self.output}"
            assert self.process.poll() is None, f"{what}: the session ended; the output is\n{self.output}"
            time.sleep(0.05)

    def says(self, text: str) -> None:
        self.until(lambda: text in self.output, f"says {text!r}")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """The exit status."""
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._output.close()


def facts(folder: Path) -> list[Fact]:
    """What the ledger of the folder has, while a session runs or after it."""
    path = folder / STATE_FOLDER / LEDGER_FILE
    if not path.exists():
        return []
    database = sqlite3.connect(path, timeout=10)
    try:
        rows = database.execute("select sequence, data from segments where kind = 'Facts' order by sequence").fetchall()
    except sqlite3.OperationalError:  # before its first table
        return []
    finally:
        database.close()
    return [fact for sequence, data in rows for fact in codec.decode_facts(data, where=f"segment {sequence}")]


def state(folder: Path) -> State:
    """The fold of the facts: raises where they do not fit together."""
    folded = State()
    for fact in facts(folder):
        folded.apply(fact)
    return folded


def succeeded(folder: Path, task: str) -> int:
    """How many of the task's runs did."""
    return sum(found.succeeded for found in state(folder).tasks.values() if found.name == task)


def results(folder: Path, task: str) -> list[str]:
    """The results of the task's runs that succeeded, oldest first, as far as the history goes."""
    return [
        ended.result.decode()
        for found in state(folder).tasks.values()
        if found.name == task
        for ended in found.history_succeeded
    ]
