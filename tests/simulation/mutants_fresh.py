"""Mutants that were drawn up when those of the other files were all found, by module. `mutants.py` says how they work."""

from __future__ import annotations

# ruff: noqa: E501
# fmt: off

__all__ = ["EDITS"]

EDITS: dict[str, tuple[tuple[str, ...], ...]] = {
    "engine.following": (
        ("looks_on_a_delay_later", "since_ms - spec.after.delay_ms) + spec.after.delay_ms", "since_ms) + spec.after.delay_ms"),
    ),
    "engine.backfill": (
        ("covered_beyond_the_span", "covered = min(task.covered_until(instant), last + 1, undecided)", "covered = min(task.covered_until(instant), undecided)"),
        ("backfill_waits_for_its_own_runs", "if o.task is run.task and o is not run and", "if o.task is run.task and",
         "its own open runs are of instants that it has passed: it would look through all runs of the task for nothing"),
    ),
    "ledger.log": (
        ("two_ledgers_mixed", "                    replay.check_identity(codec.decode_epoch(segment.data, where=name), identity, where=name)\n", "                    pass\n"),
        ("deposed_while_it_waited_and_writes_on", "        self._require_leadership()  # who waited for the lane may have lost it meanwhile\n", ""),
        ("bytes_of_the_tail_unknown_after_a_takeover", "            self._tail_bytes = sum(header.size_bytes for header in plan.tail)\n", "            self._tail_bytes = 0\n"),
    ),
    "engine.routing": (
        ("expected_twice", "        if dispatch.where is queue and dispatch.place is Place.EXPECTED:\n            return\n", ""),
    ),
    "engine.jitter": (
        ("jitter_past_the_next_instant", "        most_ms = min(most_ms, following - since_ms - 1)\n", "        pass\n"),
        ("jitter_up_to_the_next_instant", "following - since_ms - 1)", "following - since_ms)"),
    ),
    "engine.waiting": (
        ("jitter_before_the_run_is_ready", "return max(dispatch.ready_ms, jittered_start_ms(", "return (jittered_start_ms("),
        ("dispatch_timeout_lasts_the_lead_longer", "dispatch.waits_ms + timeout_ms)", "dispatch.waits_ms + timeout_ms + self.lead_ms)"),
    ),
    "runtime.partition": (
        ("new_lead_unheard", "                self._handle(LeadSet(lead_ms=self._pace.lead_ms))\n            if len", "                pass\n            if len"),
        ("engine_of_an_ended_term_never_collected", "            collect_again()\n", ""),
        ("views_at_each_batch", "        self._views_from = now + _VIEWS_S\n", ""),
    ),
}
