"""The mutants of the engine: what it decides. `mutants.py` says how they work."""

from __future__ import annotations

# ruff: noqa: E501
# fmt: off

__all__ = ["BACKFILLING", "CLOCK", "COMPLETION", "CORE", "EDITS", "FAILURES", "FIXED_DELAY", "LEASING", "OVERDUE", "OVERLAP", "QUEUES", "REQUESTS", "RETRY", "ROUTING", "SCHEDULER", "SUCCESSION", "WAITING"]  # fmt: skip

LEASING = (
    ("late_pull_of_a_replaced_process_taken", "if successor := self._succession.successor(command.worker):", 'if successor := "":'),
    ("attempts_of_a_predecessor_kept", "            if other != number:\n", "            if other == -1:\n"),
    ("any_end_of_a_pod_is_that_of_its_worker", 'if worker is not None and is_meant(command, worker.name):', 'if worker is not None:'),
    ("the_end_of_an_unknown_worker_unheard", '            if is_meant(command, self._state.workers[number]):', '            if False:'),
    ("pull_of_a_lost_worker_not_answered", "        self._answer(worker, [], effects)\n        self._router.leave(worker)",
     "        self._router.leave(worker)"),
    ("not_sent_again_after_a_takeover", "command.received < worker.last_token or worker.last_token == 0",
     "command.received < worker.last_token"),
    ("sent_again_what_was_received", "if d.token > command.received]", "if d.token >= command.received]"),
    ("a_draining_worker_gets_work", "credit = 0 if command.worker.draining else min(", "credit = min("),
    ("more_leases_than_a_pull_may_get", "min(command.free, self._config.max_leases_per_pull)", "command.free"),
    ("time_of_a_pull_by_the_held_clock", "max(0, command.until_ms - self._journal.wall_ms)",
     "max(0, command.until_ms - self._journal.now_ms)"),
    ("renewed_lease_by_the_wall_clock", "max(self._journal.boot_ms, dispatch.starts_boot_ms) + self._config.lease_ms",
     "max(self._journal.now_ms, dispatch.starts_boot_ms) + self._config.lease_ms"),
    ("lease_of_an_early_start_too_short", "max(self._journal.boot_ms, dispatch.starts_boot_ms) + self._config.lease_ms",
     "self._journal.boot_ms + self._config.lease_ms"),
    ("broken_pull_kept_open", "        if worker is not None and worker.request == command.request:\n            self._gathered.pop",
     "        if False and worker is not None:\n            self._gathered.pop"),
    ("gathered_leases_given_to_the_next_pull", "            self._gathered.pop(worker, None)  # sent again with the next pull\n", ""),
    ("gathered_leases_dropped", "deliveries = self._gathered.pop(worker, deliveries)", "self._gathered.pop(worker, None)"),
    ("a_waiting_worker_not_told_to_stop",
     "deliveries=deliveries, cancel=worker.take_cancelled()))\n        self._stop_waiting(worker)",
     "deliveries=deliveries))\n        self._stop_waiting(worker)"),
    ("silence_from_the_pull_on", "        worker.seen_ms = self._journal.boot_ms\n        self._router.stop_waiting(worker)",
     "        self._router.stop_waiting(worker)"),
    ("reserved_for_a_pull_that_is_gone_and_forgotten", "                self._waiting.ready(dispatch)\n        for worker", "                pass\n        for worker"),
    ("forgotten_worker_not_named_again", "if worker.number not in state.workers:", "if not worker.number:"),
    ("early_lease_ends_early", "dispatch.lease_until_ms = until + ahead", "dispatch.lease_until_ms = until"),
    ("early_start_not_noted", "dispatch.starts_boot_ms = journal.boot_ms + ahead\n", "dispatch.starts_boot_ms = 0\n"),
    ("parameters_of_a_run_ignored", "merge(spec.parameters, run.parameters) if run.parameters else", "spec.parameters if run.parameters else"),
    ("attempt_counts_from_the_run", "run.scheduled_ms, dispatch.attempts, parameters", "run.scheduled_ms, run.attempts, parameters"),
    ("last_words_of_a_replaced_process_taken", '        if self._succession.successor(command.worker):\n            self._fence_all', '        if False:\n            self._fence_all'),
    ("token_named_twice_ends_the_engine", "self._succeed(list(dict.fromkeys(done)))", "self._succeed(done)"),
    ("success_of_a_foreign_token_taken",
     "            if dispatch is None or dispatch.worker != number:\n                fenced.append(token)\n            else:",
     "            if dispatch is None:\n                fenced.append(token)\n            else:"),
    ("token_given_back_twice", "for t in dict.fromkeys(command.returned) if", "for t in command.returned if"),
    ("given_back_and_to_stop_waits_again", "                if dispatch.run.cancelling is None:\n                    self._waiting",
     "                if True:\n                    self._waiting"),
    ("renewal_not_told_to_stop", "if dispatch.run.cancelling is not None and dispatch.token:", "if False:"),
    ("leaving_unheard", "        if command.leaving:\n", "        if False:\n"),
    ("overdue_attempt_renewed_for_ever", "if limit is not None and now > begun +", "if False and limit is not None and now > begun +"),
    ("overdue_from_the_wall_clock", "begun = max(dispatch.leased_boot_ms, dispatch.starts_boot_ms)",
     "begun = max(dispatch.leased_ms, dispatch.starts_boot_ms)"),
    ("asked_to_stop_twice", "        if run.cancelling is not None:\n            return\n        self._journal.emit(f.CancelAsked(run.number, why))",
     "        self._journal.emit(f.CancelAsked(run.number, why))"),
    ("worker_not_told_to_stop", "        self._journal.emit(f.CancelAsked(run.number, why))\n        self._tell(held, effects)",
     "        self._journal.emit(f.CancelAsked(run.number, why))"),
    ("another_process_told_to_stop", "if worker is not None and worker.number == number:", "if worker is not None:"),
    ("pull_waits_for_ever", "                    if now >= worker.until_ms:", "                    if False:"),
    ("silent_worker_kept", "elif now - worker.seen_ms > max(", "elif False and now - worker.seen_ms > max("),
    ("busy_worker_silent_too_soon", "max(pool.silence_ms, self._config.lease_ms // 2)", "pool.silence_ms // 2"),
    ("expired_lease_kept", "if d.lease_until_ms < now]", "if d.lease_until_ms < 0]"),
    ("unused_pools_kept", "        self._router.drop_unused()\n        expired", "        expired"),
    ("attempts_lost_at_a_takeover",
     "        dispatch.lease_until_ms = self._lease_end(dispatch)\n        dispatch.leased_boot_ms = boot", "        dispatch.leased_boot_ms = boot"),
    ("time_of_an_attempt_unknown_after_a_takeover",
     "        dispatch.lease_until_ms = self._lease_end(dispatch)\n        dispatch.leased_boot_ms = boot",
     "        dispatch.lease_until_ms = self._lease_end(dispatch)"),
    ("instant_of_an_early_lease_unknown_after_a_takeover", "dispatch.starts_boot_ms = boot + min(ahead_ms, _LONGEST_AHEAD_MS)", "pass"),
    ("stale_pull_taken", "        if self._is_outrun(command):", "        if False:"),
    ("pulls_not_counted", "        worker.last_pull = command.sequence\n", ""),
    ("asked_to_stop_by_the_leader_before_unheard", "if d.run.cancelling is not None]\n        worker.seen_ms", "if False]\n        worker.seen_ms"),
    ("ends_of_watched_runs_in_one_fact", "if attempts[token].run.task.watched]", "if False]"),
    ("jitter_of_an_early_lease_unknown_after_a_takeover", "dispatch.attempts - 1)\n        ahead_ms", "dispatch.attempts)\n        ahead_ms"),
)  # fmt: skip

