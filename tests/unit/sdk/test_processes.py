"""Handlers with a process of their own: they run as others do, and whatever they do can be ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest
from tests.unit.sdk.conftest import left

HANDLERS = textwrap.dedent(
    """
    import asyncio, contextvars, ctypes, os, re, signal, subprocess, sys, time
    from tickwheel import Context, task

    if "LEAVE_SOON" in os.environ:
        from tickwheel import _link
        _link._LEAVING_SECONDS = 0.5

    if "HOLD_CHILDREN" in os.environ and "-m" not in sys.orig_argv:
        time.sleep(60)

    variable = contextvars.ContextVar("variable", default="unset")

    @task("add", process=True)
    def add(ctx: Context, a: int, b: int = 1):
        seen = variable.get()
        variable.set("set by another attempt")
        ctx.logger.warning("adding %d", a)
        print("printed", file=sys.stderr)
        return {"sum": a + b, "pid": os.getpid(), "worker": os.getppid(), "run": ctx.run, "attempt": ctx.attempt,
                "token": ctx.token, "remaining": ctx.remaining, "cancelled": ctx.cancelled, "seen": seen}

    @task("await", process=True)
    async def wait(ctx, seconds: float = 0, file: str = os.devnull):
        ctx.progress(0.5, "half")
        open(file, "w").write(str(os.getpid()))
        try:
            await asyncio.sleep(seconds)
        finally:
            seen = ctx.cancel_reason
        return os.getpid()

    @task("looks", process=True)
    def looks(ctx, file: str):
        open(file, "w").write(str(os.getpid()))
        while True:
            time.sleep(0.01)
            ctx.raise_if_cancelled()

    @task("fails", process=True)
    def fails(ctx):
        raise LookupError("no such shop")

    @task("deaf", process=True)
    def deaf(ctx, file: str):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        open(file, "w").write(f"{os.getpid()} {child.pid}")
        while True:
            time.sleep(60)

    @task("holds", process=True)
    def holds(ctx, file: str):
        open(file, "w").write(str(os.getpid()))
        re.match("(a+)+$", "a" * 60 + "b")

    @task("forks", process=True)
    def forks(ctx):
        if not os.fork():
            time.sleep(60)  # it has the socket, too
        os._exit(3)

    @task("crashes", process=True)
    def crashes(ctx):
        ctypes.string_at(0)

    @task("is-killed", process=True)
    def is_killed(ctx):
        os.kill(os.getpid(), signal.SIGKILL)

    @task("slow", process=True)
    def slow(ctx, file: str):
        open(file, "w").close()
        time.sleep(0.7)
        return "finished"
    """
)


@pytest.fixture
def handlers_file() -> str:
    return HANDLERS


def gone(pid: int) -> bool:
    """Whether the process ended (a zombie has)."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def said(file: Path) -> str:
    """What the handler wrote there, if it did already."""
    return file.read_text() if file.exists() else ""


async def test_a_handler_runs_in_a_process_that_is_used_again(operator, process):
    made = await process(TICKWHEEL_SLOTS="1")
    tokens = [operator.lease("add", {"a": number}, attempt=2, timeout_ms=60_000) for number in range(3)]
    waits = operator.lease("await", {"seconds": 1.8})
    wrong, failing, unknown = operator.lease("add", {"a": "x"}), operator.lease("fails"), operator.lease("nobody")
    await operator.until(lambda: not operator.open)
    results = [operator.results[token] for token in tokens]
    assert [result["sum"] for result in results] == [1, 2, 3]
    assert len({result["pid"] for result in results} | {operator.results[waits]}) == 1
    first = results[0]
    assert first["worker"] == made.pid != first["pid"]
    assert (first["run"], first["attempt"], first["token"], first["cancelled"]) == ("run-1", 2, tokens[0], False)
    assert 0 < first["remaining"] <= 60
    assert {result["seen"] for result in results} == {"unset"}
    told = operator.progress[0]
    assert (told.token, told.fraction, told.message) == (waits, 0.5, "half")
    assert operator.failed[wrong].type == "ParameterError"
    assert (operator.failed[failing].type, operator.failed[failing].message) == ("LookupError", "no such shop")
    assert "in fails" in operator.failed[failing].traceback
    assert operator.failed[unknown].type == "HandlerNotFound"
    made.send_signal(signal.SIGTERM)
    code, errors = await left(made)
    assert code == 0
    assert "WARNING tickwheel.task.add: [run-1 #2] adding 0" in errors
    assert "printed" in errors
    assert gone(first["pid"])


