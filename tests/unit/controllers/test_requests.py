"""TaskRuns are submitted until they are answered, by each leader."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable

import pytest
from tests.unit.kinds.builders import a_run

from tickwheel_operator.controllers import requests as module
from tickwheel_operator.controllers.requests import Requests
from tickwheel_operator.engine.messages import (
    CancelRun,
    CommandRefused,
    Effect,
    RefusalReason,
    RunState,
    Submit,
    Submitted,
    SubmittedRun,
)
from tickwheel_operator.kinds.objects import Objects


class Engine:
    """Answers as an engine with one task does."""

    def __init__(self) -> None:
        self.commands: list[Submit | CancelRun] = []
        self.has_task = True
        self.broken = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.state = RunState.PENDING

    async def call(self, command: Submit | CancelRun) -> Effect:
        self.commands.append(command)
        await self.answers.wait()
        if self.broken:
            raise RuntimeError("the term ended")
        if not self.has_task:
            return CommandRefused(request=command.request, reason=RefusalReason.NO_SUCH_TASK, detail="no task ns/t")
        if isinstance(command, CancelRun):
            self.state = RunState.CANCELLED
            run_id = command.run_id
        else:
            run_id = f"id-of-{command.runs[0].key}"
        return Submitted(request=command.request, runs=[SubmittedRun(run_id=run_id, created=True, state=self.state)])


@pytest.fixture
async def requests(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Requests]:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    requests = Requests(lambda: 42, Objects(), retry_s=0.01)
    running = asyncio.create_task(requests.run())
    yield requests
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.005)


def lead(requests: Requests, engine: Engine) -> None:
    numbers = itertools.count()
    requests.lead(engine.call, lambda: next(numbers))


async def test_a_request_is_submitted_once_and_its_run_is_known(requests: Requests) -> None:
    engine = Engine()
    lead(requests, engine)
    requests.run_seen(a_run())
    await until(lambda: list(requests.of_run("id-of-taskrun/r-1")) == ["r-1"])
    requests.run_seen(a_run(run_id="id-of-taskrun/r-1"))
    await asyncio.sleep(0.05)
    assert len(engine.commands) == 1
    submit = engine.commands[0]
    assert isinstance(submit, Submit)
    assert (submit.runs[0].object_name, submit.runs[0].scheduled_ms) == ("run-r-1", 42)


async def test_an_answer_that_was_lost_is_asked_for_again(requests: Requests) -> None:
    engine = Engine()
    engine.broken = True
    lead(requests, engine)
    requests.run_seen(a_run())
    await until(lambda: len(engine.commands) >= 2)
    engine.broken = False
    await until(lambda: requests.of_run("id-of-taskrun/r-1"))


async def test_every_new_leader_submits_what_has_no_final_state(requests: Requests) -> None:
    requests.run_seen(a_run("open", run_id="id-of-taskrun/open"))
    requests.run_seen(a_run("over", final=True))
    first, second = Engine(), Engine()
    lead(requests, first)
    await until(lambda: first.commands)
    requests.follow()
    lead(requests, second)
    await until(lambda: second.commands)
    await asyncio.sleep(0.02)
    for engine in (first, second):
        assert [c.runs[0].object_name for c in engine.commands if isinstance(c, Submit)] == ["run-open"]


async def test_nothing_is_submitted_by_a_follower(requests: Requests) -> None:
    engine = Engine()
    lead(requests, engine)
    requests.follow()
    requests.run_seen(a_run())
    await asyncio.sleep(0.05)
    assert engine.commands == []


async def test_a_refusal_is_shown_when_it_lasts_and_ends_when_the_task_comes(requests: Requests) -> None:
    engine = Engine()
    engine.has_task = False
    lead(requests, engine)
    requests.run_seen(a_run())
    entry = requests.entry("r-1")
    assert entry is not None
    await until(lambda: entry.fault is not None and entry.fault.reason == "NoSuchTask")
    assert len(engine.commands) >= 2, "not at once: its task may be a moment behind"
    engine.has_task = True
    requests.task_changed("ns", "t")
    await until(lambda: entry.state is RunState.PENDING)
    assert entry.fault is None


async def test_a_cancel_cancels_the_run_once(requests: Requests) -> None:
    engine = Engine()
    lead(requests, engine)
    requests.run_seen(a_run())
    await until(lambda: engine.commands)
    requests.run_seen(a_run(cancel=True))
    await until(lambda: len(engine.commands) == 2)
    requests.run_seen(a_run(cancel=True))
    await asyncio.sleep(0.02)
    assert len(engine.commands) == 2
    cancel = engine.commands[1]
    assert isinstance(cancel, CancelRun)
    assert cancel.run_id == "id-of-taskrun/r-1"


async def test_a_deleted_request_leaves_nothing_behind(requests: Requests) -> None:
    engine = Engine()
    engine.has_task = False
    lead(requests, engine)
    requests.run_seen(a_run())
    await until(lambda: engine.commands)
    requests.run_gone("r-1")
    assert not requests.entries()
    assert not requests.of_run("id-of-taskrun/r-1")


def cancelled(engine: Engine) -> list[str]:
    return [command.run_id for command in engine.commands if isinstance(command, CancelRun)]


async def test_who_deletes_the_object_of_an_open_run_cancels_the_run(requests: Requests) -> None:
    engine = Engine()
    lead(requests, engine)
    requests.run_seen(a_run())
    await until(lambda: requests.of_run("id-of-taskrun/r-1"))
    requests.run_gone("r-1")
    await until(lambda: cancelled(engine) == ["id-of-taskrun/r-1"])
    await asyncio.sleep(0.02)
    assert len(engine.commands) == 2
    assert engine.commands[1].message == "TaskRun run-r-1, which asked for it, was deleted"  # type: ignore[union-attr]


async def test_a_run_that_another_object_asked_for_too_goes_on(requests: Requests) -> None:
    engine = Engine()
    lead(requests, engine)
    for uid in ("r-1", "r-2"):
        requests.run_seen(a_run(uid, key="shared"))
    await until(lambda: len(list(requests.of_run("id-of-shared"))) == 2)
    requests.run_gone("r-1")
    await asyncio.sleep(0.02)
    assert not cancelled(engine)
    requests.run_gone("r-2")
    await until(lambda: cancelled(engine) == ["id-of-shared"])


async def test_deleting_what_has_ended_or_was_never_asked_for_cancels_nothing(requests: Requests) -> None:
    engine = Engine()
    lead(requests, engine)
    requests.run_seen(a_run("ended", final=True, run_id="id"))
    engine.has_task = False
    requests.run_seen(a_run("refused"))
    await until(lambda: engine.commands)
    engine.commands.clear()
    engine.has_task = True
    for uid in ("ended", "refused"):
        requests.run_gone(uid)
    await asyncio.sleep(0.1)
    assert not engine.commands


async def test_a_request_that_is_deleted_while_its_answer_is_on_the_way_is_cancelled(requests: Requests) -> None:
    engine = Engine()
    engine.answers.clear()
    lead(requests, engine)
    requests.run_seen(a_run())
    await until(lambda: engine.commands)
    requests.run_gone("r-1")
    engine.answers.set()
    await until(lambda: cancelled(engine) == ["id-of-taskrun/r-1"])
    assert not requests.of_run("id-of-taskrun/r-1")


async def test_a_cancel_that_got_no_answer_is_asked_for_again(requests: Requests) -> None:
    engine = Engine()
    lead(requests, engine)
    requests.run_seen(a_run())
    await until(lambda: requests.of_run("id-of-taskrun/r-1"))
    engine.broken = True
    requests.run_gone("r-1")
    await until(lambda: len(cancelled(engine)) >= 2)
    engine.broken = False
    await until(lambda: engine.state is RunState.CANCELLED)


async def test_a_new_leader_cancels_what_was_deleted_when_nobody_led(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    for uid in ("r-1", "r-2", "r-3"):
        requests.run_seen(a_run(uid, run_id=f"id-of-taskrun/{uid}"))
    requests.run_gone("r-1")
    engine = Engine()
    lead(requests, engine)
    await until(lambda: cancelled(engine) == ["id-of-taskrun/r-1"])

    requests.follow()
    requests.run_gone("r-2")
    engine = Engine()
    lead(requests, engine)
    await until(lambda: cancelled(engine) == ["id-of-taskrun/r-2"])
    await asyncio.sleep(0.02)
    assert cancelled(engine) == ["id-of-taskrun/r-2"], "the other one was cancelled before"

    requests.follow()
    requests.run_gone("r-3")
    monkeypatch.setattr(module, "_DELETIONS_S", 0.0)
    engine = Engine()
    await asyncio.sleep(0.01)
    lead(requests, engine)
    await asyncio.sleep(0.05)
    assert not cancelled(engine), "another leader has had the time to do it"
