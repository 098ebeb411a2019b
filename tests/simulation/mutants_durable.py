"""The mutants of what is durable, and of who may write it: state, checkpoints, ledger, election, runtime.

`mutants.py` says how they work.
"""

from __future__ import annotations

# ruff: noqa: E501
# fmt: off

__all__ = [
    "BACKFILL", "CHECKPOINTS", "CODEC", "COMPACTION", "COVERED", "DETAILS", "ELECTOR", "LEADERSHIP", "LOG", "PARTITION", "REPLAY", "SNAPSHOT", "SPLITTING",
    "STATE", "TERM",
]  # fmt: skip

STATE = (
    ("given_back_and_counted", "            dispatch.attempts -= 1\n", ""),
    ("early_lease_given_back_starts_at_once", "dispatch.ready_ms = max(self.clock_ms, dispatch.ready_ms)", "dispatch.ready_ms = self.clock_ms"),
    ("two_workers_get_one_run", "            if not run.dispatches or run.dispatches[0].token:\n                raise KeyError(number)", "            if not run.dispatches:\n                raise KeyError(number)",
     "the engine never leases what is leased: only a corrupt log does, which `ledger verify` folds"),
    ("spans_of_another_trigger_kept", "            task.backfilled = ()  # another", "            pass  # another"),
    ("key_of_an_open_run_forgotten", "                keys[oldest] = known\n", "                pass\n"),
    ("last_end_not_kept", "            task.last_ended_ms = self.clock_ms\n", "            pass\n"),
    ("watermark_goes_back_with_a_skip", "        if fact.until_ms > task.watermark_ms:\n            task.watermark_ms = fact.until_ms\n        self", "        task.watermark_ms = fact.until_ms\n        self"),
    ("watermark_goes_back_with_a_run", "            if scheduled > task.watermark_ms:\n                task.watermark_ms = scheduled", "            task.watermark_ms = scheduled"),
    ("number_of_a_worker_given_again", "self.next_worker = max(self.next_worker, fact.worker + 1)", "pass"),
    ("undelivered_not_counted", "        dispatch.attempts += 1\n        if fact.retry_ms", "        if fact.retry_ms"),
    ("details_of_a_forgotten_task_counted", "        for ended in (*task.history_succeeded, *task.history_failed):\n            self.details.forget(ended)\n", ""),
    ("end_of_a_watched_run_untold", "run.dispatches, task.watched or run.parent or", "run.dispatches, run.parent or"),
    ("cancelled_attempt_stays_open", "                self._close_attempt(dispatch.token)\n", "                pass\n"),
    ("index_of_attempts_keeps_the_ended", "        del held[token]\n", ""),
    ("ready_ms_of_an_early_run_lost", "ready = max(scheduled, now)", "ready = now"),
    ("ahead_of_others_forgotten", "        run.front = fact.front\n", ""),
)  # fmt: skip

BACKFILL = (
    ("failed_backfilled_run_counts_as_made_up_for", "            run.task.backfilled = uncovered(run.task.backfilled, run.scheduled_ms)\n", "            pass\n"),
    ("backfilled_run_without_its_parameters", "        run.parameters = whole.parameters\n", ""),
    ("backfill_does_not_count_what_was_known", "    backfill.succeeded += fact.known\n", ""),
    ("backfill_that_failed_is_a_success", "    if backfill.failed:\n", "    if False:\n"),
    ("end_of_a_backfilled_run_not_counted", "        self.open -= 1\n", ""),
    ("backfill_restored_as_if_none_were_open", "row.until_ms, row.open\n", "row.until_ms, 0\n"),
)  # fmt: skip

DETAILS = (
    ("details_never_dropped", "return self._oldest() if self.bytes > self.max_bytes else []", "return []"),
)  # fmt: skip

COVERED = (
    ("touching_spans_not_joined", "        if high < from_ms or low > to_ms:", "        if high <= from_ms or low >= to_ms:"),
    ("uncovers_one_too_many", "((low, instant_ms), (instant_ms + 1, high))", "((low, instant_ms), (instant_ms + 2, high))"),
    ("spans_unbounded", "return tuple(sorted([*apart, (from_ms, to_ms)])[-_MOST:])", "return tuple(sorted([*apart, (from_ms, to_ms)]))"),
)  # fmt: skip

