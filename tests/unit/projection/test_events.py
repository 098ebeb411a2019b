"""What Events tell of tasks that are stalled, and of instants that made no run."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes.aio.client import ApiClient
from tests.unit.kinds.test_statuses import a_view

from tickwheel_operator.clock import SystemClock
from tickwheel_operator.kinds.scheduledtask import SCHEDULED_TASK
from tickwheel_operator.kinds.seen import Seen
from tickwheel_operator.kinds.stored import NOTHING, Stored
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.ledger.facts import SkipReason
from tickwheel_operator.projection.events import EventConfig, EventRecorder
from tickwheel_operator.projection.skips import EXPLANATIONS

LAST_MS = 1_767_225_600_000


class Told:
    """An event recorder whose Events are read before they are sent."""

    def __init__(self, client: ApiClient) -> None:
        self.recorder = EventRecorder(KubeClient(client), SystemClock(), instance="r")

    def show(self, *skips: tuple[str, int, int], before: Any = NOTHING) -> None:
        self.recorder.task_shown(a_view(skips=skips), before)

    @property
    def events(self) -> dict[str, tuple[str, int]]:
        """Type and count by the reason in the note."""
        told = self.recorder._series.values()
        assert all(event.reason == "InstantsSkipped" for event in told)
        return {event.note.partition(":")[0]: (event.kind, event.count) for event in told}

    def stall(self, reason: str, message: str, generation: int, before: Stored) -> Stored:
        """A status is written; what is stored then."""
        status = {
            "observedGeneration": generation,
            "conditions": [
                {"type": "Stalled", "status": "True" if reason else "False", "reason": reason, "message": message}
            ],
        }
        task = Seen(kind="ScheduledTask", uid="u", namespace="ns", name="t", generation=generation)
        self.recorder.conditions_written(task, status, before)
        return before.merged(SCHEDULED_TASK.sections, status)

    @property
    def stalls(self) -> dict[str, tuple[str, int]]:
        """The newest note and the count, by reason."""
        return {event.reason: (event.note, event.count) for event in self.recorder._series.values()}

    def note(self) -> str:
        [event] = self.recorder._series.values()
        return event.note


@pytest.fixture
async def told() -> Any:
    async with ApiClient() as client:
        yield Told(client)


async def test_each_reason_is_an_event_of_its_own_that_counts_on(told: Told) -> None:
    told.show(("Coalesced", 4, LAST_MS), ("Misfired", 2, LAST_MS))
    assert told.events == {"Coalesced": ("Normal", 4), "Misfired": ("Warning", 2)}
    told.show(("Coalesced", 4, LAST_MS), ("Misfired", 5, LAST_MS))
    told.show(("Coalesced", 4, LAST_MS), ("Misfired", 5, LAST_MS))
    assert told.events == {"Coalesced": ("Normal", 4), "Misfired": ("Warning", 5)}


async def test_it_says_how_many_until_when_why_and_what_changes_it(told: Told) -> None:
    told.show(("QueueFull", 12, LAST_MS))
    note = told.note()
    assert "12 instants" in note and "2026-01-01T00:00:00Z" in note
    assert "spec.concurrency.queueLimit" in note


async def test_a_new_leader_tells_what_people_do_not_know_yet_and_nothing_twice(told: Told) -> None:
    shown = SCHEDULED_TASK.stored({"skips": [{"reason": "Misfired", "count": 7, "lastTime": "x"}]})
    told.show(("Misfired", 7, LAST_MS), before=shown)
    assert told.events == {}
    told.recorder._shown.clear()
    told.show(("Misfired", 9, LAST_MS), before=shown)
    assert told.events == {"Misfired": ("Warning", 2)}


async def test_whatever_else_stalls_a_task_is_told_and_the_same_is_told_once(told: Told) -> None:
    stored = told.stall("InvalidSpec", "spec.trigger.cron: '61'", 1, NOTHING)
    stored = told.stall("InvalidSpec", "spec.trigger.cron: '61'", 1, stored)
    assert told.stalls == {"InvalidSpec": ("spec.trigger.cron: '61'", 1)}
    stored = told.stall("InvalidSpec", "spec.trigger.timeZone: 'Marz'", 2, stored)
    assert told.stalls == {"InvalidSpec": ("spec.trigger.timeZone: 'Marz'", 2)}, "an edit did not mend it"
    stored = told.stall("PoolNotFound", "spec.pool", 3, stored)
    stored = told.stall("CalendarNotFound", "spec.calendars", 3, stored)
    assert told.stalls.keys() == {"InvalidSpec", "PoolNotFound", "CalendarNotFound"}
    stored = told.stall("", "", 4, stored)
    told.stall("", "", 5, stored)
    assert told.stalls["Armed"] == ("what stalled the task is mended", 1)


def test_every_reason_of_the_engine_has_its_words() -> None:
    reasons = {"".join(part.title() for part in reason.name.split("_")) for reason in SkipReason}
    assert set(EXPLANATIONS) == reasons
    for explanation in EXPLANATIONS.values():
        assert "spec." in explanation.why + explanation.mend


async def test_a_storm_in_one_namespace_forgets_and_delays_no_event_of_another() -> None:
    async with ApiClient() as client:
        recorder = EventRecorder(KubeClient(client), SystemClock(), instance="r", config=EventConfig(most_series=10))
        recorder.pool_scaled("quiet", "quiet", "pool", 1, 2, "more work")
        for number in range(50):
            recorder.pool_scaled(f"uid-{number}", "storm", f"pool-{number}", 1, 2, "more work")
        recorder.pool_scaled("quiet-2", "quiet", "pool-2", 1, 2, "more work")
        kept = [series.namespace for series in recorder._series.values()]
        assert (kept.count("quiet"), kept.count("storm")) == (2, 8)
        turns = [recorder._queue._waiting.take() for _ in range(4)]
        assert sum("quiet" in turn[0] for turn in turns if turn is not None) == 2
