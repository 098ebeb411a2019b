"""`tickwheel dev` begun, looked at and ended, as processes."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner
from tests.unit.dev.driver import COMMAND, Session, facts, manifests, results, state, succeeded

from tickwheel_operator.cli.main import main
from tickwheel_operator.dev.session import STATE_FOLDER
from tickwheel_operator.ledger.facts import Fired, Leased, Skipped, SucceededWith

Start = Callable[..., Session]


def alive(pid: int) -> bool:
    """Whether the process runs; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(folder: Path) -> list[int]:
    """The worker processes of the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"tickwheel_operator.dev.child" in command and str(folder).encode() in command:
                found.append(int(entry.name))
    return [pid for pid in found if alive(pid)]


def plain(shown: bytes) -> str:
    """What a terminal got, without its control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="replace"))


def test_for_a_while_ends_by_itself_with_a_summary(folder: Path, start: Start) -> None:
    (folder / "tasks.yaml").write_text(
        manifests(("hello", "fixedRate: 400ms", "tick"), ("idle", "fixedRate: 1h", "tick"))
    )
    for seconds in (3, 20):  # a machine that stands still may leave no time for a run
        shutil.rmtree(folder / STATE_FOLDER, ignore_errors=True)
        session = start(folder, "--for", f"{seconds}s")
        assert session.ended() == 0
        if succeeded(folder, "hello"):
            break
    assert re.search(r"hello: \d+ succeeded, 0 failed, \d active, next \d\d:\d\d:\d\d", session.output)
    summary = re.search(
        r"TASK +SUCCEEDED +FAILED +CANCELLED +SKIPPED +ACTIVE\s+hello +([1-9]\d*) +0 +0 +(\d+)\D.*\s+idle +0 ",
        session.output,
    )
    assert summary, session.output
    assert int(summary[1]) == len([fact for fact in facts(folder) if isinstance(fact, SucceededWith)])
    assert int(summary[2]) == sum(fact.count for fact in facts(folder) if isinstance(fact, Skipped))
    assert children(folder) == []


def test_a_terminal_gets_a_live_table_that_fits(folder: Path) -> None:
    (folder / "tasks.yaml").write_text(manifests(("hello", "fixedRate: 500ms", "tick")))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [*COMMAND, "dev", str(folder), "--for", "60s"],
        stdin=slave, stdout=slave, stderr=slave, env={**environment, "TERM": "xterm"}, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    row = r"hello +every 500ms +0\.\ds ✓ \d\d:\d\d:\d\d +\d+ms local-0 +1 +\d+ +0 +\d"
    shown, told = b"", False
    try:
        while chunk := os.read(master, 65536):
            shown += chunk
            if not told and re.search(row, plain(shown)):
                told = True
                process.send_signal(signal.SIGINT)
    except OSError:  # how Linux says that the other side has closed
        pass
    os.close(master)
    assert process.wait(60) == 0
    assert told, plain(shown)
    lines = re.split("[\r\n]+", plain(shown))
    assert any(line.startswith("tickwheel dev  00:") and "  1 worker  " in line for line in lines)
    assert any(re.match("TASK +TRIGGER +NEXT +LAST +LATE +WHERE +TRY +OK +FAIL +ACT", line) for line in lines)
    assert any("draining; Ctrl-C again ends at once" in line for line in lines)
    assert all(len(line) <= 80 for line in lines)
    assert "SUCCEEDED" in lines[-3], "the summary takes the table's place"


def test_ctrl_c_lets_a_running_handler_finish_and_fires_nothing_more(folder: Path, start: Start) -> None:
    (folder / "tasks.yaml").write_text(
        manifests(("often", "fixedRate: 50ms", "tick"), ("job", "once: {after: 100ms}", "gated"))
    )
    session = start(folder)
    session.until((folder / "began").exists, "the handler begins")
    session.send(signal.SIGINT)
    session.says("draining")

    def fired() -> int:
        return len([fact for fact in facts(folder) if isinstance(fact, Fired)])

    def fires_no_more() -> bool:
        before = fired()
        time.sleep(0.3)
        return fired() == before

    session.until(fires_no_more, "what comes every 50 ms fires no more")
    (folder / "open").touch()
    assert session.ended() == 0
    assert results(folder, "job") == ['"done"']
    assert state(folder).attempts == {}
    assert re.search(r"job +1 +0 +0 +0", session.output)


def test_a_second_ctrl_c_ends_at_once(folder: Path, start: Start) -> None:
    (folder / "tasks.yaml").write_text(manifests(("job", "once: {after: 100ms}", "endless")))
    session = start(folder)
    session.until((folder / "began").exists, "the handler begins")
    session.send(signal.SIGINT)
    session.says("draining")
    assert session.process.poll() is None
    session.send(signal.SIGINT)
    assert session.ended() == 130
    assert not alive(int((folder / "began").read_text()))
    [run] = state(folder).runs.values()
    assert run.dispatches[0].token == 0, "the attempt was settled: the run waits for the next session"