SNAPSHOT = (
    ("checkpoint_without_cancels", "run.front, run.parent, run.cancelling,\n", "run.front, run.parent, None,\n"),
    ("checkpoint_without_parameters", "run.key, run.object_name, run.parameters,\n        run.started_ms, run.attempts, run.worker, *dispatch", "run.key, run.object_name, b\"\",\n        run.started_ms, run.attempts, run.worker, *dispatch"),
    ("checkpoint_without_last_ends", "        task.last_ended_ms, [(reason", "        0, [(reason"),
    ("checkpoint_without_spans", "        task.backfilled,\n    )", "        (),\n    )"),
    ("checkpoint_without_skips", "for reason, seen in (task.skips or {}).items()]", "for reason, seen in ()]"),
    ("checkpoint_without_history_of_failures", "list(task.history_succeeded), list(task.history_failed)", "list(task.history_succeeded), []"),
    ("checkpoint_without_starts", "        run.started_ms, run.attempts, run.worker, *dispatch,\n        run.origin", "        0, run.attempts, run.worker, *dispatch,\n        run.origin"),
    ("checkpoint_without_the_front", "        run.origin, run.front, run.parent", "        run.origin, False, run.parent"),
    ("checkpoint_without_the_next_token", "state.next_run, state.next_token, state.next_worker)\n        self._head", "state.next_run, 1, state.next_worker)\n        self._head"),
    ("checkpoint_with_the_states_of_ended_keys_as_they_come", "self._known = list(state.keys.values())", "self._known = state.keys.values()"),
    ("request_not_written_down_before", "case f.Armed() | f.Skipped() | f.Requested() | f.Recovered():", "case f.Armed() | f.Skipped() | f.Recovered():"),
    ("recovery_not_written_down_before", "case f.Armed() | f.Skipped() | f.Requested() | f.Recovered():", "case f.Armed() | f.Skipped() | f.Requested():"),
    ("firing_not_written_down_before", "                    self._tasks.keep(state.tasks[number])\n", "                    pass\n"),
    ("lease_not_written_down_before", "                for number in dispatches:\n                    self._runs.keep(state.dispatch_of(number).run)", "                pass"),
    ("return_not_written_down_before", "            case f.Succeeded(tokens=tokens) | f.Returned(tokens=tokens):", "            case f.Succeeded(tokens=tokens):"),
    ("cancel_not_written_down_before", "            case f.Cancelled() | f.CancelAsked():", "            case f.Cancelled():"),
    ("undelivered_not_written_down_before", "                self._run(state.dispatch_of(fact.dispatch).run)", "                pass"),
    ("progress_of_a_backfill_not_written_down_before", "                self._run(state.runs[fact.backfill])", "                pass"),
    ("backfill_of_an_ended_run_not_written_down_before", "            self._runs.keep(whole)\n", "            pass\n"),
    ("dropped_details_not_written_down_before", "        self._tasks.keep(task)\n\n    def _run", "        pass\n\n    def _run"),
    ("written_down_as_it_was_last", "if self._passed < number <= self._last and number not in self._kept:", "if self._passed < number <= self._last:"),
    ("written_down_too_late_for_the_next", "if self._passed < number <= self._last and", "if self._passed + 1 < number <= self._last and"),
    ("workers_that_hold_work_forgotten", "for number in state.workers if number not in used]", "for number in state.workers]"),
    ("workers_never_forgotten", "    for number in spare[:-_WORKER_MEMORY]:\n", "    for number in ():\n"),
    ("snapshot_never_ends", "        if self._state.watcher is self:\n            self._state.watcher = None", "        pass"),
)  # fmt: skip

