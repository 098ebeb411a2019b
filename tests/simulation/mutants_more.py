"""More mutants of the engine: drawn up after those in `mutants_engine.py` were all found, to see who finds new ones."""

from __future__ import annotations

# ruff: noqa: E501
# fmt: off

__all__ = ["BACKFILLING", "CLOCK", "COMPLETION", "CORE", "FAILURES", "FIXED_DELAY", "LEASING", "OVERLAP", "REQUESTS", "SCHEDULER", "WAITING"]

LEASING = (
    ("replaced_process_told_that_all_is_well", "fenced=command.tokens, cancel=[])", "fenced=[], cancel=[])"),
    ("progress_of_another_taken", "if progressing is not None and progressing.worker == number:", "if progressing is not None:"),
    ("failure_of_a_foreign_token_taken", "if dispatch is None or dispatch.worker != worker or not worker:", "if dispatch is None or not worker:"),
    ("dead_task_goes_on_at_its_worker", '        self._journal.emit(f.Cancelled(run.number, why))\n        self._tell(held, effects)', '        self._journal.emit(f.Cancelled(run.number, why))'),
    ("later_lease_hides_the_sooner_one", "min(self._soonest_boot_ms, soonest) if self._gathered else soonest", "soonest"),
    ("answers_a_millisecond_late", "self._soonest_boot_ms <= self._journal.boot_ms + ahead_ms", "self._soonest_boot_ms < self._journal.boot_ms + ahead_ms"),
    ("sent_again_while_its_answer_is_under_way", "            worker.last_token = state.next_token - 1\n", ""),
    ("leases_of_an_unreadable_task_lost", "                dispatch.lease_until_ms = max(dispatch.lease_until_ms, self._boot(command) + self._config.lease_ms)\n", "                pass\n"),
    ("start_named_by_the_other_clock", "return dispatch.ready_ms if abs(start_ms - dispatch.ready_ms) <= _CLOCK_GRAIN_MS else start_ms", "return dispatch.ready_ms"),
    ("grace_not_given", "begun + limit + spec.grace_ms + _STOP_PATIENCE_MS", "begun + limit + _STOP_PATIENCE_MS"),
    ("replacement_in_one_report_ends_the_engine", "            if token in attempts:\n                self._journal.emit(f.Succeeded([token]))", "            self._journal.emit(f.Succeeded([token]))",
     "what follows from an end asks attempts to stop at most, and ends none"),
)

FAILURES = (
    ("permanent_failure_tried_again", "due_ms = None if permanent else self._due_again", "due_ms = self._due_again"),
    ("backoff_before_the_instant", "return max(boot + backoff_ms(spec.retry.backoff, attempts, dispatch.run.id), earliest)", "return boot + backoff_ms(spec.retry.backoff, attempts, dispatch.run.id)"),
    ("words_of_a_stopped_handler_lost", 'message = f"{why}; {told}" if why and told else why or told', "message = why"),
)

WAITING = (
    ("early_after_its_instant", "early = near and not dispatch.run.delayed and dispatch.ready_ms > self._journal.now_ms", "early = near and not dispatch.run.delayed"),
    ("dispatch_timeout_begins_at_each_look", "dispatch.waits_ms + timeout_ms)", "journal.boot_ms + timeout_ms)"),
    ("delayed_run_waits_twice", "                return\n        if dispatch.place is not QUEUED:", "                pass\n        if dispatch.place is not QUEUED:"),
)

OVERLAP = (
    ("runs_of_one_request_not_counted", "            before[key] = before.get(key, 0) + 1\n", ""),
    ("group_kept_when_all_have_left", "                self._groups.pop(group.key, None)\n", "                pass\n"),
    ("who_waited_is_not_told_after_an_edit", "admitted = [run for run in runs if not run.held and run.number in waited]", "admitted = []",
     "they are runs of the task that was edited, all of which the engine looks at anyway"),
    ("ended_one_still_waits", "        group.held.pop(run.number, None)\n        return self._fill", "        return self._fill"),
    ("escapes_of_a_pointer_read_in_the_wrong_order", 'part.replace("~1", "/").replace("~0", "~")', 'part.replace("~0", "~").replace("~1", "/")'),
    ("keys_of_two_namespaces_counted_together", "return (spec.namespace, pointer, msgspec", 'return ("", pointer, msgspec'),
    ("backfills_counted", "if limit is None or run.execution.retroactive:", "if limit is None:"),
    ("unknown_ones_forbid", "return Verdict.WAIT if unknown and admitted + held + before < limit else Verdict.SKIP", "return Verdict.SKIP"),
)

