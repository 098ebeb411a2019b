"""The picture: it fits the terminal, and says what there is to say."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tickwheel_operator.dev.table import Headline, Picture
from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.read.views import HandlerState, PoolView, RunView, TaskView, Views
from tickwheel_operator.engine.sources import ByClock, ByHand, Completion, FixedDelay
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.engine.triggers import CronTrigger, DailyIntervalTrigger, FilteredTrigger, FixedRateTrigger
from tickwheel_operator.engine.triggers.filters import Filter

HEADLINE = Headline(workers=2, seconds=61, url="http://127.0.0.1:12345")


def spec(name: str, **more: object) -> TaskSpec:
    """`trigger` is short for a `source` by the clock."""
    trigger = more.pop("trigger", FixedRateTrigger(2_000, 0))
    values = {
        "uid": f"uid-{name}", "namespace": "default", "name": name, "generation": 1, "created_ms": 0,
        "source": ByHand() if trigger is None else ByClock(trigger), "pool": "p", "handler": "h", **more,
    }  # fmt: skip
    return TaskSpec(**values)  # type: ignore[arg-type]


def view(name: str, runs: list[RunView], **more: object) -> TaskView:
    values = {
        "uid": f"uid-{name}", "namespace": "default", "name": name, "generation": 1, "armed": True, "next_ms": None,
        "last_ms": 0, "active": 0, "succeeded": 7, "failed": 1, "cancelled": 0, "skipped": 0,
        "handler": HandlerState(1, 1), "runs": runs, **more,
    }  # fmt: skip
    return TaskView(**values)  # type: ignore[arg-type]


def run(state: RunState, **more: object) -> RunView:
    values = {
        "name": "r", "run_id": "r", "requested": False, "state": state, "scheduled_ms": 1_000, "created_ms": 1_012,
        "started_ms": 1_013, "ended_ms": 2_000, "attempts": 2, "worker": "quickstart-0", **more,
    }  # fmt: skip
    return RunView(**values)  # type: ignore[arg-type]


def drawn(picture: Picture, specs: list[TaskSpec], width: int, height: int, messages: list[str]) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(picture.draw(console, {one.uid: one for one in specs}, HEADLINE, messages, []))
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize(("width", "height"), [(60, 12), (80, 24), (110, 24), (140, 40), (250, 60)])
def test_the_picture_is_never_wider_or_higher_than_the_terminal(width: int, height: int) -> None:
    picture = Picture()
    specs = [
        spec(f"a-task-with-quite-a-long-name-{n}", trigger=CronTrigger("*/5 * * * * *", "Europe/Berlin"))
        for n in range(99)
    ]
    picture.show(Views([view(one.name, [run(RunState.SUCCEEDED)]) for one in specs], []))
    lines = drawn(picture, specs, width, height, ["a fault with many words " * 20, "another"])
    assert len(lines) < height
    assert all(len(line) <= width for line in lines)
    assert any("more tasks" in line for line in lines)
    figures = lines[3].split()[-4:]
    assert figures == ["2", "7", "1", "0"], "tries, succeeded, failed and active are whole at any width"


def test_a_wide_terminal_gets_words_and_a_narrow_one_signs() -> None:
    picture = Picture()
    picture.show(Views([view("job", [run(RunState.FAILED)])], []))
    wide, narrow = (drawn(picture, [spec("job")], width, 24, []) for width in (140, 80))
    assert " ".join(wide[2].split()) == "TASK TRIGGER NEXT LAST RUN LATE WHERE TRIES OK FAILED ACTIVE"
    assert "every 2s" in wide[3]
    assert "Failed " in wide[3]
    assert "12ms" in wide[3]
    assert "✗ " in narrow[3]


def test_every_kind_of_trigger_has_a_line() -> None:
    windowed = FilteredTrigger(FixedRateTrigger(2_000, 0), Filter(not_before_ms=1))
    specs = [
        spec("windowed", trigger=windowed),
        spec("daily", trigger=DailyIntervalTrigger(900_000, 28_800_000, 64_800_000, 31, "UTC")),
        spec("delayed", source=FixedDelay(30_000)),
        spec("follower", source=Completion("job")),
        spec("none", trigger=None),
    ]
    lines = drawn(Picture(), specs, 250, 24, [])
    for words in ("every 2s ", "every 15m from 08:00", "30s after the end", "after a run of job", "by hand"):
        assert any(words in line for line in lines), words


def test_a_run_that_goes_on_for_long_shows_how_far_it_is() -> None:
    picture = Picture()
    going = run(RunState.RUNNING, ended_ms=0, fraction=0.45)
    picture.show(Views([view("job", [going, run(RunState.SUCCEEDED)])], []))
    assert "Running 45%" in drawn(picture, [spec("job")], 140, 24, [])[3]


def test_what_was_cancelled_or_skipped_is_told_live_in_lines_and_at_the_end_and_why() -> None:
    picture = Picture()
    skips = (("Overlap", 12, 5_000), ("Deadline", 1, 6_000))
    picture.show(Views([view("job", [], cancelled=2, skipped=13, skips=skips), view("fine", [])], []))
    specs = [spec("job"), spec("fine")]
    live = drawn(picture, specs, 80, 24, [])
    assert live[-1] == "job: 2 cancelled, 13 skipped (12 Overlap, 1 Deadline)"
    assert not any(line.startswith("fine: ") for line in live)
    by_uid = {one.uid: one for one in specs}
    fine, job = picture.lines(by_uid)
    assert "1 failed, 2 cancelled, 13 skipped (12 Overlap, 1 Deadline), 0 active" in job
    assert "1 failed, 0 active" in fine
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as capture:
        console.print(picture.summary(by_uid, 60))
    headings, *rows = [" ".join(line.split()) for line in capture.get().splitlines()[1:]]
    assert headings == "TASK SUCCEEDED FAILED CANCELLED SKIPPED ACTIVE"
    assert rows == ["fine 7 1 0 0 0", "job 7 1 2 13 (12 Overlap, 1 Deadline) 0"]


def test_the_reasons_of_skips_take_only_the_room_that_tasks_and_faults_leave() -> None:
    picture = Picture()
    some = [spec(f"job-{number}") for number in range(5)]
    picture.show(Views([view(one.name, [], skipped=1, skips=(("Overlap", 1, 5_000),)) for one in some], []))
    lines = drawn(picture, some, 80, 12, ["a fault"])
    assert len(lines) < 12
    assert [line.split()[0] for line in lines[3:8]] == [one.name for one in some]
    assert lines[8:] == ["a fault", "job-0: 1 skipped (Overlap)", "job-1: 1 skipped (Overlap)"]


def test_a_task_whose_handler_nobody_has_is_named_with_those_that_there_are() -> None:
    picture = Picture()
    picture.pools = [PoolView("default", "p", 1, 0, 4, 0, 0, 0.0, 0.0, ["a", "b"])]
    assert picture.unregistered([spec("job"), spec("fine", handler="a"), spec("elsewhere", pool="q")]) == [
        "job: no worker has registered the handler 'h'; there are a, b"
    ]
