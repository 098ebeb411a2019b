"""Mutants that were drawn up when those of the other files were all found, by module. `mutants.py` says how they work."""

from __future__ import annotations

# ruff: noqa: E501
# fmt: off

__all__ = ["EDITS"]

EDITS: dict[str, tuple[tuple[str, ...], ...]] = {
    "engine.sources": (
        ("trigger_written_otherwise_is_an_edit", "_encode(source.normal())", "_encode(source)"),
        ("calendars_asked_whose_dates_nobody_knows", "source.within(None if source.filter is None else source.filter.window())", "source"),
    ),
    "engine.schedule.starters.fixed_delay": (
        ("looks_on_a_delay_later", "since_ms - source.delay_ms) + source.delay_ms", "since_ms) + source.delay_ms"),
    ),
    "engine.schedule.starters.completion": (
        ("new_follower_unheard_of", "        self._follows[spec.uid] = key\n        self._watch(key)\n", "        self._follows[spec.uid] = key\n"),
        ("follows_against_its_calendar", "            return f.SkipReason.CALENDAR\n", "            pass\n"),
    ),
    "engine.schedule.backfilling": (
        ("covered_beyond_the_span", "covered = min(covered_until(task.backfilled, instant), last + 1, undecided)", "covered = min(covered_until(task.backfilled, instant), undecided)"),
        ("backfill_waits_for_its_own_runs", "if o.task is run.task and o is not run}", "if o.task is run.task}",
         "its own open runs are of instants that it has passed: it would look through all runs of the task for nothing"),
        ("undecided_where_it_is_settled", "r.parent in others and r.scheduled_ms > until_ms), default", "r.parent in others and r.scheduled_ms >= until_ms), default"),
    ),
    "ledger.log": (
        ("two_ledgers_mixed", "                    replay.check_identity(codec.decode_epoch(segment.data, where=name), identity, where=name)\n", "                    pass\n"),
        ("deposed_while_it_waited_and_writes_on", "        self._require_leadership()  # who waited for the lane may have lost it meanwhile\n", ""),
        ("bytes_of_the_tail_unknown_after_a_takeover", "            self._tail_bytes = sum(header.size_bytes for header in plan.tail)\n", "            self._tail_bytes = 0\n"),
        ("chunk_may_arrive_since_another_might", "            self._unresolved = segment\n            self._may_arrive = False\n", "            self._unresolved = segment\n"),
        ("large_checkpoint_written_too_often", "self._tail_bytes >= max(self._limits.checkpoint_every_bytes, size)", "self._tail_bytes >= self._limits.checkpoint_every_bytes"),
        ("rival_at_the_same_name_not_seen", "if any(header.sequence >= segment.sequence and not _same", "if any(header.sequence > segment.sequence and not _same",
         "the segment that is created next collides with a rival's of that very name"),
        ("looks_by_the_slower_clock", "            max(after - seen for after, seen", "            min(after - seen for after, seen"),
        ("segments_of_before_never_compacted", "            for header in headers:\n                self._compaction.note(header)\n", ""),
    ),
    "engine.dispatch.routing": (
        ("expected_twice", "        if dispatch.where is queue and dispatch.place is Place.EXPECTED:\n            return\n", ""),
        ("knows_the_time_not_quite_well_enough", "and error_us <= self._early_error_us", "and error_us < self._early_error_us"),
        ("place_of_what_is_aside_kept", "            pool.aside += 1\n        dispatch.place = place", "            pool.aside += 1\n            dispatch.place = place"),
        ("full_worker_stays_in_its_other_rings", "        else:\n            for handler in worker.handlers:\n                worker.pool.queue(handler).waiting.pop(worker, None)\n", ""),
    ),
    "engine.schedule.jitter": (
        ("jitter_past_the_next_instant", "        most_ms = min(most_ms, following - since_ms - 1)\n", "        pass\n"),
        ("jitter_up_to_the_next_instant", "following - since_ms - 1)", "following - since_ms)"),
    ),
    "engine.dispatch.waiting": (
        ("jitter_before_the_run_is_ready", "return max(dispatch.ready_ms, jittered_start_ms(", "return (jittered_start_ms("),
        ("dispatch_timeout_lasts_the_lead_longer", "dispatch.waits_ms + timeout_ms)", "dispatch.waits_ms + timeout_ms + self.lead_ms)"),
    ),
    "runtime.partition": (
        ("new_lead_unheard", "                self._handle(LeadSet(lead_ms=self._pace.lead_ms))\n            if len", "                pass\n            if len"),
        ("engine_of_an_ended_term_never_collected", "            collect_again()\n", ""),
        ("views_at_each_batch", "        self._views_from = now + _VIEWS_S\n", ""),
        ("caller_that_is_cancelled_ends_the_term", "            if future is not None and not future.done():\n                future.set_result", "            if future is not None:\n                future.set_result"),
        ("intake_flutters", "retained < limit * _HELD_SHARE:", "retained < limit:"),
        ("checkpoint_begins_before_its_facts_are_durable", "        if facts:\n            started = loop.time()\n", "        if snapshot is not None:\n            self._checkpoints.begin(snapshot)\n            snapshot = None\n        if facts:\n            started = loop.time()\n"),
        ("urgent_one_waits_for_a_report", "        if not self._urgent:\n", "        if True:\n"),
    ),
    "engine.dispatch.failures": (
        ("text_of_the_last_failure_cut", '        if retry_ms:\n            # The text', '        if not retry_ms:\n            # The text'),
    ),
    "engine.dispatch.leasing": (
        ("early_for_as_long_as_the_clock_is_behind", "boot + min(ahead_ms, _LONGEST_AHEAD_MS)", "boot + ahead_ms"),
        ("told_to_stop_what_timed_out", "                if dispatch.run.cancelling is not None and dispatch.token:\n                    stopping", "                if dispatch.run.cancelling is not None:\n                    stopping"),
        ("pull_taken_twice", "0 < command.sequence <= worker.last_pull", "0 < command.sequence < worker.last_pull"),
        ("told_twice_to_stop_it", "                if dispatch.token not in worker.cancelled:\n                    worker.cancelled.append", "                if True:\n                    worker.cancelled.append"),
        ("busy_worker_taken_for_silent", "max(pool.silence_ms, self._config.lease_ms // 2)", "pool.silence_ms"),
        ("lease_ends_at_its_last_millisecond", "if d.lease_until_ms < now]", "if d.lease_until_ms <= now]"),
        ("word_of_a_worker_is_no_sign_of_life", "        worker.seen_ms = self._journal.boot_ms\n        return worker", "        return worker"),
    ),
    "engine.core": (
        ("ends_of_the_leader_before_counted", "            self.state.outcomes.clear()\n", ""),
        ("replaces_one_that_has_ended", "            if other.number not in self.state.runs:\n                continue  # the end of the one before ended it, too\n", ""),
        ("admitted_before_the_edit_forgotten", "admitted += self.overlaps.regroup(runs, self._spec_of)", "admitted = self.overlaps.regroup(runs, self._spec_of)"),
    ),
    "engine.model.state": (
        ("attempt_given_back_counts_for_the_run", "            dispatch.run.attempts -= 1\n", ""),
        ("awaited_run_shown_last", "self.touched.move_to_end(task, last=False)", "self.touched.move_to_end(task)"),
        ("skips_go_back_at_a_recovery", "skips[reason] = (max(known, count), max(seen_ms, until_ms))", "skips[reason] = (count, max(seen_ms, until_ms))"),
        ("last_instant_goes_back", "            if scheduled > task.last_scheduled_ms:\n                task.last_scheduled_ms = scheduled", "            task.last_scheduled_ms = scheduled"),
        ("undelivered_ready_as_before", "            dispatch.ready_ms = fact.retry_ms\n        else", "            pass\n        else"),
        ("early_lease_has_started", "run.started_ms = now if now > dispatch.ready_ms else dispatch.ready_ms", "run.started_ms = now"),
        ("one_key_fewer", "if len(keys) > self.max_keys:", "if len(keys) >= self.max_keys:"),
    ),
    "engine.model.snapshot": (
        ("worker_of_a_run_that_waits_forgotten", "used = {run.worker for run in state.runs.values()}", "used = {run.worker for run in state.runs.values() if run.is_leased}"),
        ("attempts_restored_in_the_order_of_runs", "    for dispatch in sorted(held, key=lambda dispatch: dispatch.token):", "    for dispatch in held:"),
        ("task_of_an_ended_run_not_written_down_before", "        self._tasks.keep(run.task)\n", ""),
    ),
    "engine.dispatch.queues": (
        ("two_entries_of_what_came_back", "deque(dict.fromkeys(d for d in queue if d.where is self and d.place is QUEUED))", "deque([d for d in queue if d.where is self and d.place is QUEUED])"),
    ),
    "engine.schedule.edits": (
        ("upgrade_drops_what_is_overdue", "f.Armed(task.number, spec.schedule, task.watermark_ms))", "f.Armed(task.number, spec.schedule, self._journal.wall_ms))"),
        ("once_of_this_moment_never_fires", "if at_ms is None or at_ms > settled_ms:", "if at_ms is None or at_ms >= settled_ms:"),
        ("once_fires_again", "if at_ms <= task.last_scheduled_ms:", "if at_ms < task.last_scheduled_ms:"),
    ),
    "election.elector": (
        ("version_of_the_same_record_not_kept", "            self._changed_ms = self._clock.boot_ms()\n        self._lease = lease", "            self._changed_ms = self._clock.boot_ms()\n            self._lease = lease"),
        ("release_during_a_try_unheard", "                released.clear()\n                if await self._try_to_acquire():\n                    return tried_ms\n", "                if await self._try_to_acquire():\n                    return tried_ms\n                released.clear()\n"),
        ("process_of_that_very_moment_is_dead", "0 < started_ms < before_ms and", "0 < started_ms <= before_ms and"),
        ("deleted_lease_unheard_of", "if lease is None or not lease.holder:", "if lease is not None and not lease.holder:"),
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
        ("host_of_an_ended_term_shown", "            self.host = None\n            for task", "            for task"),
    ),
    "runtime.checkpoints": (
        ("relief_by_a_checkpoint_of_nothing", "(relief and now >= self._relief_from and self._ledger.tail_bytes > 0)", "(relief and now >= self._relief_from)"),
    ),
    "runtime.pace": (
        ("one_slow_append_sets_the_lead", "sorted(self._appends)[-2]", "sorted(self._appends)[-1]"),
    ),
    "engine.model.execution.covered": (
        ("uncovers_behind_the_end", "instant_ms >= spans[index][1]:", "instant_ms > spans[index][1]:",
         "nothing of the span is behind its end, so that it stays as it is"),
        ("first_instant_of_a_span_uncovered", "if low <= instant_ms < high), instant_ms)", "if low < instant_ms < high), instant_ms)"),
    ),
    "engine.schedule.overlap": (
        ("backfills_counted_after_a_takeover", "            if spec.overlap.max_concurrent is None or run.execution.retroactive:\n                continue", "            if spec.overlap.max_concurrent is None:\n                continue"),
        ("one_more_waits_for_unknown_ones", "if unknown and admitted + held + before < limit else", "if unknown and admitted + held + before <= limit else"),
    ),
    "engine.schedule.starters.clock": (
        ("undecided_ones_of_earlier_steps_forgotten", "burst.undecided |= len(sure) < len(taken)", "burst.undecided = len(sure) < len(taken)"),
        ("overdue_ones_never_looked_at_again", "            burst.undecided = bool(self._scheduler.overdue.entries)\n", ""),
        ("group_after_a_full_step_lost", "for later in due[number:]:", "for later in due[number + 1 :]:"),
        ("group_sleeps_past_what_was_settled", "if group is None or self._journal.wall_ms >= self._journal.now_ms:", "if True:"),
        ("burst_of_many_begins_late", "elif self._scheduler.lead_ms and group.size % _TASKS_PER_MS == 0:", "elif False:"),
    ),
    "ledger.compaction": (
        ("sweep_does_not_go_on", "        while swept != self._generation:\n", "        if swept != self._generation:\n"),
        ("bytes_of_the_deleted_retained", "                    self._stats.retained_bytes -= gone.size_bytes\n", ""),
    ),
    "ledger.splitting": (
        ("batch_without_a_free_boundary_loses_all_but_its_first_fact", "    return best or middle\n", "    return best\n"),
        ("only_the_first_that_follows_is_bound", "bound = role is _Role.END or (bound and role is _Role.FOLLOWS)", "bound = role is _Role.END"),
    ),
    "ledger.patience": (
        ("forbidden_for_as_long_as_unavailable", "end_s = self._forbidden_end_s if isinstance(error, StoreForbidden) else self._end_s", "end_s = self._end_s"),
    ),
    "ledger.codec": (
        ("chunk_larger_than_it_may_be", "if compressor.size_bytes + len(slice_) + _SLICE_OVERHEAD_BYTES > max_bytes:", "if compressor.size_bytes > max_bytes:"),
    ),
    "engine.schedule.recovery": (
        ("unfinished_run_is_settled", "record.last_scheduled_ms - 1)", "record.last_scheduled_ms)"),
    ),
    "engine.schedule.misfire": (
        ("late_by_the_threshold_is_missed", "missed_until = now_ms - threshold_ms - 1", "missed_until = now_ms - threshold_ms"),
    ),
    "ledger.replay": (
        ("chunks_of_two_generations_joined", "if (header.chunk, header.generation) == (len(chunks), (chunks or [header])[0].generation):", "if header.chunk == len(chunks):"),
    ),
    "ledger.sqlite": (
        ("read_ends_the_problem_of_a_write", "if writes or not self._write_failed:", "if True:"),
    ),
}