FAILURES = (
    ("failed_attempt_waits_nowhere", "            dispatch.due_boot_ms = due_ms\n            self._waiting.ready(dispatch)", "            dispatch.due_boot_ms = due_ms"),
    ("retry_measured_by_the_wall_clock", "            dispatch.due_boot_ms = due_ms\n            self._waiting", "            self._waiting"),
    ("lost_early_lease_starts_at_once", "earliest = max(boot, dispatch.due_boot_ms or 0)", "earliest = boot"),
    ("instant_of_a_lost_early_lease_forgotten", "return max(instant_ms, dispatch.ready_ms) if", "return instant_ms if"),
    ("timeout_taken_for_an_error", "f.FailureReason.TIMEOUT if failed.timeout else f.FailureReason.ERROR", "f.FailureReason.ERROR"),
    ("error_text_unbounded", "traceback=failed.traceback[-limit:]", "traceback=failed.traceback"),
    ("failed_while_to_stop_is_tried_again",
     "        if dispatch.run.cancelling is not None:\n            self._stopped(dispatch, dispatch.run.cancelling, message)\n",
     "        if False:\n            self._stopped(dispatch, dispatch.run.cancelling, message)\n"),
    ("text_of_a_retried_failure_stored", 'message, traceback = message[:500], ""', "message = message"),
    ("one_delivery_too_few", "if attempts > spec.retry.limit or", "if attempts >= spec.retry.limit or"),
    ("at_most_once_tried_again", "if attempts > spec.retry.limit or spec.guarantee is Guarantee.AT_MOST_ONCE:",
     "if attempts > spec.retry.limit:"),
    ("backoff_for_a_lost_worker", "if reason is f.FailureReason.LOST:\n            return earliest", "if False:\n            return earliest"),
)  # fmt: skip

