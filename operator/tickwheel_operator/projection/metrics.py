"""All metrics of the operator, with their help texts: `docs/metrics.md` is made from this module.

A collector that reads what the engine, the ledger, the catalog and the projector count anyway, when Prometheus asks:
nothing is added to the hot path but the histogram of appends. What a term counted is added up over the terms of this
process, so that a counter never falls while the process lives. Run `python -m tickwheel_operator.projection.metrics
[--check]` to write or check the page.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tickwheel_operator.engine.stats import LATENCY_BUCKETS_MS, Histogram, Stats
from tickwheel_operator.projection.skips import EXPLANATIONS

__all__ = ["METRICS", "Declared", "LedgerFigures", "MetricsCollector", "PoolFigures", "Sources", "TermFigures", "page"]

_APPEND_BUCKETS_S = (0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.035, 0.06, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
_PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


class Declared(msgspec.Struct, frozen=True):
    """One metric."""

    name: str
    """Without the `_total` of counters."""
    kind: str
    """counter, gauge or histogram."""
    labels: tuple[str, ...]
    help: str

    @property
    def shown(self) -> str:
        return f"{self.name}_total" if self.kind == "counter" else self.name


METRICS = (
    Declared(
        "tickwheel_schedule_lateness_seconds", "histogram", (),
        "Fire instant minus scheduled instant, of each run that a schedule made.",
    ),
    Declared(
        "tickwheel_dispatch_latency_seconds", "histogram", (),
        "Of each lease, from the instant at which its dispatch was ready: how long work waits for a worker.",
    ),
    Declared(
        "tickwheel_attempt_duration_seconds", "histogram", (),
        "From the lease of an attempt to the worker's report of it.",
    ),
    Declared("tickwheel_leases", "counter", (), "Attempts that were given to workers."),
    Declared(
        "tickwheel_early_leases", "counter", (),
        "Of these, before their instant: their workers start them at it.",
    ),
    Declared(
        "tickwheel_lead_seconds", "gauge", (),
        "How long before their instant runs are made and leased; 0: early leases are off.",
    ),
    Declared("tickwheel_runs_created", "counter", (), "Runs that were made, by schedule or by hand."),
    Declared("tickwheel_runs", "counter", ("state",), "Runs that ended, by how: Succeeded, Failed, Cancelled."),
    Declared(
        "tickwheel_attempt_failures", "counter", ("reason",),
        "Attempts and deliveries that failed: Error, Timeout, Lost (the worker was), Undelivered.",
    ),
    Declared(
        "tickwheel_attempts_fenced", "counter", (),
        "Reports of attempts that were not open any more, such as those of a worker that was thought lost.",
    ),
    Declared(
        "tickwheel_instants_skipped", "counter", ("reason",),
        f"Instants that made no run: {', '.join(EXPLANATIONS)}.",
    ),
    Declared("tickwheel_backlog", "gauge", ("namespace", "pool"), "Dispatches that wait for a worker of the pool."),
    Declared(
        "tickwheel_object_faults", "counter", ("layer", "kind"),
        "Faults of the operator itself at one object, which is stalled as InternalError; all others go on.",
    ),
    Declared("tickwheel_runs_open", "gauge", (), "Runs that have not ended."),
    Declared("tickwheel_leases_open", "gauge", (), "Attempts that workers hold now."),
    Declared("tickwheel_workers", "gauge", ("namespace", "pool"), "Live workers of the pool."),
    Declared(
        "tickwheel_workers_timed", "gauge", ("namespace", "pool"),
        "Of these, workers that know the operator's clock well enough for early leases.",
    ),
    Declared(
        "tickwheel_worker_clock_offset_seconds", "gauge", ("namespace", "pool"),
        "How far the wall clock of a worker of the pool is from the operator's, as it estimates itself: the farthest.",
    ),
    Declared(
        "tickwheel_worker_clock_error_seconds", "gauge", ("namespace", "pool"),
        "By how much such an estimate may be wrong: the vaguest.",
    ),
    Declared("tickwheel_pool_slots", "gauge", ("namespace", "pool"), "Slots of the pool's live workers."),
    Declared("tickwheel_pool_slots_used", "gauge", ("namespace", "pool"), "Slots that run an attempt."),
    Declared(
        "tickwheel_pool_replicas_desired", "gauge", ("namespace", "pool"),
        "Workers that a pool with a template should have: spec.replicas, or what autoscaling asks for.",
    ),
    Declared(
        "tickwheel_pool_replicas_ready", "gauge", ("namespace", "pool"), "Ready pods of a pool with a template."
    ),
    Declared(
        "tickwheel_ledger_append_seconds", "histogram", (),
        "Duration of an append to the ledger: the price of a durable decision.",
    ),
    Declared("tickwheel_ledger_appended_bytes", "counter", (), "Bytes of facts that were appended, as stored."),
    Declared("tickwheel_ledger_appended_facts", "counter", (), "Facts that were appended."),
    Declared("tickwheel_ledger_segments", "gauge", (), "Segments of the ledger that the store holds."),
    Declared("tickwheel_ledger_retained_bytes", "gauge", (), "Bytes of the segments that the store holds."),
    Declared(
        "tickwheel_ledger_limit_bytes", "gauge", (),
        "Bytes retained from which on no new runs are made: the setting ledger_max_bytes.",
    ),
    Declared("tickwheel_intake_held", "gauge", (), "1 while no new runs are made, since the ledger is at its limit."),
    Declared(
        "tickwheel_ledger_recovered_tasks", "gauge", (),
        "Tasks whose status knew more than the ledger in this term, since that was lost or restored. Should be 0.",
    ),
    Declared("tickwheel_ledger_checkpoints", "counter", (), "Checkpoints that were written."),
    Declared("tickwheel_ledger_retries", "counter", (), "Waits after a failure of the ledger's store."),
    Declared(
        "tickwheel_clock_behind_seconds", "gauge", (),
        "How far the leader's clock was behind that of the leader before, when its term began. Should be 0.",
    ),
    Declared("tickwheel_leader", "gauge", ("partition",), "1 where this replica leads the partition, else 0."),
    Declared("tickwheel_epoch", "gauge", ("partition",), "The epoch of this replica's leadership; 0: it never led."),
    Declared(
        "tickwheel_projection_writes", "counter", ("kind", "outcome"),
        "Requests for people's views (statuses, TaskRuns, Events): ok, gone, conflict, refused, error, unreachable.",
    ),
    Declared("tickwheel_projection_pending", "gauge", (), "Objects whose view waits to be written."),
    Declared(
        "tickwheel_projection_oldest_seconds", "gauge", (),
        "How long a view has waited to be written, the one that waits the longest; failed tries count.",
    ),
    Declared(
        "tickwheel_catalog_objects", "gauge", ("kind", "state"),
        "Objects that are known: Armed, Suspended, or the reason of their Stalled condition.",
    ),
    Declared(
        "tickwheel_namespaces", "gauge", ("owner",),
        "Namespaces that have tasks or pools, by who serves them: own (this release), another, none (not marked yet).",
    ),
    Declared(
        "tickwheel_catalog_synced", "gauge", (), "1 when the first lists of all kinds are complete: may lead."
    ),
    Declared("tickwheel_watch_age_seconds", "gauge", (), "Since the last event of the watch."),
    Declared(
        "tickwheel_watch_agreed_age_seconds", "gauge", (),
        "Since the catalog was last known to agree with the API server, of the kind for which that is longest ago.",
    ),
    Declared(
        "tickwheel_gateway_refused", "counter", ("reason",),
        "Requests and connections of callers that were not let in, such as WrongAudience or PodOfAnotherPool.",
    ),
    Declared(
        "tickwheel_tls_certificate_expiry_timestamp_seconds", "gauge", ("kind",),
        "When the gateway's certificate (leaf) and the authority that signs it (ca) expire, seconds since the epoch.",
    ),
)  # fmt: skip
_BY_NAME = {declared.name: declared for declared in METRICS}


class LedgerFigures(Protocol):
    """What `ledger.limits.LedgerStats` has."""

    checkpoints: int
    retries: int
    retained_segments: int
    retained_bytes: int
    limit_bytes: int


class _WatchHealth(Protocol):
    @property
    def synced(self) -> bool: ...
    @property
    def event_age_s(self) -> float: ...
    @property
    def agreed_age_s(self) -> float: ...


class PoolFigures(msgspec.Struct, frozen=True):
    """One pool as the engine sees it."""

    namespace: str
    pool: str
    backlog: int
    workers: int
    slots: int = 0
    slots_used: int = 0
    desired: int | None = None
    """None: its workers run elsewhere."""
    ready: int | None = None
    timed: int = 0
    """Workers that know the operator's clock."""
    clock_offset_us: int | None = None
    """None: no worker has an estimate."""
    clock_error_us: int | None = None


class TermFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The engine and ledger of the term that runs now."""

    stats: Stats
    ledger: LedgerFigures
    epoch: int
    runs_open: int
    leases_open: int
    intake_held: bool = False
    clock_behind_ms: int = 0
    lead_ms: int = 0
    recovered_tasks: int = 0
    pools: Sequence[PoolFigures]


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Where the figures come from. Each is a plain read on the event loop."""

    term: Callable[[], TermFigures | None] = lambda: None
    """None: this replica follows."""
    objects: Callable[[], Mapping[tuple[str, str], int]] = dict
    faults: Callable[[], Mapping[tuple[str, str], int]] = dict
    """Of the operator at objects, by layer and kind."""
    """Known objects by kind and state."""
    health: Callable[[], _WatchHealth | None] = lambda: None
    writes: Callable[[], Iterable[Mapping[tuple[str, str], int]]] = tuple
    """Requests by kind and outcome, of the projector and of the Events."""
    pending: Callable[[], int] = lambda: 0
    oldest_s: Callable[[], float] = lambda: 0.0
    namespaces: Callable[[], Mapping[str, int]] = dict
    """Namespaces with objects, by who serves them."""
    refused: Callable[[], Mapping[str, int]] = dict
    """Callers that were not let in, by reason."""
    expiries: Callable[[], Mapping[str, float]] = dict
    """When certificates end, seconds since the epoch, by kind."""


