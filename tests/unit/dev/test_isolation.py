"""A dev session with faults of its own: each costs one task, and neither the others nor the session."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.dev.driver import Session, manifests, succeeded

SITE = """
from tickwheel_operator.dev import session
from tickwheel_operator.engine.read import views
from tickwheel_operator.engine.dispatch.waiting import Waiting
from tickwheel_operator.kinds import scheduledtask


def fault(owner, name, wanted, name_of):
    whole = getattr(owner, name)

    def broken(*arguments, **options):
        if name_of(*arguments) == wanted:
            raise RuntimeError(f"{name} of {wanted}")
        return whole(*arguments, **options)

    setattr(owner, name, broken)


fault(scheduledtask, "compile_task", "unread", lambda task: task.metadata.name)
fault(Waiting, "ready", "undecided", lambda _, dispatch: dispatch.run.task.name)
fault(views, "_task_view", "unseen", lambda state, task, entry, *rest: entry.spec.name if entry else "")
"""
DRAWING = """
from tickwheel_operator.dev.table import Picture


def broken(*_):
    raise RuntimeError("lines")


Picture.lines = broken
"""
Start = Callable[..., Session]
EVERY = "fixedRate: 200ms"


def broken(folder: Path, monkeypatch: pytest.MonkeyPatch, site: str) -> None:
    """Sessions of this test begin with `site`."""
    place = folder.parent / "site"
    place.mkdir()
    (place / "sitecustomize.py").write_text(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")]))


def test_a_fault_at_one_task_is_told_and_costs_no_other_its_runs(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(folder, monkeypatch, SITE)
    names = ("good", "unread", "undecided", "unseen")
    (folder / "tasks.yaml").write_text(manifests(*((name, EVERY, "tick") for name in names)))
    session = start(folder)
    session.says("RuntimeError('compile_task of unread')")
    session.says("RuntimeError('ready of undecided')")
    before = succeeded(folder, "good")
    session.until(lambda: succeeded(folder, "good") >= before + 5, "the good task runs on")
    session.until(lambda: succeeded(folder, "unseen") >= 1, "one that cannot be shown runs too")
    assert session.process.poll() is None


def test_a_table_that_cannot_be_drawn_ends_no_session(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(folder, monkeypatch, DRAWING)
    (folder / "tasks.yaml").write_text(manifests(("good", EVERY, "tick")))
    session = start(folder)
    session.says("cannot be shown: RuntimeError('lines')")
    session.until(lambda: succeeded(folder, "good") >= 5, "the task runs on")
    assert session.output.count("cannot be shown") == 1