SPLITTING = (
    ("second_half_of_a_split_lease_repeats_tokens", "fact.first_token + half, dispatches[half:]", "fact.first_token, dispatches[half:]"),
    ("second_half_of_a_split_firing_repeats_numbers", "fact.first_run + half, tasks[half:]", "fact.first_run, tasks[half:]"),
    ("split_success_loses_one", "[f.Succeeded(tokens[half:])]", "[f.Succeeded(tokens[half + 1 :])]"),
    ("split_return_loses_one", "[f.Returned(tokens[half:])]", "[f.Returned(tokens[half + 1 :])]"),
    ("divided_between_an_end_and_what_follows", "        free = not (bound and role is _Role.FOLLOWS)", "        free = True"),
    ("segment_larger_than_it_may_be", "    if len(body) <= max_bytes:", "    if len(body) <= 2 * max_bytes:"),
)  # fmt: skip

LOG = (
    ("may_fence_ignored", "                if not may_fence():", "                if False:"),
    ("refused_chunk_forgotten_though_it_may_arrive", "if segment.kind is SegmentKind.CHECKPOINT and not self._may_arrive:", "if segment.kind is SegmentKind.CHECKPOINT:"),
    ("head_seen_after_the_write", '            self._head_seen = tried\n', '            self._head_seen = self._clocks()\n'),
    ("head_seen_after_the_look", '        self._head_seen = now\n', '        self._head_seen = self._clocks()\n'),
    ("looks_too_late_before_writing", '            <= self._limits.epoch_keep_ms // 2\n', '            <= self._limits.epoch_keep_ms\n'),
    ("fence_below_a_rivals_checkpoint", "return not any(header.sequence > fence.sequence for header in await self._list())", "return True"),
    ("rival_of_the_same_epoch_taken_for_oneself", "return (found.epoch, found.nonce) == (mine.epoch, mine.nonce)", "return found.epoch == mine.epoch"),
    ("name_that_was_taken_and_is_gone_is_mine", "if found is None or not _same(found, segment):", "if found is not None and not _same(found, segment):"),
    ("lost_answer_not_looked_up", "                if found is None:\n                    await patience.wait(error)\n                    continue\n                if not _same", "                if found is None:\n                    return True\n                if not _same"),
    ("cancelled_write_surely_failed", "        except asyncio.CancelledError:\n            self._may_arrive = True\n            raise", "        except asyncio.CancelledError:\n            raise"),
    ("cancelled_write_forgotten", "        except asyncio.CancelledError:\n            self._may_arrive = True\n            raise", "        except asyncio.CancelledError:\n            self._unresolved = None\n            raise"),
    ("checkpoint_goes_around_what_is_unresolved", "                    if self._unresolved is not None:\n                        await self._write(self._unresolved)\n", ""),
    ("checkpoint_stands_for_one_more", "                        generation=stands_for + 1,", "                        generation=stands_for + 2,"),
    ("compacts_one_too_many", "            self._generation = stands_for + 1\n", "            self._generation = stands_for + 2\n"),
    ("deposed_and_goes_on", "        if self._deposed:\n            raise Deposed(self._deposed)", "        pass"),
    ("epoch_of_the_lease_ignored", "max((epoch_floor, *(header.epoch for header in headers))) + 1", "max((0, *(header.epoch for header in headers))) + 1"),
    ("gap_during_a_replay_is_corruption", "            if rival is None:\n                raise\n", "            raise\n"),
    ("two_calls_at_a_time", "        if self._busy:\n            raise", "        if False:\n            raise"),
    ("tail_not_counted_after_a_takeover", "            self._tail_segments = len(plan.tail) + 1\n", ""),
    ("facts_of_a_failed_append_dropped", "            async with self._lane:\n                written = await self._drain()", "            async with self._lane:\n                try:\n                    written = await self._drain()\n                except BaseException:\n                    self._backlog.clear()\n                    raise"),
    ("generation_one_too_low_after_a_checkpoint", "self._generation = stands_for + 1\n            self._tail", "self._generation = stands_for\n            self._tail"),
)  # fmt: skip