def test_a_killed_session_loses_no_instant_and_leaves_no_process(folder: Path, start: Start) -> None:
    (folder / "tasks.yaml").write_text(
        manifests(
            ("job", "once: {after: 100ms}", "endless"), ("often", "fixedRate: 200ms", "tick"),
            replicas=2, more="  misfire: {policy: FireAll, maxCatchUp: 1000}\n",
        )
    )  # fmt: skip
    session = start(folder)
    session.until((folder / "began").exists, "the handler begins")
    session.until(lambda: succeeded(folder, "often") >= 3, "runs succeed")
    holder = int((folder / "began").read_text())
    before = children(folder)
    assert holder in before
    session.send(signal.SIGKILL)
    session.process.wait()
    deadline = time.monotonic() + 60
    while children(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children(folder) == [], "workers whose session was killed end by themselves"
    done = succeeded(folder, "often")
    assert len(state(folder).runs) >= 1

    again = start(folder)
    again.until(lambda: results(folder, "job") == [""], "what the dead workers held is done again")
    again.until(lambda: succeeded(folder, "often") > done + 10, "the backlog is done, and more")
    again.send(signal.SIGINT)
    assert again.ended() == 0

    folded = state(folder)
    often = next(task for task in folded.tasks.values() if task.name == "often")
    fired = [f.scheduled_ms for f in facts(folder) if isinstance(f, Fired) and often.number in f.tasks]
    skipped = [f for f in facts(folder) if isinstance(f, Skipped) and f.task == often.number]
    assert fired == list(range(fired[0], fired[-1] + 1, 200)), "each instant exactly once, over both sessions"
    assert skipped == []
    assert often.succeeded + len(often.runs) == len(fired), "one may have been made ahead of its instant"


def test_a_killed_worker_is_started_again_and_its_work_is_delivered_again(folder: Path, start: Start) -> None:
    (folder / "tasks.yaml").write_text(manifests(("job", "once: {after: 100ms}", "endless")))
    session = start(folder)
    session.until((folder / "began").exists, "the handler begins")
    os.kill(int((folder / "began").read_text()), signal.SIGKILL)
    session.until(lambda: results(folder, "job") == [""], "the second attempt succeeds")
    session.says("worker local-0 was killed by SIGKILL and is started again; see ")
    assert len([fact for fact in facts(folder) if isinstance(fact, Leased)]) == 2


def test_a_second_session_on_the_folder_is_refused_and_told_who_runs_it(folder: Path, start: Start) -> None:
    (folder / "tasks.yaml").write_text(manifests(("hello", "fixedRate: 200ms", "tick")))
    first = start(folder)
    first.until(lambda: results(folder, "hello"), "runs succeed")
    second = start(folder, "--for", "5s")
    assert second.ended() == 1
    assert f"is being run by another `tickwheel dev`, process {first.process.pid};" in second.output
    done = len(facts(folder))
    first.until(lambda: len(facts(folder)) > done, "the first one goes on")


def test_a_port_in_use_is_told_before_the_ledger_is_touched(folder: Path) -> None:
    (folder / "tasks.yaml").write_text(manifests(("hello", "fixedRate: 200ms", "tick")))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(main, ["dev", str(folder), "--port", str(port)])
    assert result.exit_code == 1
    assert f"Error: the gateway cannot listen on 127.0.0.1 port {port}: " in result.output
    assert "another --port, or leave it out" in result.output
    assert facts(folder) == []


def test_a_folder_without_anything_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["dev", str(tmp_path)])
    assert result.exit_code == 1
    assert f"Error: there is nothing to run in {tmp_path}: " in result.output
    assert "no manifests (*.yaml with a ScheduledTask) and no handlers (*.py" in result.output
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_or_unreadable_is_said_and_taken_when_it_comes(folder: Path, start: Start) -> None:
    handlers = (folder / "handlers.py").read_text()
    (folder / "handlers.py").unlink()
    (folder / "tasks.yaml").write_text(manifests(("hello", "fixedRate: 200ms", "tick")))
    (folder / "broken.yaml").write_text("kind: [\n")
    (folder / "latin.yaml").write_bytes(b"name: M\xfcller\n")
    session = start(folder)
    session.says("no handlers yet: put a Python file with @task functions into ")
    session.says("broken.yaml: line 2, column 1: this is not YAML: ")
    session.says("latin.yaml: line 1, column 8: this is not UTF-8")
    (folder / "handlers.py").write_text(handlers)
    session.until(lambda: results(folder, "hello"), "the tasks of the other file run")