BACKFILLING = (
    ("cancelled_backfill_waits_for_the_sweep", "        self.advance(run)\n\n    def ended", "        pass\n\n    def ended"),
    ("one_more_at_a_time", "            while backfill.has_room:", "            while not backfill.is_through:",
     "a step that has room for no run does nothing"),
    ("cancelled_backfill_goes_on", "        if run.cancelling is None:\n            entry", "        if True:\n            entry"),
    ("cancelled_backfill_is_a_success", "        if run.cancelling is not None:\n            self._journal", "        if False:\n            self._journal"),
    ("first_instant_of_the_span_left_out_of_the_count", "trigger.count_between(command.from_ms - 1, command.to_ms - 1, self._config.max_backfill + 1)", "trigger.count_between(command.from_ms, command.to_ms - 1, self._config.max_backfill + 1)"),
    ("future_is_backfilled", "if command.to_ms > self._journal.now_ms:", "if False:"),
    ("backfill_asked_for_twice", "        if known is not None:\n            state = known.state", "        if False:\n            state = known.state"),
)

REQUESTS = (
    ("asked_while_the_catalog_is_unknown", "        if not self._scheduler.synced:\n            reason, detail", "        if False:\n            reason, detail"),
    ("known_run_refused_by_its_policy", "            if keyed_run_id(spec.uid, wanted.key) not in self._state.keys:\n                first", "            if True:\n                first"),
    ("delayed_run_judged_at_once", "[wanted.parameters for wanted in first.values() if not wanted.delay_ms]", "[wanted.parameters for wanted in first.values()]"),
    ("delayed_run_goes_to_the_tail", "            wanted.front,\n", "            False,\n"),
    ("ended_run_cannot_be_cancelled_twice", "                if ended.run_id == run_id:", "                if False:"),
)

CORE = (
    ("catalog_said_together_leases_nothing", "            handlers[type(command)](command, effects)\n        self.leasing.deal(effects)", "            handlers[type(command)](command, effects)"),
    ("task_that_is_mended_counts_late", "admitted = self.overlaps.regroup(runs, lambda", "self.overlaps.regroup([], lambda"),
    ("restored_clock_forgotten", "        snapshot.load(self.state, chunks)\n        self._replayed_ms = self.state.clock_ms", "        snapshot.load(self.state, chunks)"),
    ("deleted_task_begins_runs_while_it_ends", "            self.scheduler.pause(command.uid)  # the end of one run must not begin another\n", ""),
    ("delay_that_is_over_replaces_nobody", "        return self._enters(run)\n\n    def _hear", "        self.overlaps.enter(run, self._spec_of(run))\n        return not run.held\n\n    def _hear"),
)

SCHEDULER = (
    ("dates_of_a_calendar_unheard", "redated = not rearmed and before.source != spec.source", "redated = False"),
    ("invalid_task_has_no_followers", "        else:\n            self._kept.add(uid)\n        if entry is None:", "        elif entry is None:\n            self._kept.add(uid)\n        if entry is None:"),
    ("invalid_follower_counts_nothing", "            self.starters.of(entry.spec.source).hear(entry)  # what it lets pass is counted\n", "            pass\n"),
    ("new_task_of_a_watched_kind_unheard", "            entry.task = self._state.tasks[number]\n            self.watch(entry)", "            entry.task = self._state.tasks[number]"),
    ("limit_of_a_task_ignored_by_its_schedule", "            elif spec.overlap.max_concurrent is None:\n", "            elif True:\n"),
    ("edit_names_no_task", "        if self.synced and (rearmed or before.generation != spec.generation):", "        if False:"),
)

CLOCK = (
    ("settled_ahead_holds_others_back", "since = min(entry.watermark_ms, now)", "since = entry.watermark_ms",
     "who joins a group that sleeps too long wakes it earlier, and who is ahead takes no part in what it fires"),
    ("late_burst_is_a_misfire", "seen = self._noticed_ms if self._noticed_ms is not None and instant <= self._noticed_ms else now", "seen = now"),
    ("search_that_gave_up_wakes_nobody", "            self._scheduler.overdue.add(group.entries, nothing_until_ms=group.at_ms)  # woken late\n", "            pass\n"),
    ("next_instant_passed_over", "            self._sleep(group, group.trigger.next_after(instant))\n\n    def _fire_due", "            self._sleep(group, group.trigger.next_after(instant + 1_000))\n\n    def _fire_due"),
    ("overdue_one_fires_with_the_others", "        return [e for e in entries if e not in overdue] if overdue else entries", "        return entries"),
)

FIXED_DELAY = (
    ("delay_fires_at_an_instant_ahead", "max(watermark + 1, min(delay.instant_ms, now))", "delay.instant_ms"),
    ("delay_beside_an_open_run", "            if any(run.origin is Origin.SCHEDULE for run in task.runs.values()):\n                return None\n", ""),
    ("each_end_begins_the_delay", "if entry is not None and run.origin is Origin.SCHEDULE:", "if entry is not None:",
     "where no run of its schedule is open it sleeps already, and it sleeps on one delay at a time"),
    ("delay_measured_by_a_clock_that_went_back", "return journal.wall_ms if instant_ms <= journal.wall_ms else journal.now_ms", "return journal.wall_ms"),
    ("misfire_policy_of_a_delay_ignored", "        if settlement.fire:\n", "        if True:\n"),
)

COMPLETION = (
    ("nobody_hears_when_the_last_follower_left", "            del self._followers[key]\n            self._watch(key)", "            del self._followers[key]"),
)
