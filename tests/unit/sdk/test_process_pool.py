"""Processes of handlers, without a worker around: what fails costs no slot, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

from tickwheel import _process
from tickwheel._attempt import Attempt, Stop
from tickwheel._process import HandlerProcess
from tickwheel._processes import HandlerProcesses
from tickwheel._protocol import ErrorReport, Lease, ResultReport
from tickwheel._registry import Handler

MODULE = """
import os, subprocess, threading, time
from tickwheel import _child, task

while os.path.exists(HOLD):
    time.sleep(0.005)

@task("next", process=True)
def next_one(ctx):
    return "next"

@task("odd-progress", process=True)
def odd_progress(ctx):
    ctx.progress(0.5, os.fsdecode(b"\\xff.csv"))
    ctx.progress(0.5, 404)
    return "fine"

@task("starts-another", process=True)
def starts_another(ctx, file):
    child = subprocess.Popen(["sleep", "600"])
    with open(file + ".new", "w") as out:
        out.write(str(child.pid))
    os.rename(file + ".new", file)
    time.sleep(600)

held_up, ended = threading.Event(), threading.Event()
send = _child._Process._send

def send_late(self, message):
    \"\"\"The listening thread has to wait between its look at the progress and its telling.\"\"\"
    kind = type(message).__name__
    if kind == "Progress" and threading.current_thread().name == "tickwheel-listen":
        held_up.set()
        ended.wait()
    send(self, message)
    if kind == "Ended":
        ended.set()

@task("tells", process=True)
def tells(ctx):
    _child._Process._send = send_late
    ctx.progress(0.9, "nearly done")
    held_up.wait()

