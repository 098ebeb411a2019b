"""The metrics that are declared are those that are served, with the figures of the engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from msgspec import structs
from prometheus_client import CollectorRegistry, generate_latest
from tests.unit.engine.driver import task_spec

from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.stats import Stats
from tickwheel_operator.ledger.facts import SkipReason
from tickwheel_operator.ledger.limits import LedgerStats
from tickwheel_operator.projection.metrics import METRICS, MetricsCollector, PoolFigures, Sources, TermFigures, main
from tickwheel_operator.projection.skips import EXPLANATIONS

SUCCEEDED = 'tickwheel_runs_total{namespace="shops",pool="pool",state="Succeeded"}'


def a_term(epoch: int = 3) -> TermFigures:
    stats = Stats()
    spec = task_spec(task_metrics=True)
    stats.known(spec, 1_500)
    stats.fired(7, [spec, spec])
    stats.ended(spec, RunState.SUCCEEDED, 2, 2_500)
    stats.skipped(SkipReason.CATCH_UP_LIMIT, 5)
    ledger = LedgerStats(retained_segments=4, retained_bytes=1_000, checkpoints=1)
    return TermFigures(
        stats=stats,
        ledger=ledger,
        epoch=epoch,
        runs_open=1,
        leases_open=1,
        lead_ms=14,
        pools=[
            PoolFigures("ns", "p", 9, 2, 8, 3, 4, 1, timed=1, clock_offset_us=-2_500_000, clock_error_us=400),
            PoolFigures("ns", "outside", 0, 1),
        ],
    )


def exposition(collector: MetricsCollector | None = None) -> str:
    """What Prometheus reads of a leader."""
    registry = CollectorRegistry()
    registry.register(collector or MetricsCollector(sources([a_term()])))
    return generate_latest(registry).decode()


def samples(collector: MetricsCollector) -> dict[str, float]:
    lines = exposition(collector).splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line and line[0] != "#"}


def sources(term: list[TermFigures | None]) -> Sources:
    health: Any = SimpleNamespace(synced=True, event_age_s=1.0, agreed_age_s=2.0)
    return Sources(
        term=lambda: term[0],
        objects=lambda: {("ScheduledTask", "Armed"): 7},
        health=lambda: health,
        writes=lambda: [{("ScheduledTask", "ok"): 3}, {("Event", "ok"): 1}],
        pending=lambda: 5,
    )


def test_the_figures_of_a_leader_are_served() -> None:
    collector = MetricsCollector(sources([a_term()]))
    collector.observe_append(0.004, 300, 10)
    found = samples(collector)
    assert found['tickwheel_schedule_lateness_seconds_bucket{le="0.005",namespace="shops",pool="pool"}'] == 0
    assert found['tickwheel_schedule_lateness_seconds_bucket{le="0.008",namespace="shops",pool="pool"}'] == 2
    assert found['tickwheel_schedule_lateness_seconds_sum{namespace="shops",pool="pool"}'] == 0.014
    assert found[SUCCEEDED] == 2
    assert found['tickwheel_last_success_timestamp_seconds{namespace="shops",pool="pool"}'] == 2.5
    assert found['tickwheel_task_runs_total{namespace="shops",state="Succeeded",task="hello"}'] == 2
    assert found['tickwheel_task_last_success_timestamp_seconds{namespace="shops",task="hello"}'] == 2.5
    assert found['tickwheel_task_lateness_seconds{namespace="shops",task="hello"}'] == 0.007
    assert found["tickwheel_lead_seconds"] == 0.014
    assert found['tickwheel_workers_timed{namespace="ns",pool="p"}'] == 1
    assert found['tickwheel_worker_clock_offset_seconds{namespace="ns",pool="p"}'] == -2.5
    assert found['tickwheel_worker_clock_error_seconds{namespace="ns",pool="p"}'] == 0.0004
    assert 'tickwheel_worker_clock_error_seconds{namespace="ns",pool="outside"}' not in found
    assert found['tickwheel_instants_skipped_total{reason="CatchUpLimit"}'] == 5
    assert found['tickwheel_backlog{namespace="ns",pool="p"}'] == 9
    assert found['tickwheel_pool_slots_used{namespace="ns",pool="p"}'] == 3
    assert found['tickwheel_pool_replicas_desired{namespace="ns",pool="p"}'] == 4
    assert found['tickwheel_pool_replicas_ready{namespace="ns",pool="p"}'] == 1
    assert 'tickwheel_pool_replicas_desired{namespace="ns",pool="outside"}' not in found
    assert found['tickwheel_ledger_append_seconds_bucket{le="0.005"}'] == 1
    assert found["tickwheel_ledger_appended_bytes_total"] == 300
    assert found["tickwheel_ledger_retained_bytes"] == 1_000
    assert found['tickwheel_leader{partition="0"}'] == 1
    assert found['tickwheel_projection_writes_total{kind="Event",outcome="ok"}'] == 1
    assert found['tickwheel_catalog_objects{kind="ScheduledTask",state="Armed"}'] == 7
    assert found["tickwheel_watch_age_seconds"] == 1


def test_every_reason_for_which_instants_are_skipped_shows_up() -> None:
    term = a_term()
    for reason in SkipReason:
        term.stats.skipped(reason, 1)
    found = samples(MetricsCollector(sources([term])))
    for name in EXPLANATIONS:
        assert found[f'tickwheel_instants_skipped_total{{reason="{name}"}}'] >= 1


def test_counters_go_on_over_the_terms_of_a_process() -> None:
    term: list[TermFigures | None] = [a_term()]
    collector = MetricsCollector(sources(term))
    collector.term_ended(term[0])  # type: ignore[arg-type]
    term[0] = None
    found = samples(collector)
    assert found[SUCCEEDED] == 2
    assert found['tickwheel_leader{partition="0"}'] == 0
    assert found['tickwheel_epoch{partition="0"}'] == 3
    term[0] = a_term(epoch=4)
    assert samples(collector)[SUCCEEDED] == 4
    assert samples(collector)['tickwheel_task_runs_total{namespace="shops",state="Succeeded",task="hello"}'] == 4


def test_pools_beyond_the_bound_are_counted_together_and_over_all_terms() -> None:
    term = a_term()
    now: list[TermFigures | None] = [None]
    collector = MetricsCollector(sources(now))
    collector.term_ended(term)
    after = Stats(most_pools=1)
    for pool in ("one", "two", "three"):
        spec = task_spec(pool=pool)
        after.known(spec, 0)
        after.fired(3, [spec])
        after.ended(spec, RunState.FAILED, 1, 9)
    figures = [PoolFigures("shops", pool, 2, 1) for pool in ("one", "two", "three")]
    now[0] = structs.replace(term, stats=after, pools=figures)
    found = samples(collector)
    assert SUCCEEDED not in found and found[SUCCEEDED.replace("shops", "_other").replace('"pool"', '"_other"')] == 2
    assert found['tickwheel_runs_total{namespace="shops",pool="one",state="Failed"}'] == 1
    assert found['tickwheel_runs_total{namespace="_other",pool="_other",state="Failed"}'] == 2
    assert found['tickwheel_backlog{namespace="_other",pool="_other"}'] == 4
    assert 'tickwheel_backlog{namespace="shops",pool="two"}' not in found


def test_tasks_have_metrics_of_their_own_only_where_they_ask_and_up_to_the_bound() -> None:
    stats = Stats(most_tasks=1)
    for name, asks in (("plain", False), ("first", True), ("second", True)):
        stats.known(task_spec(name, task_metrics=asks), 0)
    assert [of.task for of in stats.by_task.values()] == ["first"]
    assert list(stats.tasks_left_out) == ["uid-second"]
    stats.known(task_spec("first"), 0)  # it asks no longer
    stats.known(task_spec("second", task_metrics=True), 0)
    assert [of.task for of in stats.by_task.values()] == ["second"]
    assert not stats.tasks_left_out


def test_all_that_is_declared_is_served() -> None:
    names = {family.name for family in MetricsCollector(sources([a_term()])).collect()}
    assert names == {declared.name for declared in METRICS}


def test_the_page_is_up_to_date() -> None:
    assert main(["--check"]) == 0
