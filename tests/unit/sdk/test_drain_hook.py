"""`python -m tickwheel drain`, the preStop hook: it tells a worker that its first process would not tell."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tickwheel import __main__ as command
from tickwheel._drain import drain

WORKER = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("told", flush=True), sys.exit(0)))
print("ready", flush=True)
time.sleep(60)
"""
DEAF = "import time; print('ready', flush=True); time.sleep(60)"
WAITS_FOR_SIGNALS = """
import signal, subprocess, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
subprocess.Popen(sys.argv[1:], preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM]))
signal.sigwait([signal.SIGTERM])
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        """A process that stands for a container's first; returns when the last of its line is up."""
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def shell(*commands: str) -> tuple[str, ...]:
    return ("sh", "-c", "; ".join((*commands, "true")))


def quoted(program: str) -> str:
    return f"{sys.executable} -c '{program.replace(chr(39), chr(34))}'"


def test_a_worker_below_a_shell_is_told_and_the_shell_ends_after_it(start: Start) -> None:
    first = start(*shell(quoted(WORKER)))
    assert len(drain(first.pid)) == 1
    assert first.stdout is not None
    assert first.stdout.read() == "told\n"
    assert first.wait(30) == 0


def test_a_worker_below_two_shells_is_told_once(start: Start) -> None:
    first = start(*shell(f'sh -c "{quoted(WORKER).replace(chr(34), chr(92) + chr(34))}; true"'))
    told = drain(first.pid)
    assert len(told) == 1
    assert told[0] != first.pid
    assert first.wait(30) == 0


def test_a_worker_that_is_the_first_process_is_left_to_kubernetes(start: Start) -> None:
    first = start(sys.executable, "-c", WORKER)
    assert drain(first.pid) == []
    assert first.poll() is None


def test_below_an_init_that_passes_signals_on_the_worker_is_not_told_twice(start: Start) -> None:
    first = start(sys.executable, "-c", WAITS_FOR_SIGNALS, sys.executable, "-c", WORKER)
    assert drain(first.pid) == []
    time.sleep(0.1)
    assert first.poll() is None


def test_a_script_is_the_shell_that_runs_it(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "entrypoint"
    script.write_text(f"#!/bin/sh\n{quoted(WORKER)}\ntrue\n")
    script.chmod(0o755)
    first = start(str(script))
    assert len(drain(first.pid)) == 1
    assert first.wait(30) == 0


def test_a_shell_that_traps_the_signal_is_left_to_it(start: Start) -> None:
    first = start(*shell("trap : TERM", quoted(WORKER)))
    assert drain(first.pid) == []


def test_what_does_not_handle_the_signal_is_left_alone(start: Start) -> None:
    first = start(*shell(quoted(DEAF)))
    assert drain(first.pid) == []
    assert first.poll() is None


def test_outside_of_a_worker_pod_the_command_does_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TICKWHEEL_POOL", raising=False)
    monkeypatch.setattr(command, "drain", lambda: pytest.fail("it would tell processes that are none of its business"))
    assert command.main(["drain"]) == 2
    assert "only in the container of a worker" in capsys.readouterr().err


def test_a_worker_that_still_imports_its_handlers_ends_at_once(tmp_path: Path, start: Start) -> None:
    handlers = tmp_path / "handlers.py"
    handlers.write_text("import time; print('ready', flush=True); time.sleep(60)\n")
    process = start(sys.executable, "-m", "tickwheel", str(handlers))
    process.terminate()
    assert process.wait(30) == 0
