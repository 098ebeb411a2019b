"""What is promised about failures, on a real API server with real processes that are really killed.

The full two minutes of the first test are `python -m tests.integration.soak`.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.integration.caller import Answer, Caller
from tests.integration.installation import (
    apply,
    create_namespace,
    custom_object,
    get,
    install_operator,
    may_submit,
    service_account,
)
from tests.integration.processes import PATIENT_LEASE, Crew, OperatorProcess
from tests.integration.soak.account import Book, executions_without_a_lease, order_faults, read_records
from tests.integration.soak.scenario import HANDLERS, Fault, Plan, all_segments, leader_of, run, until
from tests.integration.soak.tail import LedgerTail

from tickwheel_cluster import Access, ControlPlane

_SLEEP_S = 300
"""The zombie sleeps no longer than this."""


def test_every_instant_has_one_run_that_ends_though_leader_worker_and_api_server_are_killed(
    cluster: Access, tmp_path: Path
) -> None:
    if not isinstance(cluster, ControlPlane):
        pytest.skip("the API server of a given cluster is not ours to kill")
    plan = Plan(
        rate_tasks=20,
        cron_tasks=10,
        seconds=25,
        faults=(Fault(3, "leader"), Fault(10, "worker"), Fault(14, "api-server")),
        checkpoint_segments=40,
    )
    outcome = run(cluster, tmp_path, plan, name="failures")
    assert outcome.audit.faults == []
    assert len(outcome.book.epochs) >= 2, "no second leader: the kill showed nothing"
    assert outcome.book.failed_attempts["LOST"] >= 1, "no attempt was lost: the kill of the worker showed nothing"
    assert outcome.book.checkpoints >= 1, "no checkpoint: the takeovers replayed all facts"


@pytest.mark.parametrize("checkpoint_segments", [10_000, 20], ids=["takeover", "takeover-and-compaction"])
def test_a_leader_that_slept_past_its_lease_gets_no_effect_out(
    cluster: Access, tmp_path: Path, checkpoint_segments: int
) -> None:
    namespace = f"zombie-{checkpoint_segments}"
    system = f"{namespace}-system"
    install_operator(cluster, system)
    create_namespace(cluster, namespace)
    apply(cluster, *_objects(namespace))
    records = tmp_path / "records"
    records.mkdir()
    settings = {
        "TICKWHEEL_CHECKPOINT_SEGMENTS": str(checkpoint_segments),
        "TICKWHEEL_ATTEMPT_LEASE_MS": str(_SLEEP_S * 1000),
    }
    token = cluster.service_account_token(namespace, "worker", audience="tickwheel")
    raw, other = (Caller(token, namespace=namespace, pool="raw", name=n, handlers=("raw",)) for n in ("r-0", "r-1"))
    sdk = {"TICKWHEEL_TEST_RECORDS": str(records)}
    with (
        LedgerTail(cluster, system) as tail,
        Crew(cluster, tmp_path, system=system, namespace=namespace) as crew,
        ThreadPoolExecutor() as threads,
    ):
        # Given a leader with work in flight: an attempt that is held, and a pull that waits for the next instant.
        zombie = crew.operator("first", **settings)
        until("the first to lead", lambda: any(s.kind == "Epoch" for s in tail.segments()))
        rival = crew.operator("second", **settings, **PATIENT_LEASE)  # the zombie's Lease is as long as it says itself
        rival.wait_ready()
        crew.worker("w-0", pool="work", account="worker", handlers=HANDLERS, environment=sdk)
        held, waiting = _put_to_sleep_while_a_pull_waits(zombie, raw, threads)

        # When it sleeps, with more requests at its door, until another has led and worked for a while.
        knocking = {
            "report": threads.submit(raw.report, zombie.url, succeeded=[held], timeout_s=_SLEEP_S),
            "pull": threads.submit(other.pull, zombie.url, free=10, wait_ms=5_000, timeout_s=_SLEEP_S),
            "submission": threads.submit(raw.submit, zombie.url, namespace, "raw", key="once", timeout_s=_SLEEP_S),
        }
        until("the second to lead", lambda: tail.segments()[-1].epoch == 2)
        crew.worker("w-1", pool="work", account="worker", handlers=HANDLERS, environment=sdk)
        until("work to go on", lambda: _succeeded_in_epoch(tail, 2) >= 20)
        if checkpoint_segments < 1_000:
            until("the zombie's facts to be compacted away", lambda: _only_epochs_below(cluster, system, tail))
        assert not any(answer.done() for answer in (waiting, *knocking.values()))
        zombie.resume()

        # Then nothing of what it decided gets out, neither what waited nor what comes.
        assert waiting.result().tokens == []
        assert knocking["pull"].result().tokens == []
        assert knocking["report"].result().status in (0, 421, 503)
        assert knocking["submission"].result().status in (0, 421, 503)
        began = time.monotonic()
        while time.monotonic() - began < 3:
            assert other.pull(zombie.url, free=10).tokens == []
            time.sleep(0.05)
        until("the zombie to know", lambda: "the term ended" in zombie.log.read_text())
        until("the zombie to follow", lambda: _leader_url(raw.topology(zombie.url)) == rival.url)
        segments = tail.segments()
        assert order_faults(segments) == []
        assert [epoch for epoch, _, _ in Book(segments).epochs] == [1, 2]

        # And the rival, who knows the attempt from the ledger, takes the report that the zombie could not.
        taken = raw.report(rival.url, succeeded=[held], epoch=2)
        assert (taken.status, taken.body.get("fenced", [])) == (200, [])
        late = raw.pull(rival.url, free=100, received=held, epoch=2, wait_ms=5_000)
        assert late.tokens

        # And the zombie can lead again, as anybody.
        assert rival.terminate() == 0
        until("the first to lead again", lambda: tail.segments()[-1].epoch == 3)
        assert leader_of(crew, tail) == (3, zombie)
        until("work to go on", lambda: _succeeded_in_epoch(tail, 3) >= 20)
        done = read_records(records)  # first: the work goes on, and what was done had its lease before
        book = Book(all_segments(cluster, tail, system))
        assert executions_without_a_lease(book, done) == set()
        for task in book.tasks.values():
            assert set(task.runs.values()) <= {1}, f"{task.name}: an instant has more than one run"
            assert _gaps(task.runs) == [], f"{task.name}: instants were lost"


def _objects(namespace: str) -> list[dict[str, Any]]:
    """Five tasks for the SDK's workers, and one whose work only the raw caller takes."""

    def task(name: str, pool: str, handler: str) -> dict[str, Any]:
        spec = {
            "trigger": {"fixedRate": "1s"}, "pool": pool, "handler": handler,
            "misfire": {"policy": "FireAll"}, "retry": {"limit": 20},
        }  # fmt: skip
        return custom_object("ScheduledTask", namespace, name, spec)

    return [
        service_account(namespace, "worker"),
        *may_submit(namespace, "worker"),
        custom_object("WorkerPool", namespace, "work", {"slots": 16}),
        # Its worker is this test, which does not speak while it waits for others.
        custom_object("WorkerPool", namespace, "raw", {"slots": 16, "silence": f"{_SLEEP_S}s"}),
        *(task(f"tick-{number}", "work", "quick") for number in range(5)),
        task("raw", "raw", "raw"),
    ]  # fmt: skip