class _Sums:
    """What the terms that are over counted."""

    def __init__(self) -> None:
        self.histograms = {name: Histogram() for name in ("lateness", "dispatch_latency", "attempt_duration")}
        self.runs_created = self.fenced = self.checkpoints = self.retries = 0
        self.leases = self.early_leases = 0
        self.runs_ended: dict[str, int] = {}
        self.failures: dict[str, int] = {}
        self.skipped: dict[str, int] = {}

    def plus(self, term: TermFigures | None) -> _Sums:
        """These and the term's."""
        result = _Sums()
        stats = term.stats if term is not None else None
        for name, histogram in result.histograms.items():
            added = [self.histograms[name], *([getattr(stats, name)] if stats is not None else [])]
            histogram.counts = [sum(counts) for counts in zip(*(h.counts for h in added), strict=True)]
            histogram.total_ms = sum(h.total_ms for h in added)
        ended, failures, skipped = {}, {}, {}
        if stats is not None:
            ended = {state.value: count for state, count in stats.runs_ended.items()}
            failures = {_words(reason.name): count for reason, count in stats.attempts_failed.items()}
            skipped = {_words(reason.name): count for reason, count in stats.instants_skipped.items()}
        result.runs_created = self.runs_created + (stats.runs_created if stats is not None else 0)
        result.leases = self.leases + (stats.leases if stats is not None else 0)
        result.early_leases = self.early_leases + (stats.early_leases if stats is not None else 0)
        result.fenced = self.fenced + (stats.fenced if stats is not None else 0)
        result.checkpoints = self.checkpoints + (term.ledger.checkpoints if term is not None else 0)
        result.retries = self.retries + (term.ledger.retries if term is not None else 0)
        result.runs_ended = _added(self.runs_ended, ended)
        result.failures = _added(self.failures, failures)
        result.skipped = _added(self.skipped, skipped)
        return result


