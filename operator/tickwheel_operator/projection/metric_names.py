"""The metrics that there are: name, type, labels and help text of each. `docs/metrics.md` is made from this list."""

from __future__ import annotations

import msgspec

from tickwheel_operator.projection.skips import EXPLANATIONS

__all__ = ["BY_NAME", "METRICS", "Declared"]


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
        "tickwheel_schedule_lateness_seconds", "histogram", ("namespace", "pool"),
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
    Declared(
        "tickwheel_runs", "counter", ("namespace", "pool", "state"),
        "Runs that ended, by how: Succeeded, Failed, Cancelled.",
    ),
    Declared(
        "tickwheel_last_success_timestamp_seconds", "gauge", ("namespace", "pool"),
        "When a run of the pool last succeeded, seconds since the epoch, also under leaders before.",
    ),
    Declared(
        "tickwheel_task_runs", "counter", ("namespace", "task", "state"),
        "Of a task with spec.taskMetrics: runs that ended, by how.",
    ),
    Declared(
        "tickwheel_task_last_success_timestamp_seconds", "gauge", ("namespace", "task"),
        "Of a task with spec.taskMetrics: when a run last succeeded, seconds since the epoch.",
    ),
    Declared(
        "tickwheel_task_lateness_seconds", "gauge", ("namespace", "task"),
        "Of a task with spec.taskMetrics: fire instant minus scheduled instant of its latest run by schedule.",
    ),
    Declared(
        "tickwheel_task_metrics_left_out", "gauge", (),
        "Tasks with spec.taskMetrics that have no metrics of their own: there are more than metrics_max_tasks.",
    ),
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
BY_NAME = {declared.name: declared for declared in METRICS}
