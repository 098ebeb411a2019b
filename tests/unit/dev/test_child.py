"""A local worker process by itself: it lives no longer than the session that started it."""

from __future__ import annotations

import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.dev.driver import PATIENCE_S


@pytest.mark.parametrize("reads", [True, False], ids=["after it was heard", "before it was heard"])
def test_it_ends_when_its_session_is_gone_before_it_may_begin(folder: Path, reads: bool) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tickwheel_operator.dev.child", str(theirs.fileno()), str(folder / "handlers.py")],
            pass_fds=(theirs.fileno(),), start_new_session=True,
        )  # fmt: skip
    with ours:
        assert select.select([ours], [], [], PATIENCE_S)[0], "it tells what came of the import"
        if reads:
            assert ours.recv(4096) == b"{}\n"
    try:
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
    finally:
        process.kill()