COMPACTION = (
    ("epochs_kept_by_age_only", "header.created_ms < oldest_ms and header.sequence not in newest)", "header.created_ms < oldest_ms)"),
    ("epochs_kept_by_number_only", "(header.created_ms < oldest_ms and header.sequence not in newest)", "header.sequence not in newest"),
    ("oldest_epochs_kept", "epochs[max(0, len(epochs) - self._limits.epochs_kept) :]}", "epochs[: self._limits.epochs_kept]}"),
    ("deletes_the_generation", "if sequence < generation]", "if sequence <= generation]"),
    ("refused_delete_counted_as_done", "                return False\n            for sequence", "                pass\n            for sequence"),
    ("tail_counts_what_a_checkpoint_stands_for", "if h.sequence >= generation and h.kind is SegmentKind.FACTS]", "if h.kind is SegmentKind.FACTS]"),
    ("first_segment_of_the_tail_not_counted", "h.sequence >= generation and", "h.sequence > generation and"),
)  # fmt: skip

REPLAY = (
    ("oldest_checkpoint_read", "newest = complete[-1] if complete else ()", "newest = complete[0] if complete else ()"),
    ("chunks_of_two_tries_mixed", "begun.setdefault((header.epoch, header.nonce), [])", "begun.setdefault((header.epoch, \"\"), [])"),
    ("half_a_checkpoint_read", "                if len(chunks) == header.chunks:", "                if len(chunks) == header.chunks - 1 or header.chunks == 1:"),
    ("gap_overlooked", "        if header.sequence != expected:", "        if False:"),
    ("epoch_may_repeat", "if epoch is not None and header.epoch <= epoch:", "if epoch is not None and header.epoch < epoch:"),
    ("facts_of_a_fenced_leader_read", "        elif header.epoch != epoch:", "        elif False:"),
    ("edited_segment_read", "        if listed != read:", "        if False:"),
    ("missing_segment_skipped", "    if segment is None:\n        raise", "    if False:\n        raise"),
)  # fmt: skip

CODEC = (
    ("checksum_not_looked_at", "    if crc != actual:", "    if False:"),
    ("checksum_of_the_content_only", "actual = zlib.crc32(stored, zlib.crc32(data[: _HEAD.size]))", "actual = crc if zlib.crc32(stored) else 0"),
    ("length_not_looked_at", "    if len(raw) != raw_bytes:", "    if False:"),
    ("version_not_looked_at", "    if version != wanted_version:", "    if False:"),
)  # fmt: skip

ELECTOR = (
    ("any_edit_is_a_sign_of_life", 'return msgspec.structs.replace(lease, version="", endpoint="") if lease else None', "return lease"),
    ("lease_over_too_soon", "self._clock.boot_ms() < self._changed_ms + found.duration_ms", "self._clock.boot_ms() < self._changed_ms + found.duration_ms // 2"),
    ("anothers_lease_released", "        if found is None or found.holder != self._identity:\n            return\n        now_ms", "        if found is None:\n            return\n        now_ms"),
    ("transitions_stand_still", "self._record(transitions=found.transitions + 1, version=found.version)", "self._record(transitions=found.transitions, version=found.version)"),
    ("lease_of_a_cancelled_try_kept", "        if self._may_hold:\n            self._may_hold = False\n            with", "        if False:\n            with"),
    ("anothers_lease_renewed", "        if found.holder != self._identity:\n            return (", "        if False:\n            return ("),
    ("lease_without_its_version", "version=found.version)\n                self._see", "version=\"\")\n                self._see"),
    ("another_process_of_the_pod_is_dead", '0 < started_ms < before_ms and', '0 < started_ms and'),
    ("stands_with_a_term", "        if self._term is not None and not self._term.ended:\n            raise", "        if False:\n            raise"),
    ("fresh_from_after_the_try", "                tried_ms = self._clock.boot_ms()\n                released.clear()\n                if await self._try_to_acquire():\n                    return tried_ms", "                released.clear()\n                if await self._try_to_acquire():\n                    return self._clock.boot_ms()"),
)  # fmt: skip