class MetricsCollector(Collector):
    """Register it with a `CollectorRegistry`; collect on the event loop's thread."""

    def __init__(self, sources: Sources, *, partition: int = 0) -> None:
        self._sources = sources
        self._partition = str(partition)
        self._over = _Sums()
        self._epoch = 0
        self._append_counts = [0] * (len(_APPEND_BUCKETS_S) + 1)
        self._append_s = 0.0
        self._append_bytes = 0
        self._append_facts = 0

    def observe_append(self, seconds: float, size_bytes: int, facts: int) -> None:
        """One append of the ledger: the host's `append_observer`."""
        self._append_counts[bisect_left(_APPEND_BUCKETS_S, seconds)] += 1
        self._append_s += seconds
        self._append_bytes += size_bytes
        self._append_facts += facts

    def term_ended(self, term: TermFigures) -> None:
        """Keep what the term counted. Call it once, when `Sources.term` no longer gives the term."""
        self._over = self._over.plus(term)
        self._epoch = term.epoch

    def describe(self) -> Iterable[Metric]:
        """What there is, so that registering collects nothing."""
        return [_family(declared) for declared in METRICS]

    def collect(self) -> Iterator[Metric]:
        term, health = self._sources.term(), self._sources.health()
        yield from self._of_runs(self._over.plus(term))
        yield from self._of_ledger(term)
        pools = term.pools if term is not None else ()
        yield _gauge("tickwheel_backlog", {(p.namespace, p.pool): p.backlog for p in pools})
        yield _gauge("tickwheel_workers", {(p.namespace, p.pool): p.workers for p in pools})
        yield _gauge("tickwheel_workers_timed", {(p.namespace, p.pool): p.timed for p in pools})
        offsets: dict[tuple[str, ...], float] = {
            (p.namespace, p.pool): p.clock_offset_us / 1e6 for p in pools if p.clock_offset_us is not None
        }
        yield _gauge("tickwheel_worker_clock_offset_seconds", offsets)
        errors: dict[tuple[str, ...], float] = {
            (p.namespace, p.pool): p.clock_error_us / 1e6 for p in pools if p.clock_error_us is not None
        }
        yield _gauge("tickwheel_worker_clock_error_seconds", errors)
        yield _gauge("tickwheel_lead_seconds", {(): term.lead_ms / 1000 if term is not None else 0})
        yield _gauge("tickwheel_pool_slots", {(p.namespace, p.pool): p.slots for p in pools})
        yield _gauge("tickwheel_pool_slots_used", {(p.namespace, p.pool): p.slots_used for p in pools})
        yield _gauge(
            "tickwheel_pool_replicas_desired",
            {(p.namespace, p.pool): p.desired for p in pools if p.desired is not None},
        )
        yield _gauge(
            "tickwheel_pool_replicas_ready", {(p.namespace, p.pool): p.ready for p in pools if p.ready is not None}
        )
        yield _gauge("tickwheel_runs_open", {(): term.runs_open if term is not None else 0})
        yield _gauge("tickwheel_leases_open", {(): term.leases_open if term is not None else 0})
        yield _gauge("tickwheel_leader", {(self._partition,): int(term is not None)})
        yield _gauge("tickwheel_epoch", {(self._partition,): term.epoch if term is not None else self._epoch})
        writes: dict[tuple[str, ...], int] = {}
        for counted in self._sources.writes():
            for key, count in counted.items():
                writes[key] = writes.get(key, 0) + count
        yield _counter("tickwheel_projection_writes", writes)
        yield _counter(
            "tickwheel_object_faults", {(layer, kind): n for (layer, kind), n in self._sources.faults().items()}
        )
        yield _gauge("tickwheel_projection_pending", {(): self._sources.pending()})
        yield _gauge("tickwheel_namespaces", {(owner,): count for owner, count in self._sources.namespaces().items()})
        yield _gauge("tickwheel_projection_oldest_seconds", {(): self._sources.oldest_s()})
        yield _gauge(
            "tickwheel_catalog_objects", {(kind, state): n for (kind, state), n in self._sources.objects().items()}
        )
        yield _counter("tickwheel_gateway_refused", {(reason,): n for reason, n in self._sources.refused().items()})
        expiries: dict[tuple[str, ...], float] = {(kind,): when for kind, when in self._sources.expiries().items()}
        yield _gauge("tickwheel_tls_certificate_expiry_timestamp_seconds", expiries)
        if health is not None:
            yield _gauge("tickwheel_catalog_synced", {(): int(health.synced)})
            yield _gauge("tickwheel_watch_age_seconds", {(): health.event_age_s})
            yield _gauge("tickwheel_watch_agreed_age_seconds", {(): health.agreed_age_s})

    def _of_runs(self, sums: _Sums) -> Iterator[Metric]:
        bounds = [bound / 1000 for bound in LATENCY_BUCKETS_MS]
        for name, histogram in sums.histograms.items():
            full = "tickwheel_schedule_lateness_seconds" if name == "lateness" else f"tickwheel_{name}_seconds"
            yield _histogram(full, bounds, histogram.counts, histogram.total_ms / 1000)
        yield _counter("tickwheel_runs_created", {(): sums.runs_created})
        yield _counter("tickwheel_leases", {(): sums.leases})
        yield _counter("tickwheel_early_leases", {(): sums.early_leases})
        yield _counter("tickwheel_runs", {(state,): count for state, count in sums.runs_ended.items()})
        yield _counter("tickwheel_attempt_failures", {(reason,): count for reason, count in sums.failures.items()})
        yield _counter("tickwheel_attempts_fenced", {(): sums.fenced})
        yield _counter("tickwheel_instants_skipped", {(reason,): count for reason, count in sums.skipped.items()})
        yield _counter("tickwheel_ledger_checkpoints", {(): sums.checkpoints})
        yield _counter("tickwheel_ledger_retries", {(): sums.retries})

    def _of_ledger(self, term: TermFigures | None) -> Iterator[Metric]:
        yield _histogram("tickwheel_ledger_append_seconds", _APPEND_BUCKETS_S, self._append_counts, self._append_s)
        yield _counter("tickwheel_ledger_appended_bytes", {(): self._append_bytes})
        yield _counter("tickwheel_ledger_appended_facts", {(): self._append_facts})
        if term is not None:
            yield _gauge("tickwheel_ledger_segments", {(): term.ledger.retained_segments})
            yield _gauge("tickwheel_ledger_retained_bytes", {(): term.ledger.retained_bytes})
            yield _gauge("tickwheel_ledger_limit_bytes", {(): term.ledger.limit_bytes})
            yield _gauge("tickwheel_intake_held", {(): int(term.intake_held)})
            yield _gauge("tickwheel_ledger_recovered_tasks", {(): term.recovered_tasks})
            yield _gauge("tickwheel_clock_behind_seconds", {(): term.clock_behind_ms / 1000})