async def test_a_handler_that_does_not_stop_is_killed_with_all_that_it_started(operator, process, tmp_path):
    await process(TICKWHEEL_SLOTS="4")
    files = [tmp_path / name for name in ("cancelled", "timed-out", "obeys", "obeys-too")]
    given = [{"file": str(file)} for file in files]
    cancelled = operator.lease("deaf", given[0], grace_ms=300)
    obeys = operator.lease("looks", given[2], grace_ms=60_000)
    obeys_too = operator.lease("await", {"seconds": 60, **given[3]}, grace_ms=60_000)
    while not said(files[1]):  # starting its process may take longer than its time
        timed_out = operator.lease("deaf", given[1], timeout_ms=2500, grace_ms=100)
        await operator.until(lambda timed_out=timed_out: said(files[1]) or timed_out not in operator.open)
    await operator.until(lambda: all(map(said, files)))
    for token in (cancelled, obeys, obeys_too):
        operator.stop_attempt(token)
    stopped_at = time.monotonic()
    await operator.until(lambda: cancelled in operator.failed)
    assert time.monotonic() - stopped_at >= 0.3
    await operator.until(lambda: not operator.open)
    how = "did not stop within its grace of"
    assert operator.failed[cancelled].type == "Cancelled"
    assert operator.failed[cancelled].message == f"handler deaf was cancelled, but {how} 300 ms: its process was killed"
    assert (operator.failed[timed_out].type, operator.failed[timed_out].timeout) == ("TimeoutError", True)
    assert operator.failed[timed_out].message.endswith(f"but {how} 100 ms: its process was killed")
    for token, name in ((obeys, "looks"), (obeys_too, "await")):
        assert operator.failed[token].type == "Cancelled"
        assert operator.failed[token].message == f"handler {name} was cancelled"
    pids = [int(pid) for file in files[:2] for pid in file.read_text().split()]
    assert len(pids) == 4
    assert all(gone(pid) for pid in pids[::2]), "handlers must be dead when they are reported"
    await operator.until(lambda: all(gone(pid) for pid in pids))  # what they started ends with them
    after = operator.lease("add", {"a": 1})
    await operator.until(lambda: operator.succeeded[after])


async def test_a_process_that_dies_fails_its_attempt_and_says_how(operator, process):
    await process(TICKWHEEL_SLOTS="4")
    tokens = {name: operator.lease(name) for name in ("crashes", "is-killed", "forks")}
    await operator.until(lambda: not operator.open)
    assert {error.type for error in operator.failed.values()} == {"ProcessDied"}
    messages = {name: operator.failed[token].message for name, token in tokens.items()}
    assert messages == {
        "crashes": "the process of handler crashes was ended by SIGSEGV",
        "is-killed": "the process of handler is-killed was ended by SIGKILL: out of memory?",
        "forks": "the process of handler forks ended by itself with status 3",
    }
    after = operator.lease("add", {"a": 1})
    await operator.until(lambda: operator.succeeded[after])


async def test_no_process_outlives_a_worker_that_was_killed(operator, process, tmp_path):
    made = await process()
    files = [tmp_path / "deaf", tmp_path / "holds"]
    operator.lease("deaf", {"file": str(files[0])})
    operator.lease("holds", {"file": str(files[1])})
    await operator.until(lambda: all(map(said, files)))
    made.kill()
    pids = [int(pid) for file in files for pid in file.read_text().split()]
    await operator.until(lambda: all(gone(pid) for pid in pids), timeout=30)  # by themselves they would take a minute


async def test_the_drain_lets_processes_finish(operator, process, tmp_path):
    made = await process()
    begun = tmp_path / "slow"
    slow = operator.lease("slow", {"file": str(begun)})
    await operator.until(begun.exists)
    made.send_signal(signal.SIGTERM)
    code, errors = await left(made)
    assert code == 0, errors
    assert operator.left.is_set()
    assert operator.results == {slow: "finished"}


async def test_the_drain_kills_processes_that_do_not_finish(operator, process, tmp_path):
    made = await process(TICKWHEEL_DRAIN_TIMEOUT="0.5", LEAVE_SOON="1")
    file = tmp_path / "deaf"
    deaf = operator.lease("deaf", {"file": str(file)}, grace_ms=60_000)
    await operator.until(lambda: said(file))
    made.send_signal(signal.SIGTERM)
    await asyncio.wait_for(operator.left.wait(), 30)
    handler, started = (int(pid) for pid in file.read_text().split())
    assert gone(handler), "it must be dead when it is given away"
    await operator.until(lambda: gone(started))  # killed with it, though the kernel may end it a moment later
    code, errors = await left(made)
    assert code == 0, errors
    assert operator.open == {deaf}  # lost with the worker, so another gets it without a retry being used up


async def test_what_waits_for_the_import_of_the_handlers_is_cancelled_and_given_back_at_once(
    operator, process, tmp_path
):
    made = await process(TICKWHEEL_SLOTS="2", HOLD_CHILDREN="1")
    cancelled, drained = operator.lease("add", {"a": 1}), operator.lease("add", {"a": 2})
    await operator.until(lambda: operator.sent[cancelled] and operator.sent[drained])
    operator.stop_attempt(cancelled)
    await operator.until(lambda: operator.returned == [cancelled])
    made.send_signal(signal.SIGTERM)
    await asyncio.wait_for(operator.left.wait(), 30)
    assert operator.returned == [cancelled, drained]
    code, errors = await left(made)
    assert code == 0, errors


SCRIPT = """
import os
from tickwheel import Worker, task

@task("in-the-main-module", process=True)
def handler(ctx):
    return [__name__, os.getpid()]

def hidden():
    @task("hidden", process=True)
    def handler(ctx): ...

{hide}
Worker().run()
"""


@pytest.mark.parametrize("hide", [False, True])
async def test_handlers_of_a_program_of_ones_own_are_found_if_its_import_registers_them(operator, tmp_path, hide):
    script = tmp_path / "program.py"
    script.write_text(SCRIPT.format(hide="if __name__ == '__main__': hidden()" if hide else ""))
    made = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script)),
        env={**os.environ, "TICKWHEEL_ENDPOINT": operator.url},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        token = operator.lease("in-the-main-module")
        await operator.until(lambda: not operator.open)
        if hide:
            assert operator.failed[token].type == "HandlerError"
            assert (
                "does not register hidden: apply @task at the top level of a module" in operator.failed[token].message
            )
        else:
            assert operator.results[token][0] == "__mp_main__"
            assert operator.results[token][1] != made.pid
    finally:
        made.terminate()
        assert (await left(made))[0] == 0
