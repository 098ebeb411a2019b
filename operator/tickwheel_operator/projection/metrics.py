"""All metrics of the operator; `metric_names` lists them, and `docs/metrics.md` is made from that list.

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
from typing import Protocol, TypeVar

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tickwheel_operator.engine.stats import LATENCY_BUCKETS_MS, OTHERS, Histogram, Stats
from tickwheel_operator.projection.metric_names import BY_NAME, METRICS, Declared

__all__ = ["METRICS", "Declared", "LedgerFigures", "MetricsCollector", "PoolFigures", "Sources", "TermFigures", "page"]

_APPEND_BUCKETS_S = (0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.035, 0.06, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
_SUMMED = ("backlog", "workers", "slots", "slots_used", "timed")
_Labels = tuple[str, ...]
_Key = TypeVar("_Key")
_PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


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
        self.histograms = {name: Histogram() for name in ("dispatch_latency", "attempt_duration")}
        self.lateness: dict[_Labels, Histogram] = {}
        self.runs_ended: dict[_Labels, int] = {}
        self.tasks_ended: dict[_Labels, int] = {}
        self.runs_created = self.fenced = self.checkpoints = self.retries = 0
        self.leases = self.early_leases = 0
        self.failures: dict[str, int] = {}
        self.skipped: dict[str, int] = {}

    def plus(self, term: TermFigures | None) -> _Sums:
        """These and the term's."""
        result = _Sums()
        stats = term.stats if term is not None else None
        for name, histogram in result.histograms.items():
            _sum(histogram, self.histograms[name], *([getattr(stats, name)] if stats is not None else []))
        pools = stats.by_pool if stats is not None else {}
        for pool, histogram in (*self.lateness.items(), *((pool, of.lateness) for pool, of in pools.items())):
            # The bound holds over all terms: what this one counts together was perhaps told apart before.
            place = pool if pool in pools or OTHERS not in pools else OTHERS
            _sum(result.lateness.setdefault(place, Histogram()), histogram)
        failures, skipped = {}, {}
        if stats is not None:
            failures = {_words(reason.name): count for reason, count in stats.attempts_failed.items()}
            skipped = {_words(reason.name): count for reason, count in stats.instants_skipped.items()}
        result.runs_created = self.runs_created + (stats.runs_created if stats is not None else 0)
        result.leases = self.leases + (stats.leases if stats is not None else 0)
        result.early_leases = self.early_leases + (stats.early_leases if stats is not None else 0)
        result.fenced = self.fenced + (stats.fenced if stats is not None else 0)
        result.checkpoints = self.checkpoints + (term.ledger.checkpoints if term is not None else 0)
        result.retries = self.retries + (term.ledger.retries if term is not None else 0)
        by_pool: dict[_Labels, int] = {
            (*pool, state.value): n for pool, of in pools.items() for state, n in of.ended.items()
        }
        before: dict[_Labels, int] = {}
        for (*pool_before, state_name), count in self.runs_ended.items():
            gone = OTHERS in pools and tuple(pool_before) not in pools
            labels = (*(OTHERS if gone else pool_before), state_name)
            before[labels] = before.get(labels, 0) + count
        result.runs_ended = _added(before, by_pool)
        tasks = stats.by_task.values() if stats is not None else ()
        by_task: dict[_Labels, int] = {
            (of.namespace, of.task, state.value): n for of in tasks for state, n in of.ended.items()
        }
        shown = {(of.namespace, of.task) for of in tasks}
        kept = {labels: n for labels, n in self.tasks_ended.items() if stats is None or labels[:2] in shown}
        result.tasks_ended = _added(kept, by_task)
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
        yield from self._of_successes(term)
        pools = _bounded(term.pools, term.stats) if term is not None else ()
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
            yield _histogram(f"tickwheel_{name}_seconds", bounds, {(): _told(histogram)})
        late = {pool: _told(histogram) for pool, histogram in sums.lateness.items()}
        yield _histogram("tickwheel_schedule_lateness_seconds", bounds, late)
        yield _counter("tickwheel_runs_created", {(): sums.runs_created})
        yield _counter("tickwheel_leases", {(): sums.leases})
        yield _counter("tickwheel_early_leases", {(): sums.early_leases})
        yield _counter("tickwheel_runs", sums.runs_ended)
        yield _counter("tickwheel_task_runs", sums.tasks_ended)
        yield _counter("tickwheel_attempt_failures", {(reason,): count for reason, count in sums.failures.items()})
        yield _counter("tickwheel_attempts_fenced", {(): sums.fenced})
        yield _counter("tickwheel_instants_skipped", {(reason,): count for reason, count in sums.skipped.items()})
        yield _counter("tickwheel_ledger_checkpoints", {(): sums.checkpoints})
        yield _counter("tickwheel_ledger_retries", {(): sums.retries})

    def _of_successes(self, term: TermFigures | None) -> Iterator[Metric]:
        pools = term.stats.by_pool if term is not None else {}
        tasks = term.stats.by_task.values() if term is not None else ()
        yield _gauge(
            "tickwheel_last_success_timestamp_seconds",
            {pool: of.last_success_ms / 1000 for pool, of in pools.items() if of.last_success_ms},
        )
        yield _gauge(
            "tickwheel_task_last_success_timestamp_seconds",
            {(of.namespace, of.task): of.last_success_ms / 1000 for of in tasks if of.last_success_ms},
        )
        yield _gauge(
            "tickwheel_task_lateness_seconds",
            {(of.namespace, of.task): of.lateness_ms / 1000 for of in tasks if of.lateness_ms is not None},
        )
        left_out = len(term.stats.tasks_left_out) if term is not None else 0
        yield _gauge("tickwheel_task_metrics_left_out", {(): left_out})

    def _of_ledger(self, term: TermFigures | None) -> Iterator[Metric]:
        yield _histogram(
            "tickwheel_ledger_append_seconds", _APPEND_BUCKETS_S, {(): (self._append_counts, self._append_s)}
        )
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
    family = CounterMetricFamily(name, BY_NAME[name].help, labels=BY_NAME[name].labels)
    for labels, value in samples.items():
        family.add_metric(labels, value)
    return family