WAITING = (
    ("held_run_keeps_its_timer", "            self._disarm(dispatch)\n            self.block(dispatch)\n            return", "            self.block(dispatch)\n            return"),
    ("timer_of_an_ended_run_kept", "nothing wakes it.\"\"\"\n        self._disarm(dispatch)\n", "nothing wakes it.\"\"\"\n"),
    ("ended_run_keeps_its_place_in_the_queue", "        self._disarm(dispatch)\n        self._router.leave_place(dispatch)\n", "        self._disarm(dispatch)\n"),
    ("waits_for_a_task_that_nobody_knows",
     "            for other in self._scheduler.overlaps.leave(run, lambda run: self._scheduler.spec(run.task)):\n                for blocked in other.dispatches:\n                    self.ready(blocked)\n", ""),
    ("wait_by_the_wall_clock", "dispatch.due_boot_ms = journal.boot_ms + start_ms - journal.now_ms", "dispatch.due_boot_ms = start_ms"),
    ("wait_for_a_worker_begins_again",
     "        if dispatch.place is not QUEUED:\n            dispatch.waits_ms = journal.boot_ms", "        dispatch.waits_ms = journal.boot_ms"),
    ("jitter_at_each_attempt", "if not spec.jitter_ms or before or run.origin not in", "if not spec.jitter_ms or run.origin not in"),
    ("jitter_for_runs_that_were_asked_for", "or before or run.origin not in (Origin.SCHEDULE, Origin.COMPLETION)", "or before"),
    ("timer_of_a_leased_run_kept", '"""It waits no more: a worker has it."""\n        self._disarm(dispatch)\n', '"""It waits no more: a worker has it."""\n'),
    ("undelivered_once_too_often", "retry_ms = 0 if dispatch.attempts + 1 > spec.retry.limit else now", "retry_ms = 0 if dispatch.attempts > spec.retry.limit else now"),
    ("clock_of_the_next_delivery_not_set",
     "            dispatch.waits_ms = self._journal.boot_ms\n            self.ready(dispatch)", "            self.ready(dispatch)"),
    ("delayed_runs_leased_early", "early = near and not dispatch.run.delayed and", "early = near and"),
    ("sleeps_past_the_lead", "self._arm(dispatch, due if near else due - self.lead_ms)", "self._arm(dispatch, due)"),
    ("two_timers", '"""Set its timer anew; None: it needs none."""\n        self._disarm(dispatch)\n', '"""Set its timer anew; None: it needs none."""\n'),
)  # fmt: skip

ROUTING = (
    ("stays_in_the_other_queue", "        self._leave(dispatch)\n        queue.enqueue(dispatch)", "        queue.enqueue(dispatch)"),
    ("counted_aside_in_two_pools", "            self._leave(dispatch)\n            dispatch.where = pool", "            dispatch.where = pool"),
    ("reserved_and_waiting", "        self._leave(dispatch)\n        self._reserved.setdefault", "        self._reserved.setdefault"),
    ("early_lease_costs_no_credit", "        dispatch.place, dispatch.where = Place.RESERVED, worker\n        self._spend(worker, queue)\n", "        dispatch.place, dispatch.where = Place.RESERVED, worker\n"),
    ("credit_not_given_back", "        worker.credit += 1\n", ""),
    ("given_back_and_offered_to_nobody", '        worker.free += 1\n        self._offer(worker)\n', '        worker.free += 1\n'),
    ("handlers_of_a_lost_worker_counted", "        self._set_handlers(worker, ())\n", ""),
    ("new_handlers_unheard", "        if seen.handlers != worker.handlers:", "        if not worker.handlers:"),
    ("answered_worker_stays_in_the_ring", "        if worker.credit or worker.request is not None:\n", "        if False:\n"),
    ("early_lease_overtakes", "        if queue is None or queue.due:\n", "        if queue is None:\n"),
    ("backfill_takes_the_last_slot", "waiting if queue.due else filter(has_slots_to_spare, waiting)", "waiting"),
    ("free_slots_not_counted", "        worker.free -= 1\n", ""),
    ("always_the_same_worker", "        del waiting[worker]\n        worker.credit -= 1\n        worker.free -= 1\n        if worker.credit:\n            waiting[worker] = None\n        else:\n",
     "        worker.credit -= 1\n        worker.free -= 1\n        if not worker.credit:\n            waiting.pop(worker)\n"),
    ("early_for_a_clock_that_is_far_off", "            and abs(seen.clock_offset_us) <= self._early_offset_us\n", ""),
    ("new_work_not_dealt", "        queue.enqueue(dispatch)\n        if queue.waiting:\n            self._ready[queue] = None", "        queue.enqueue(dispatch)"),
    ("waiting_work_not_dealt_to_a_new_pull", "            if queue.due or queue.retroactive or (queue.ahead and worker.early):", "            if queue.due:"),
    ("pool_with_work_forgotten", "if not (pool.declared or pool.workers or pool.unleased())]", "if not (pool.declared or pool.workers)]"),
)  # fmt: skip

