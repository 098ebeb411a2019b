"""Edits while `tickwheel dev` runs: good ones are taken up, bad ones are told, and what works goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.unit.dev.driver import HANDLERS, Session, facts, manifests, results, succeeded

from tickwheel_operator.ledger.facts import Failed

Start = Callable[..., Session]


def test_edits_of_a_manifest_are_taken_up_and_broken_ones_named(folder: Path, start: Start) -> None:
    path = folder / "tasks.yaml"
    good = manifests(("steady", "fixedRate: 200ms", "tick"), ("edited", "fixedRate: 200ms", "tick"))
    path.write_text(good)
    session = start(folder)
    session.until(lambda: results(folder, "edited"), "runs succeed")

    path.write_text(good + "  parameters: {word: two}\n")
    session.until(lambda: '"two"' in results(folder, "edited"), "the new parameters are used")

    path.write_text(good + "  parameters: {word: three}\n  retry: {limit: many}\n")
    session.says("tasks.yaml: ScheduledTask/edited: spec.retry.limit: 'many' is not a whole number")
    done = succeeded(folder, "steady")
    session.until(lambda: succeeded(folder, "steady") > done + 1, "the other task goes on")
    assert '"three"' not in results(folder, "edited"), "the faulty one goes on as it was"

    path.write_text(good + "  parameters: {word: four}\n")
    session.until(lambda: '"four"' in results(folder, "edited"), "the mended version is used")

    path.write_text(manifests(("steady", "fixedRate: 200ms", "tick")))

    def rests() -> bool:
        done, others = succeeded(folder, "edited"), succeeded(folder, "steady")
        session.until(lambda: succeeded(folder, "steady") > others + 5, "the other task goes on")
        return succeeded(folder, "edited") == done

    session.until(rests, "a task that is taken out fires no more")


def test_edits_of_handlers_are_taken_up_and_broken_ones_never_stop_the_workers(folder: Path, start: Start) -> None:
    path = folder / "handlers.py"
    (folder / "tasks.yaml").write_text(manifests(("hello", "fixedRate: 200ms", "tick"), replicas=2))
    path.write_text("from words import WORD\n" + HANDLERS.replace("return word", "return WORD"))
    (folder / "words.py").write_text("WORD = 'first'\n")
    session = start(folder)
    session.until(lambda: '"first"' in results(folder, "hello"), "runs succeed")

    # The same size, within the same second: a cached module would not notice it.
    read = (folder / "words.py").stat().st_mtime_ns
    (folder / "words.py").write_text("WORD = 'other'\n")
    os.utime(folder / "words.py", ns=(read, read ^ 1))
    session.until(lambda: '"other"' in results(folder, "hello"), "the edited module is used")
    session.says("worker local-0 is replaced, since its handlers or its pool changed")

    path.write_text("def broken(:\n")
    session.says("handlers.py, line 1: SyntaxError: ")
    session.says("; the workers go on with the handlers as they were")
    done = succeeded(folder, "hello")
    session.until(lambda: succeeded(folder, "hello") > done + 1, "the workers go on")

    path.write_text("import no_such_module\n")
    session.says("handlers.py, line 1: ModuleNotFoundError: No module named 'no_such_module'")

    path.write_text(HANDLERS.replace("return word", "return 'mended'"))
    session.until(lambda: '"mended"' in results(folder, "hello"), "the mended handlers are used")
    assert [fact for fact in facts(folder) if isinstance(fact, Failed)] == [], "no edit failed an attempt"


def test_handlers_that_are_broken_from_the_start_are_told_and_taken_when_mended(folder: Path, start: Start) -> None:
    path = folder / "handlers.py"
    (folder / "tasks.yaml").write_text(
        manifests(("hello", "fixedRate: 200ms", "tick"), ("other", "fixedRate: 1h", "gone"))
    )
    path.write_text("1 / 0\n")
    session = start(folder)
    session.says("handlers.py, line 1: ZeroDivisionError: division by zero")
    path.write_text("")
    session.says("handlers.py: no function has @task(...), so there is no handler")
    path.write_text(HANDLERS)
    session.until(lambda: results(folder, "hello"), "the mended handlers are used")
    session.says("other: no worker has registered the handler 'gone'; there are endless, gated, tick")


def test_without_a_terminal_it_is_said_when_a_worker_leaves(folder: Path, start: Start) -> None:
    (folder / "tasks.yaml").write_text(manifests(("hello", "fixedRate: 200ms", "tick"), replicas=2))
    (folder / "handlers.py").write_text(HANDLERS)
    session = start(folder)
    session.until(lambda: succeeded(folder, "hello") > 0, "runs succeed")
    (folder / "tasks.yaml").write_text(manifests(("hello", "fixedRate: 200ms", "tick"), replicas=1))
    session.says("worker local-1 has left")
