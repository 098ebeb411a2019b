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
        ("chunk_may_arrive_since_another_might", "            self._unresolved = segment\n            self._may_arrive = False\n", "            self._unresolved = segment\n"),
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
        ("caller_that_is_cancelled_ends_the_term", "            if future is not None and not future.done():\n                future.set_result", "            if future is not None:\n                future.set_result"),
        ("intake_flutters", "retained < limit * _HELD_SHARE:", "retained < limit:"),
    ),
    "engine.leasing": (
        ("early_for_as_long_as_the_clock_is_behind", "boot + min(ahead_ms, _LONGEST_AHEAD_MS)", "boot + ahead_ms"),
        ("told_to_stop_what_timed_out", "                if dispatch.run.cancelling is not None and dispatch.token:\n                    stopping", "                if dispatch.run.cancelling is not None:\n                    stopping"),
    ),
    "engine.core": (
        ("ends_of_the_leader_before_counted", "            self.state.outcomes.clear()\n", ""),
        ("replaces_one_that_has_ended", "            if other.number not in self.state.runs:\n                continue  # the end of the one before ended it, too\n", ""),
    ),
    "engine.state": (
        ("attempt_given_back_counts_for_the_run", "            dispatch.run.attempts -= 1\n", ""),
        ("awaited_run_shown_last", "self.touched.move_to_end(task, last=False)", "self.touched.move_to_end(task)"),
    ),
    "engine.snapshot": (
        ("worker_of_a_run_that_waits_forgotten", "used = {run.worker for run in state.runs.values()}", "used = {run.worker for run in state.runs.values() if run.dispatch.token}"),
    ),
    "engine.queues": (
        ("two_entries_of_what_came_back", "deque(dict.fromkeys(d for d in queue if d.where is self and d.place is QUEUED))", "deque([d for d in queue if d.where is self and d.place is QUEUED])"),
    ),
    "engine.edits": (
        ("once_of_this_moment_never_fires", "if at_ms is None or at_ms > settled_ms:", "if at_ms is None or at_ms >= settled_ms:"),
    ),
    "election.elector": (
        ("version_of_the_same_record_not_kept", "            self._changed_ms = self._clock.boot_ms()\n        self._lease = lease", "            self._changed_ms = self._clock.boot_ms()\n            self._lease = lease"),
        ("release_during_a_try_unheard", "                released.clear()\n                if await self._try_to_acquire():\n                    return tried_ms\n", "                if await self._try_to_acquire():\n                    return tried_ms\n                released.clear()\n"),
    ),
    "election.peers": (
        ("end_before_the_first_sight_heard", "if known is not None and not ends <= known:", "if not ends <= (known or frozenset()):"),
    ),
    "election.term": (
        ("renewal_given_up_a_pause_late", "await asyncio.sleep(min(retry_s, left_s))", "await asyncio.sleep(retry_s)"),
        ("release_given_up_early", "        patience_ms = self._config.retry_period_ms if self.ended else self._config.renew_deadline_ms\n        self._end(\"released\")\n", "        self._end(\"released\")\n        patience_ms = self._config.retry_period_ms if self.ended else self._config.renew_deadline_ms\n"),
    ),
    "runtime.leadership": (
        ("long_terms_count_as_failures", "self._failures = 1 if lasted_s * 1000 >= _LONGEST_PAUSE_MS else self._failures + 1", "self._failures += 1"),
    ),
    "runtime.checkpoints": (
        ("relief_by_a_checkpoint_of_nothing", "(relief and now >= self._relief_from and self._ledger.tail_bytes > 0)", "(relief and now >= self._relief_from)"),
    ),
}