def _gauge(name: str, samples: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(name, BY_NAME[name].help, labels=BY_NAME[name].labels)
    for labels, value in samples.items():
        family.add_metric(labels, value)
    return family


def _histogram(
    name: str, bounds_s: Sequence[float], samples: Mapping[tuple[str, ...], tuple[Sequence[int], float]]
) -> Metric:
    """By labels: the counts of the buckets, and the sum in seconds."""
    family = HistogramMetricFamily(name, BY_NAME[name].help, labels=BY_NAME[name].labels)
    for labels, (counts, total_s) in samples.items():
        running, buckets = 0, []
        for bound, count in zip((*(f"{bound:g}" for bound in bounds_s), "+Inf"), counts, strict=True):
            running += count
            buckets.append((bound, running))
        family.add_metric(labels, buckets, total_s)
    return family


def _told(histogram: Histogram) -> tuple[Sequence[int], float]:
    return histogram.counts, histogram.total_ms / 1000


def _sum(result: Histogram, *parts: Histogram) -> Histogram:
    for part in parts:
        result.counts = [one + other for one, other in zip(result.counts, part.counts, strict=True)]
        result.total_ms += part.total_ms
    return result


def _bounded(pools: Sequence[PoolFigures], stats: Stats) -> Sequence[PoolFigures]:
    """Those that metrics tell apart, and the sum of all others, if there are any."""
    if OTHERS not in stats.by_pool:
        return pools
    others = [pool for pool in pools if (pool.namespace, pool.pool) not in stats.by_pool]
    totals = {name: sum(getattr(pool, name) for pool in others) for name in _SUMMED}
    apart = [pool for pool in pools if (pool.namespace, pool.pool) in stats.by_pool]
    return [*apart, PoolFigures(*OTHERS, **totals)]


def _words(name: str) -> str:
    """`CATCH_UP_LIMIT` as people see it elsewhere: `CatchUpLimit`."""
    return "".join(part.title() for part in name.split("_"))


def _added(one: Mapping[_Key, int], other: Mapping[_Key, int]) -> dict[_Key, int]:
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
