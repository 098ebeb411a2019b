"""Terms of a leader whose engine fails at one task: the process lives, and all other tasks go on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.unit.kinds.builders import a_pool, a_task

from tickwheel_operator.clock import SystemClock
from tickwheel_operator.controllers.catalog import Catalog
from tickwheel_operator.engine.dispatch.leasing import Leasing
from tickwheel_operator.engine.dispatch.waiting import Waiting
from tickwheel_operator.engine.messages import CommandRefused, Pull, Pulled, WorkerKey, WorkerSeen
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.sources import ByClock
from tickwheel_operator.engine.triggers import FixedRateTrigger
from tickwheel_operator.gateway.backend import NotLeader
from tickwheel_operator.kinds import AWAITED
from tickwheel_operator.kinds.scheduledtask import SCHEDULED_TASK
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.protocol import Segment, SegmentKind, StoreRefused
from tickwheel_operator.ledger.sqlite import SqliteSegmentStore
from tickwheel_operator.objectfaults import ObjectFaults
from tickwheel_operator.reasons import INTERNAL_ERROR
from tickwheel_operator.runtime.backend import HostBackend
from tickwheel_operator.runtime.leadership import Failure, Leadership, LeadershipConfig
from tickwheel_operator.runtime.partition import PartitionHost

GOOD, BAD = "u-good", "u-bad"


class _Term:
    epoch_floor = 0

    def is_fresh(self) -> bool:
        return True

    async def lost(self) -> str:
        await asyncio.Event().wait()
        return ""

    async def release(self) -> None:
        pass


class _Election:
    async def acquire(self) -> _Term:
        await asyncio.sleep(0)
        return _Term()


class Replica:
    """A leader's process without the cluster: the catalog, the terms, the gateway's way in."""

    def __init__(self, folder: Path) -> None:
        self.clock = SystemClock()
        self.faults = ObjectFaults()
        self.catalog = Catalog(self.faults)
        for kind in AWAITED:
            self.catalog.mark_synced(kind)
        self.store = SqliteSegmentStore(folder / "ledger.sqlite")
        self.failures: list[Failure] = []
        self.leadership = Leadership(
            _Election(), self._ledger, self.catalog, self.clock, LeadershipConfig(retry_ms=20),
            missing=self._missing, on_lead=self._lead, on_end=self.catalog.detach, on_failure=self._failed,
        )  # fmt: skip
        self.backend = HostBackend(
            lambda: self.leadership.host, lambda: ("", 0), lambda: "here", self.clock, self.faults
        )
        self._requests = itertools.count()

    def _ledger(self) -> Ledger:
        return Ledger(self.store, partition=0, leader="a", clock=self.clock, nonces=lambda: secrets.token_hex(8))

    async def _missing(self, uids: Collection[str]) -> Collection[str]:
        return set(uids) - self.catalog.objects.uids(SCHEDULED_TASK)

    def _lead(self, host: PartitionHost) -> None:
        self.catalog.attach(host.post_all)

    def _failed(self, failure: Failure) -> None:
        self.failures.append(failure)
        for uid in failure.uids:
            self.catalog.isolate(uid, failure.error)
        if not failure.uids:
            self.backend.isolate(failure.command, failure.error)

    def task(self, uid: str, generation: int = 1, **compiled: Any) -> None:
        trigger = FixedRateTrigger(50, self.clock.now_ms())
        self.catalog.seen(a_task(uid, generation=generation, compiled={"source": ByClock(trigger), **compiled}))

    @property
    def state(self) -> State | None:
        host = self.leadership.host
        return host.engine.state if host is not None else None

    def fired(self, uid: str) -> int:
        """Runs of the task that the leading engine knows."""
        task = self.state.by_uid.get(uid) if self.state is not None else None
        return 0 if task is None else len(task.runs) + task.cancelled + task.succeeded + task.failed

    async def pull(self, worker: str, instance: str = "i") -> object:
        key = WorkerKey("ns", "p", worker)
        seen = WorkerSeen(key=key, instance=instance, handlers=("h",), slots=5)
        return await self.backend.call(Pull(request=next(self._requests), worker=seen, free=5, until_ms=0))


@asynccontextmanager
async def leading(folder: Path) -> AsyncIterator[Replica]:
    replica = Replica(folder)
    replica.catalog.seen(a_pool("p"))
    running = asyncio.create_task(replica.leadership.run())
    try:
        yield replica
        assert not running.done(), "the process would have ended"
    finally:
        replica.leadership.stop()
        await asyncio.wait({running}, timeout=30)
        await replica.store.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def break_for_bad(monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> list[bool]:
    """The method raises while it is about the task. Returns a list that mends it when it is emptied."""
    whole, broken = getattr(owner, method), [True]

    def raises(self: Any, about: Any, *arguments: Any) -> Any:
        if broken and about.run.task.uid == BAD:
            raise RuntimeError("a fault of the engine's own")
        return whole(self, about, *arguments)

    monkeypatch.setattr(owner, method, raises)
    return broken


async def test_a_task_that_the_engine_fails_at_is_stalled_and_all_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_for_bad(monkeypatch, Waiting, "ready")
    async with leading(tmp_path) as replica:
        replica.task(GOOD)
        replica.task(BAD)
        await until(lambda: replica.failures and replica.state is not None)
        before = replica.fired(GOOD)
        await until(lambda: replica.fired(GOOD) > before + 3)

        assert len(replica.failures) == 1
        entry = replica.catalog.task(BAD)
        assert entry is not None and entry.fault is not None
        assert entry.fault.reason == INTERNAL_ERROR
        assert "RuntimeError('a fault of the engine's own')" in entry.fault.message.replace('"', "'")
        assert replica.faults.counts == {("engine", "ScheduledTask"): 1}


async def test_open_runs_of_a_task_that_the_engine_fails_at_again_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = break_for_bad(monkeypatch, Leasing, "_lease_end")
    broken.clear()
    async with leading(tmp_path) as replica:
        replica.task(GOOD)
        replica.task(BAD)
        await until(lambda: replica.fired(BAD))
        await until(lambda: replica.state is not None and replica.state.by_uid[BAD].runs)
        await replica.pull("w")
        await until(lambda: replica.state is not None and replica.state.attempts)
        broken.append(True)  # each takeover, each renewal of the attempt

        while not replica.failures:
            with contextlib.suppress(NotLeader):
                await replica.pull("w")
            await asyncio.sleep(0.01)
        await until(lambda: len(replica.failures) >= 2 and replica.state is not None)
        before = replica.fired(GOOD)
        await until(lambda: replica.fired(GOOD) > before + 3)
        assert len(replica.failures) == 2
        assert replica.state is not None and not replica.state.by_uid[BAD].runs
        assert replica.state.by_uid[BAD].cancelled


async def test_an_edit_of_the_object_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = break_for_bad(monkeypatch, Waiting, "ready")
    async with leading(tmp_path) as replica:
        replica.task(BAD)
        await until(lambda: replica.failures and replica.state is not None)
        fired = replica.fired(BAD)
        broken.clear()
        await asyncio.sleep(0.2)
        assert replica.fired(BAD) == fired
        replica.task(BAD, generation=2)
        await until(lambda: replica.fired(BAD) > fired)
        entry = replica.catalog.task(BAD)
        assert entry is not None and entry.fault is None


async def test_a_deleted_task_that_the_engine_cannot_end_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with leading(tmp_path) as replica:
        replica.task(GOOD)
        replica.task(BAD)
        await until(lambda: replica.fired(BAD))

        def raises(self: Any, run: Any, *_: Any) -> None:
            raise RuntimeError(run.number)

        monkeypatch.setattr(Leasing, "end_now", raises)
        replica.catalog.gone(SCHEDULED_TASK, BAD)
        await until(lambda: replica.failures and replica.state is not None)
        before = replica.fired(GOOD)
        await until(lambda: replica.fired(GOOD) > before + 3)
        assert [failure.uids for failure in replica.failures] == [(BAD,)]


async def test_a_worker_whose_message_the_engine_fails_at_is_refused_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Leasing.pull

    def pull(self: Leasing, command: Pull, effects: list[Any]) -> None:
        if command.worker.key.name == "bad":
            raise RuntimeError("a fault of the engine's own")
        whole(self, command, effects)

    monkeypatch.setattr(Leasing, "pull", pull)
    async with leading(tmp_path) as replica:
        await until(lambda: replica.state is not None)
        with pytest.raises(NotLeader):
            await replica.pull("bad")
        await until(lambda: replica.failures and replica.state is not None)
        assert isinstance(await replica.pull("bad"), CommandRefused)
        assert isinstance(await replica.pull("good"), Pulled)
        assert replica.faults.counts == {("engine", "Worker"): 1}


async def test_terms_that_end_for_no_known_reason_begin_ever_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*_: Any) -> None:
        raise RuntimeError("a fault of the engine's own")

    monkeypatch.setattr(Leasing, "take_over", raises)
    async with leading(tmp_path) as replica:
        began = asyncio.get_running_loop().time()
        await until(lambda: len(replica.failures) == 4)
        assert asyncio.get_running_loop().time() - began >= 0.02 + 0.04 + 0.08


async def test_terms_whose_facts_the_store_refuses_begin_ever_later_and_go_on_when_it_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each begins with an Epoch, which the store takes and keeps for days."""
    began: list[float] = []
    refusing = True
    async with leading(tmp_path) as replica:
        whole = replica.store.create

        async def create(segment: Segment) -> None:
            if segment.kind is SegmentKind.EPOCH:
                began.append(asyncio.get_running_loop().time())
            elif refusing:
                raise StoreRefused("create tickwheel-p0: the API server answers 422 Invalid; apply the CRDs")
            await whole(segment)

        monkeypatch.setattr(replica.store, "create", create)
        replica.task(GOOD)
        await until(lambda: len(began) >= 5)
        pauses = [after - before for before, after in pairwise(began[:5])]
        for pause, least in zip(pauses[1:], (0.02, 0.04, 0.08), strict=True):
            assert pause >= least
        assert "the ledger was refused, the next term begins in" in caplog.text and "apply the CRDs" in caplog.text
        refusing = False
        await until(lambda: replica.fired(GOOD))
