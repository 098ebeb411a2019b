"""A disk that is full, and has room again: a file system of two megabytes, which takes the right to mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.dev.driver import HANDLERS, Session, manifests, succeeded

Start = Callable[..., Session]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with handlers on a file system of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tickwheel-test", str(disk)], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here (that takes root): {done.stderr.strip()}")
    try:
        (disk / "handlers.py").write_text(HANDLERS)
        (disk / "tasks.yaml").write_text(manifests(("hello", "fixedRate: 200ms", "tick")))
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (65_536, 4_096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def test_a_full_disk_is_said_and_the_session_goes_on_when_there_is_room(small_disk: Path, start: Start) -> None:
    session = start(small_disk)
    session.until(lambda: succeeded(small_disk, "hello") > 2, "runs succeed")
    filler = fill(small_disk)
    session.says("ledger.sqlite is full: nothing can be recorded, so nothing starts; free some space")
    (small_disk / "more.yaml").touch()  # it is read again, and what is remembered of it does not fit
    filler.unlink()
    before = succeeded(small_disk, "hello")
    session.until(lambda: succeeded(small_disk, "hello") > before + 2, "runs succeed again")
    assert "Traceback" not in session.output


def test_a_session_that_begins_on_a_full_disk_says_it_and_begins_when_there_is_room(
    small_disk: Path, start: Start
) -> None:
    first = start(small_disk, "--for", "2s")
    assert first.ended() == 0
    filler = fill(small_disk)
    # What the session cannot do without (a few bytes for others to find it) fits; the ledger does not.
    os.truncate(filler, filler.stat().st_size - 16_384)
    session = start(small_disk)
    session.says("is full: nothing can be recorded")
    filler.unlink()
    before = succeeded(small_disk, "hello")
    session.until(lambda: succeeded(small_disk, "hello") > before + 2, "runs succeed")
    assert "Traceback" not in session.output


def test_without_any_room_the_session_does_not_begin_and_says_why(small_disk: Path, start: Start) -> None:
    fill(small_disk)
    session = start(small_disk)
    assert session.ended() == 1
    assert "No space left on device; dev mode keeps its ledger there" in session.output
    assert "Traceback" not in session.output