QUEUES = (
    ("ahead_in_another_queue", "            if dispatch.where is self and dispatch.place is Place.EXPECTED:\n", "            if True:\n"),
    ("front_is_the_tail", "self.due.appendleft(dispatch)", "self.due.append(dispatch)"),
    ("backfills_go_first", "for queue in (self.due, self.retroactive):\n            while", "for queue in (self.retroactive, self.due):\n            while"),
    ("withdrawn_work_counted", 'has left: its entry is stale."""\n        self.pool.waits -= 1\n',
     'has left: its entry is stale."""\n'),
    ("what_is_aside_not_counted", "return self.waits + self.aside", "return self.waits"),
    ("queue_dropped_with_work", "if not self.workers and self._entries() == self.stale:", "if not self.workers:"),
)  # fmt: skip

OVERLAP = (
    ("overtakes_those_that_wait", "< limit and not group.held:", "< limit:"),
    ("verdict_overlooks_those_that_wait", "free = 0 if held else max(0, limit - admitted - unknown)", "free = max(0, limit - admitted - unknown)"),
    ("replaces_one_too_few", "surplus = len(group.admitted) - limit + 1", "surplus = len(group.admitted) - limit"),
    ("replaces_those_that_stop_already", "oldest[: max(0, surplus - stopping)]", "oldest[:surplus]"),
    ("replaced_ones_still_wait", "return superseded + oldest", "return oldest"),
    ("one_more_may_wait", "Verdict.FULL if held + before - free >= overlap.queue_limit else", "Verdict.FULL if held + before - free > overlap.queue_limit else"),
    ("unknown_attempts_not_counted", "return 0 if unknown is None else len(unknown.admitted)", "return 0"),
    ("held_by_a_worker_and_not_admitted", "run.held = not run.is_leased\n", "run.held = True\n"),
    ("order_of_those_that_wait_lost_at_a_takeover", "(not item[1].attempts, item[0])", "-item[0]"),
    ("one_more_admitted", "+ self._count_unknown(group.key) >= limit:\n                break", "+ self._count_unknown(group.key) > limit:\n                break"),
    ("retries_admitted_after_those_that_wait", "key=lambda item: (not item[1].attempts, item[0])", "key=lambda item: item[0]"),
    ("unknown_attempts_count_in_every_namespace", "        unknown = self._unknown.get(key[0])\n        return 0 if", "        unknown = next(iter(self._unknown.values()), None)\n        return 0 if"),
    ("newest_replaced_first", "oldest = [other for other in group.admitted.values() if other.cancelling is None]", "oldest = [other for other in reversed(group.admitted.values()) if other.cancelling is None]"),
)  # fmt: skip