TERM = (
    ("fresh_from_after_the_renewal", "self._fresh_until_ms = sent_ms + self._config.renew_deadline_ms", "self._fresh_until_ms = self._clock.boot_ms() + self._config.renew_deadline_ms"),
    ("fresh_as_long_as_the_lease", "self._fresh_until_ms = sent_ms + self._config.renew_deadline_ms", "self._fresh_until_ms = sent_ms + self._config.lease_duration_ms"),
    ("fresh_after_its_end", "return 0 if self.ended else self._fresh_until_ms", "return self._fresh_until_ms"),
    ("rival_does_not_end_the_term", "        if lost:\n            self._end(lost)\n            return lost", "        if lost:\n            return lost"),
    ("renewal_never_given_up", "                if left_s <= 0:", "                if False:"),
    ("released_term_leads_on", "        self._end(\"released\")\n", ""),
)  # fmt: skip

PARTITION = (
    ("host_deposed_by_a_checkpoint_goes_on", "        self.broken = error\n        self._wake.set()\n\n", "        pass\n\n"),
    ("broken_engine_goes_on", "                if self.broken is not None:\n                    raise self.broken\n", ""),
    ("effects_though_the_lease_is_not_fresh", "        if not self._term.is_fresh():\n            raise Deposed", "        if False:\n            raise Deposed"),
    ("end_of_a_connection_unheard", "                self.post(PullEnded(request=command.request))", "                pass"),
    ("nobody_told_that_the_term_ended", "                    future.set_exception(TermEnded())", "                    pass"),
    ("stopping_host_takes_calls", "        if not self.leading or self._stopping:\n            raise TermEnded", "        if not self.leading:\n            raise TermEnded"),
    ("stopping_host_fires_on", "        if self._stopping:\n            return math.inf\n", ""),
    ("stops_with_facts_in_hand", "if self._stopping and not self._facts and not self._effects:", "if self._stopping:"),
    ("full_store_takes_more", "if retained >= limit and not self.intake_held:", "if retained >= 2 * limit and not self.intake_held:"),
    ("intake_never_opens", "elif self.intake_held and retained < limit * _HELD_SHARE:", "elif False:"),
    ("lead_unknown_when_a_term_begins", "            self.post(LeadSet(lead_ms=self._pace.lead_ms))\n            self.post(CatalogSynced())", "            self.post(CatalogSynced())"),
    ("snapshot_before_the_last_facts", "        views = self._take_views(loop.time())\n        facts,", "        early = self.engine.snapshot() if self._checkpoint_due(loop.time()) else None\n        views = self._take_views(loop.time())\n        facts,",
     "a snapshot that nobody takes changes nothing"),
)  # fmt: skip

CHECKPOINTS = (
    ("deposition_unheard", "            self._on_deposed(error)\n", "            pass\n"),
    ("failed_checkpoint_tried_at_once", "            self._not_before = loop.time() + _AGAIN_S\n", ""),
    ("relief_again_and_again", "            self._relief_from = loop.time() + _AGAIN_S\n", ""),
    ("two_checkpoints_at_once", "if self._writing is not None or now < self._not_before:", "if now < self._not_before:"),
    ("facts_written_down_for_nobody", "            snapshot.end()\n", ""),
    ("checkpoint_outlives_its_term", "            self._writing.cancel()\n            await asyncio.wait([self._writing])", "            pass"),
)  # fmt: skip

LEADERSHIP = (
    ("corruption_tried_again", "                except LedgerCorrupt:\n                    raise\n", ""),
    ("lease_kept_when_the_term_ends", "                finally:\n                    await term.release()", "                finally:\n                    pass"),
    ("lost_lease_unheard", "            if lost.done() and not leading.done():\n                raise Deposed", "            if False:\n                raise Deposed"),
    ("ledger_left_open", "            await ledger.close()\n", ""),
    ("stands_without_a_catalog", "        await self._catalog.wait_synced()\n", ""),
    ("no_time_to_finish", "                host.stop()\n                await asyncio.wait(", "                await asyncio.wait("),
)  # fmt: skip