def page() -> str:
    """The page of the documentation."""
    lines = [
        "# Metrics",
        "",
        "Served at `/metrics` in the Prometheus text format. This page is made by",
        "`python -m tickwheel_operator.projection.metrics`; edit the texts there. Counters count since the process",
        "started; those of runs count on the leader only.",
        "",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for declared in METRICS:
        labels = ", ".join(f"`{label}`" for label in declared.labels)
        lines.append(f"| `{declared.shown}` | {declared.kind} | {labels} | {declared.help} |")
    return "\n".join(lines) + "\n"


def _family(declared: Declared) -> Metric:
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    made: Metric = kinds[declared.kind](declared.name, declared.help, labels=declared.labels)
    return made


def _counter(name: str, samples: Mapping[tuple[str, ...], float]) -> Metric:
    family = CounterMetricFamily(name, _BY_NAME[name].help, labels=_BY_NAME[name].labels)
    for labels, value in samples.items():
        family.add_metric(labels, value)
    return family


def _gauge(name: str, samples: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(name, _BY_NAME[name].help, labels=_BY_NAME[name].labels)
    for labels, value in samples.items():
        family.add_metric(labels, value)
    return family


def _histogram(name: str, bounds_s: Sequence[float], counts: Sequence[int], total_s: float) -> Metric:
    family = HistogramMetricFamily(name, _BY_NAME[name].help)
    running, buckets = 0, []
    for bound, count in zip((*(f"{bound:g}" for bound in bounds_s), "+Inf"), counts, strict=True):
        running += count
        buckets.append((bound, running))
    family.add_metric((), buckets, total_s)
    return family


def _words(name: str) -> str:
    """`CATCH_UP_LIMIT` as people see it elsewhere: `CatchUpLimit`."""
    return "".join(part.title() for part in name.split("_"))


def _added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in (*other, *(n for n in one if n not in other))}


def main(arguments: Sequence[str]) -> int:
    """Write the page, or with `--check` say whether it is up to date."""
    if "--check" not in arguments:
        _PAGE.write_text(page(), encoding="utf-8")
        return 0
    if _PAGE.exists() and _PAGE.read_text(encoding="utf-8") == page():
        return 0
    sys.stderr.write(f"{_PAGE} is stale: run `python -m tickwheel_operator.projection.metrics` and commit it\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