BACKFILLING = (
    ("runs_of_a_cancelled_backfill_go_on", "if other.parent == run.number]", "if other.parent == -1]"),
    ("open_runs_of_another_backfill_ignored", "        undecided = self._undecided(run, until)\n", "        undecided = _NEVER_MS\n"),
    ("backfill_while_held", "if self._scheduler.held or self._scheduler.is_full(entry.spec) or not", "if self._scheduler.is_full(entry.spec) or not"),
    ("backfill_of_an_invalid_task", "            if entry is None or entry.paused:\n", "            if entry is None:\n"),
    ("backfill_not_resumed", "if isinstance(run.execution, Backfill)}\n        self.nudge()", "if False}\n        self.nudge()"),
    ("known_instants_not_counted", "known += trigger.count_between(until, covered - 1, self._config.max_backfill)", "known += 0"),
    ("backfill_ends_with_open_runs", "        if backfill.open:\n            return\n", ""),
    ("last_instant_of_the_span_left_out", "until, last, known = backfill.until_ms, backfill.to_ms - 1, 0", "until, last, known = backfill.until_ms, backfill.to_ms - 2, 0"),
    ("end_of_a_backfilled_run_unheard", "        for run in [run for run in self._open.values() if run.task is child.task]:\n            self.advance(run)", "        pass"),
    ("instant_that_is_not_covered_passed_over", "covered > instant:", "covered >= instant:"),
    ("room_for_open_ones_counted", "room = min(backfill.max_parallel - backfill.open, _AT_ONCE)", "room = min(backfill.max_parallel, _AT_ONCE)"),
    ("open_runs_of_another_backfill_not_awaited", "if o.task is run.task and o is not run}", "if False}"),
)  # fmt: skip

REQUESTS = (
    ("known_key_made_again", "            if known is not None:\n                answers.append", "            if False:\n                answers.append"),
    ("refused_by_backlog_too_late", "if backlog + len(runs) > self._config.max_backlog:", "if backlog > self._config.max_backlog + len(runs):"),
    ("submission_of_an_unknown_task_ends_the_engine", "            if entry is None:\n                reason = m.RefusalReason.NO_SUCH_TASK", "            if False:\n                reason = m.RefusalReason.NO_SUCH_TASK"),
)  # fmt: skip

CORE = (
    ("ended_run_keeps_its_place", "                self.waiting.drop(dispatch)\n", "                pass\n"),
    ("clock_of_facts_goes_back", "journal.now_ms = max(now_ms, journal.now_ms)", "journal.now_ms = now_ms"),
    ("boot_clock_goes_back", "journal.boot_ms = max(now_ms if boot_ms is None else boot_ms, journal.boot_ms)", "journal.boot_ms = now_ms if boot_ms is None else boot_ms",
     "no clock that `runtime` gives goes back, and the driver's does not"),
    ("timer_of_before_heard", "            elif payload.timer is timer:", "            else:"),
    ("sweeps_before_the_catalog_is_known", "            if self.scheduler.synced:\n                self.leasing.sweep", "            if True:\n                self.leasing.sweep"),
    ("backfills_not_nudged", "                self.backfills.nudge()\n", ""),
    ("pull_that_does_not_wait_not_answered", "if isinstance(command, m.Pull) and command.until_ms <= now_ms:", "if False:"),
    ("delays_not_waited_for", "pause = min(pause, end - boot_ms)", "pass"),
    ("instants_not_waited_for", "pause = min(pause, instant - now_ms)", "pass"),
    ("sweep_not_waited_for", "pause = self._next_sweep_ms - boot_ms", "pause = 10**9"),
    ("delayed_run_counted_at_once", "            run.delayed = True\n        elif", "            run.delayed = False\n        elif"),
    ("delayed_run_starts_whatever_is_open", "        if verdict in (Verdict.SKIP, Verdict.FULL):", "        if False:"),
    ("news_of_the_replay_heard", "            self.state.news.clear()\n", "",
     "a fold watches no task and gives no place, so that only ends of backfilled runs are kept; a backfill that is advanced once more does nothing"),
    ("unknown_attempts_not_doubted", "                    self.overlaps.doubt(run)\n", "                    pass\n"),
    ("backfills_forgotten_at_a_takeover", "            self.backfills.resume()\n", ""),
    ("nobody_admitted_after_an_end", "                    if admitted.number in state.runs:\n                        self._ready(admitted)", "                    pass"),
    ("early_leases_of_a_leader_that_has_just_begun", "run.delayed = run.origin is Origin.REQUEST and not run.attempts and undecided", "run.delayed = False"),
)  # fmt: skip

SCHEDULER = (
    ("follows_into_a_full_pool", "            return f.SkipReason.BACKLOG\n", "            pass\n"),
    ("fires_into_a_full_pool", "            if self.is_full(spec):\n                self.skip(task, scheduled_ms", "            if False:\n                self.skip(task, scheduled_ms"),
    ("overlapping_instant_not_counted", "            self.skip(task, scheduled_ms, 1, reason)", "            pass"),
    ("settled_again_after_an_edit", '        self.overdue.entries.pop(entry, None)\n', ''),
    ("deleted_task_is_never_asked_for", "                    self.unheard.add(task.uid)", "                    pass"),
    ("unheard_of_is_taken_for_gone", "                    self.unheard.add(task.uid)", "                    self._journal.emit(f.TaskForgotten(task.number))"),
    ("watch_of_a_limit_forgotten", "                spec.overlap.max_concurrent is not None\n                or self.starters.of", "                self.starters.of",
     "its ends are in one fact then, and each is heard all the same, since the run is in a group: to admit others is no fact"),
)  # fmt: skip