_child._PROGRESS_SECONDS = 0.05
"""
NAMES = ("next", "odd-progress", "starts-another", "tells")


class Pool:
    """A set of processes, and what becomes of the attempts that are submitted to it."""

    def __init__(self, module: str) -> None:
        self._handlers = {
            name: Handler(name, lambda ctx, **given: None, process=True, modules=(module,)) for name in NAMES
        }
        self.ended: dict[Attempt, object] = {}
        self.returned: list[Attempt] = []
        self.after: dict[Attempt, Attempt] = {}
        """What to submit when an attempt has ended."""
        self.processes = HandlerProcesses(list(self._handlers.values()), self._ended, self.returned.append)
        self._tokens = 0

    def attempt(self, name: str, parameters: bytes = b"{}") -> Attempt:
        self._tokens += 1
        lease = Lease(token=self._tokens, run="r", task="n/t", handler=name, scheduled_ms=0)
        lease.parameters = type(lease.parameters)(parameters)
        return Attempt(lease, self._handlers[name], None, time.monotonic())

    def submit(self, name: str, parameters: bytes = b"{}") -> Attempt:
        attempt = self.attempt(name, parameters)
        self.processes.submit(attempt)
        return attempt

    async def result(self, attempt: Attempt) -> object:
        """What it returned, or the report of its failure."""
        await eventually(lambda: attempt in self.ended)
        report = self.ended[attempt]
        return bytes(report.value).decode().strip('"') if isinstance(report, ResultReport) else report

    async def idle(self) -> HandlerProcess:
        await eventually(lambda: self.processes._idle)
        return self.processes._idle[0]

    def _ended(self, attempt: Attempt, report: object) -> None:
        self.ended[attempt] = report
        if (after := self.after.get(attempt)) is not None:
            self.processes.submit(after)


async def eventually(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture
def hold(tmp_path, monkeypatch) -> Path:
    """While this file is there, the import of the handlers goes on."""
    hold = tmp_path / "hold"
    (tmp_path / "pool_handlers.py").write_text(MODULE.replace("HOLD", repr(str(hold))))
    monkeypatch.syspath_prepend(str(tmp_path))
    return hold


@pytest.fixture
async def make_pool(hold):
    pools: list[Pool] = []

    def make() -> Pool:
        pools.append(Pool("pool_handlers"))
        return pools[-1]

    yield make
    for pool in pools:
        await pool.processes.stop()


@pytest.fixture
async def pool(make_pool) -> Pool:  # in the loop
    return make_pool()


async def test_a_process_that_was_killed_just_as_its_handler_ended_is_not_used_again(pool, monkeypatch):
    await pool.idle()
    first, second = pool.attempt("next"), pool.attempt("next")
    pool.after[first] = second
    report = HandlerProcess.report

    async def killed_meanwhile(process, attempt):
        """Its last word was read, and in the same turn of the loop its grace is over."""
        said = await report(process, attempt)
        if attempt is first:
            pool.processes.kill(first)
        return said

    monkeypatch.setattr(HandlerProcess, "report", killed_meanwhile)
    pool.processes.submit(first)
    assert await pool.result(first) == "next"
    assert await pool.result(second) == "next"


async def test_progress_may_be_told_with_whatever_becomes_a_text(pool):
    attempt = pool.submit("odd-progress")
    assert await pool.result(attempt) == "fine"
    assert attempt.progress == (0.5, "404")


async def test_progress_that_comes_after_the_end_is_not_that_of_the_next_attempt(pool):
    first, second = pool.attempt("tells"), pool.attempt("next")
    pool.after[first] = second
    pool.processes.submit(first)
    assert await pool.result(second) == "next"
    assert second.progress is None


async def test_one_process_is_started_for_one_slot(make_pool, monkeypatch):
    started = []
    start = HandlerProcess.start.__func__

    async def counted(cls, plan):
        started.append(plan)
        return await start(cls, plan)

    monkeypatch.setattr(HandlerProcess, "start", classmethod(counted))
    pool = make_pool()
    for _ in range(3):  # the first comes before the process that is started with the worker is up
        assert await pool.result(pool.submit("next")) == "next"
    assert len(started) == 1
    assert [await pool.result(attempt) for attempt in [pool.submit("next"), pool.submit("next")]] == ["next"] * 2
    assert len(started) == 2


async def test_what_waits_for_a_process_is_stopped_at_once(make_pool, hold):
    hold.touch()
    pool = make_pool()
    cancelled, timed_out, given_back = (pool.submit("next") for _ in range(3))
    for attempt, stop in ((cancelled, Stop.CANCELLED), (timed_out, Stop.TIMEOUT)):
        attempt.must_stop(stop, time.monotonic())
        pool.processes.ask_to_stop(attempt, stop)
    assert pool.returned == [cancelled]
    assert isinstance(report := pool.ended[timed_out], ErrorReport) and report.timeout
    pool.processes.give_back()
    assert pool.returned == [cancelled, given_back]
    hold.unlink()
    assert await pool.result(pool.submit("next")) == "next"
    assert len(pool.ended) == 2


@pytest.mark.parametrize("where", ["start", "report"])
async def test_whatever_fails_an_attempt_ends(pool, monkeypatch, where):
    await pool.idle()

    async def broken(*_):
        raise MemoryError("no more")

    monkeypatch.setattr(HandlerProcess, where, broken)
    attempts = [pool.submit("next") for _ in range(3)]  # one finds the idle process
    reports = [await pool.result(attempt) for attempt in attempts]
    failed = [report for report in reports if isinstance(report, ErrorReport)]
    assert len(failed) == (2 if where == "start" else 3)
    assert {(report.type, report.message) for report in failed} == {
        ("HandlerError", "handler next cannot run in a process of its own: no more")
    }


async def test_descriptors_above_1023_do_not_keep_a_handler_from_running(make_pool):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("this machine allows no more")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    lowest = os.open(os.devnull, os.O_RDONLY)
    taken = [lowest]
    try:
        while taken[-1] < 1024:
            taken.append(fcntl.fcntl(lowest, fcntl.F_DUPFD_CLOEXEC, 0))
        pool = make_pool()
        assert await pool.result(pool.submit("next")) == "next"
        await pool.processes.stop()
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_path_among_the_texts_of_sys_path_does_not_keep_a_handler_from_running(pool, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])
    os.kill((await pool.idle())._process.pid, signal.SIGKILL)
    await (await pool.idle()).exit
    assert await pool.result(pool.submit("next")) == "next"


async def test_a_number_is_not_killed_again_when_it_may_be_anothers(pool, monkeypatch):
    killed = []
    kill = os.killpg
    monkeypatch.setattr(os, "killpg", lambda pid, number: killed.append(pid) or kill(pid, number))
    process = await pool.idle()
    pid = process._process.pid
    os.kill(pid, signal.SIGKILL)  # an idle one is ended, by the out-of-memory killer
    await process.exit
    await asyncio.sleep(0)
    assert killed == [pid], "what it left behind goes at once"
    assert await pool.result(pool.submit("next")) == "next"
    process.kill()
    assert killed == [pid]


async def test_what_a_killed_handler_had_started_does_not_stay_as_zombies_of_the_first_process(
    pool, tmp_path, monkeypatch
):
    monkeypatch.setattr(_process, "_GROUP_SECONDS", 0.05)
    libc, subreaper = ctypes.CDLL(None), 36  # PR_SET_CHILD_SUBREAPER: this process inherits as the first one does
    libc.prctl(subreaper, 1, 0, 0, 0)
    try:
        file = tmp_path / "started"
        attempt = pool.submit("starts-another", b'{"file":"%s"}' % str(file).encode())
        await eventually(file.exists)
        attempt.must_stop(Stop.CANCELLED, time.monotonic())
        pool.processes.kill(attempt)
        await pool.result(attempt)
        await eventually(lambda: not Path(f"/proc/{file.read_text()}").exists())
    finally:
        libc.prctl(subreaper, 0, 0, 0, 0)
        with contextlib.suppress(OSError):
            os.kill(int(file.read_text()), signal.SIGKILL)
