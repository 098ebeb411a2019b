"""A folder with handlers for each test, and sessions that are ended with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.dev.driver import HANDLERS, Session


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "jobs"
    made.mkdir()
    (made / "handlers.py").write_text(HANDLERS)
    return made


@pytest.fixture
def start() -> Iterator[Callable[..., Session]]:
    """Starts sessions, and leaves none behind."""
    sessions: list[Session] = []

    def begin(folder: Path, *options: str) -> Session:
        sessions.append(Session(folder, *options))
        return sessions[-1]

    yield begin
    for session in sessions:
        session.close()