CLOCK = (
    ("fires_while_held", '        if self._scheduler.held:\n', '        if False:\n'),
    ("starting_deadline_ignored", "late = [e for e in entries if e.spec.misfire.is_too_late(late_ms)]", "late = []"),
    ("fires_ahead_whatever_is_open", "if self._scheduler.overlaps.verdict(e.spec, b\"\") is Verdict.START", "if True"),
    ("suspended_task_armed", "        if entry.spec.suspend or trigger is None:\n            return\n        # From", "        if trigger is None:\n            return\n        # From"),
    ("joins_without_an_earlier_timer", "        if until_ms is None or (following is not None and following < until_ms):", "        if until_ms is None:"),
    ("empty_group_kept_armed", "            self._wheel.cancel(group)\n", ""),
    ("burst_forgets_those_that_joined", "            burst.undecided = True  # it fires", "            pass  # it fires"),
    ("not_rearmed_when_the_intake_opens", '                self._sleep(group, group.trigger.next_after(self._journal.wall_ms))\n', '                pass\n'),
)  # fmt: skip

FIXED_DELAY = (
    ("fixed_delay_fires_while_held", '        if self._scheduler.held:\n', '        if False:\n'),
    ("delay_from_the_watermark_only", "instant = max(last_ended_ms, entry.watermark_ms,", "instant = max(entry.watermark_ms,"),
    ("delay_not_cancelled_on_leaving", "            self._wheel.cancel(delay.timer)\n", "            pass\n"),
    ("delay_of_a_suspended_task", "if spec.suspend or entry.paused or spec.uid in self._delays:", "if spec.uid in self._delays:"),
)  # fmt: skip

COMPLETION = (
    ("followers_of_backfills", "        if run.execution.retroactive:\n            return", "        if False:\n            return"),
    ("follows_while_suspended", "        if spec.suspend:\n            return f.SkipReason.SUSPENDED\n", ""),
    ("follows_while_invalid", "        if entry.paused:\n            return f.SkipReason.STALLED\n", ""),
)  # fmt: skip

EDITS = (
    ("armed_back", "settled_ms = max(self._journal.wall_ms, task.watermark_ms)", "settled_ms = self._journal.wall_ms"),
)  # fmt: skip

OVERDUE = (
    ("settles_while_held", "if self._scheduler.held or entry not in self.entries:", "if entry not in self.entries:"),
    ("overdue_without_room", "if (surplus := len(fire) - room) > 0:", "if (surplus := 0) > 0:"),
    ("oldest_overdue_win", "            fire = fire[surplus:]\n", "            fire = fire[:-surplus]\n"),
    ("surplus_not_counted", "fire[surplus - 1], surplus, reason)", "fire[surplus - 1], 1, reason)"),
    ("earliest_instants_win", "fire = fire[surplus:]", "fire = fire[:room]"),
)  # fmt: skip

SUCCESSION = (
    ("earlier_process_taken_for_the_later", "return own < number", "return own > number"),
    ("ended_process_taken_for_a_successor", "                and self._state.attempts_of(number)\n", ""),
    ("end_of_another_pod_heard", "gone.pod_uid != process.pod_uid:", "False:"),
    ("end_of_a_later_process_heard", "process.started_ms < gone.before_ms", "True"),
    ("process_of_the_same_start_is_a_successor", "return 0 < seen.started_ms < started_ms", "return 0 < seen.started_ms <= started_ms"),
)  # fmt: skip

RETRY = (
    ("backoff_one_step_ahead", "min(attempts - 1, _MOST_DOUBLINGS)", "min(attempts, _MOST_DOUBLINGS)"),
    ("backoff_without_its_bound", ", backoff.max_ms)\n", ", 1 << 60)\n"),
    ("backoff_without_jitter", "    if backoff.jitter:\n", "    if False:\n"),
    ("backoff_may_overflow", "min(attempts - 1, _MOST_DOUBLINGS)", "(attempts - 1)"),
)  # fmt: skip