def _put_to_sleep_while_a_pull_waits(
    zombie: OperatorProcess, raw: Caller, threads: ThreadPoolExecutor
) -> tuple[int, Future[Answer]]:
    """A token that `raw` holds, and its pull that the sleeping leader has read and not answered."""
    received = 0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        pull = threads.submit(raw.pull, zombie.url, free=10, received=received, wait_ms=30_000, timeout_s=_SLEEP_S)
        time.sleep(0.3)
        if received and not pull.done():
            zombie.pause()
            time.sleep(0.2)
            if not pull.done():
                return received, pull
            zombie.resume()
        received = max((received, *pull.result().tokens))
    raise AssertionError("no pull was caught waiting")


def _succeeded_in_epoch(tail: LedgerTail, epoch: int) -> int:
    segments = tail.segments()
    before = Book(s for s in segments if s.epoch < epoch)
    after = Book(segments)
    return _succeeded(after) - _succeeded(before)


def _succeeded(book: Book) -> int:
    return sum(run.state == "succeeded" for run in book.runs.values())


def _only_epochs_below(cluster: Access, system: str, tail: LedgerTail) -> bool:
    """Whether of all that the first leader wrote only its Epoch segment is left."""
    last = max(segment.sequence for segment in tail.segments() if segment.epoch == 1)
    left = [item["spec"] for item in get(cluster, "LedgerSegment", system)["items"]]
    return all(spec["kind"] == "Epoch" for spec in left if spec["sequence"] <= last)


def _leader_url(answer: Answer) -> str:
    return next((replica["url"] for replica in answer.body.get("replicas", ())), "")


def _gaps(instants: dict[int, int]) -> list[tuple[int, int]]:
    return [(a, b) for a, b in pairwise(sorted(instants)) if b - a != 1_000]
